//! The command line: every flag, and what it asks for.
//!
//! It turns words into values of `xdit-models`, and uses `report::failure` for what is wrong with them.

pub(crate) mod argv;
pub(crate) mod call;
pub(crate) mod cli;
pub(crate) mod device;
pub(crate) mod prompt_file;
pub(crate) mod ranks;
pub(crate) mod request;
