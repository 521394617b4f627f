//! A run of a pipeline: the session, the model, the call, memory, signals.
//!
//! This module uses `args`, `output` and `report`, and no command.

pub(crate) mod again;
pub(crate) mod compute;
pub(crate) mod control;
pub(crate) mod digest;
pub(crate) mod draw;
pub(crate) mod environment;
pub(crate) mod gpus;
#[cfg(feature = "hub")]
pub(crate) mod hub;
#[cfg(feature = "hub")]
pub(crate) mod hub_options;
pub(crate) mod last_resort;
pub(crate) mod memory;
pub(crate) mod model;
pub(crate) mod model_choice;
pub(crate) mod process_report;
pub(crate) mod session;
pub(crate) mod signals;
pub(crate) mod survivors;
pub(crate) mod unused;
