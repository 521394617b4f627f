//! What crosses crates: goldens from diffusers, the command line, the house rules.

pub mod attack;
pub mod changed;
pub mod facts;
pub mod golden_run;
pub mod goldens;
pub mod recorded;
pub mod wide;
