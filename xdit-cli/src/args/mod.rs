//! The command line: all flags and their values.
//!
//! This module turns words into values of `xdit-models`. It uses `report::failure` for errors.

pub(crate) mod argv;
pub(crate) mod call;
pub(crate) mod cli;
pub(crate) mod compute;
pub(crate) mod device;
mod headings;
mod help;
pub(crate) mod hints;
pub(crate) mod launch;
pub(crate) mod model;
pub(crate) mod notes;
pub(crate) mod output;
pub(crate) mod processes;
pub(crate) mod prompt_file;
pub(crate) mod ranks;
pub(crate) mod request;
pub(crate) mod seed;
mod suggested;
