//! Support for the tests that cross crates: goldens and their harness, damaged files, facts of the demo.

pub mod attack;
pub mod changed;
pub mod facts;
pub mod golden_run;
pub mod goldens;
pub mod over_ranks;
pub mod psnr;
pub mod random;
pub mod recorded;
pub mod tensor_list;
pub mod wide;
