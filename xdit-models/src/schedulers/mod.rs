//! Schedulers: the list of noise levels, and the update rule of a step.

mod flow_match_config;

pub use flow_match_config::{FlowMatchEulerConfig, SigmaSpacing, TimeShift};
