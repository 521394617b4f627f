#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod blocks;
mod drift_monitor;
mod driver;
mod error;
mod inbox;
mod kept;
mod links;
mod patches;
mod placement;
mod schedule;
mod stages;
mod stale_kv;
mod traffic;
mod turn_order;

pub use blocks::Blocks;
pub use driver::{Driver, Report, Sampler, Stage};
pub use error::{Error, Result, What};
pub use kept::Kept;
pub use patches::PatchPlan;
pub use placement::Placement;
pub use schedule::{Part, Schedule, Turn};
pub use stages::StagePlan;
pub use stale_kv::StaleKv;
pub use traffic::{StepTraffic, Traffic};
