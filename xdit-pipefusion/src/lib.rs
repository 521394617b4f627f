#![doc = include_str!("../README.md")]
// docs.rs sets this and has the nightly compiler, which shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod blocks;
mod draw;
mod drift_monitor;
mod driver;
mod error;
mod functions;
mod inbox;
mod kept;
mod links;
mod lockstep;
mod patches;
mod placement;
mod run;
mod schedule;
mod stage;
mod stages;
mod stale_kv;
mod timetable;
mod traffic;
mod turn_order;
mod work;

pub use blocks::Blocks;
pub use driver::{Driver, Report};
pub use error::{Error, Result, What};
pub use functions::{sampler_fn, stage_fn};
pub use kept::Kept;
pub use patches::PatchPlan;
pub use placement::Placement;
pub use schedule::{Part, Schedule, Turn};
pub use stage::{Sampler, Stage};
pub use stages::StagePlan;
pub use stale_kv::StaleKv;
pub use traffic::{StepTraffic, Traffic};
pub use xdit_comm;
pub use xdit_kernels;
