//! What this machine offers to a run, what is missing, and what to do about it.
//!
//! Each file looks at one part of the machine and returns findings. No check changes anything: none creates a file, starts a program
//! or uses the network. `links` measures how fast the ranks of a job exchange messages.

pub(crate) mod finding;
mod gpus;
pub(crate) mod links;
pub(crate) mod machine;
mod models;
mod programs;
