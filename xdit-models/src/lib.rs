#![doc = include_str!("../README.md")]
// docs.rs sets this and has the nightly compiler, which shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod cancel;
mod error;
mod files;
pub mod layers;
mod models;
pub mod noise;
mod observer;
mod pipeline;
pub mod quote;
mod ranks;
pub mod schedulers;
pub mod text;
pub mod vae;

pub use cancel::CancelToken;
pub use error::{Error, ErrorCategory, Result};
pub use files::config::ConfigFile;
pub use files::config::MODEL_INDEX;
#[cfg(feature = "hub")]
pub use files::hub;
pub use files::model_index::{ComponentClass, ModelIndex, PipelineClass};
pub use files::source::ModelSource;
pub use files::weights;
pub use layers::activation::ActivationKind;
pub use models::{flux, hunyuandit, sd3};
pub use observer::{Observer, Phase, PhaseEvent, StepEnd};
pub use pipeline::device_memory::GpuMemory;
pub use pipeline::estimate::MemoryEstimate;
pub use pipeline::handle::Pipeline;
pub use pipeline::image::Image;
pub use pipeline::info;
pub use pipeline::memory_limit::{available_memory, refused_thread};
pub use pipeline::options::LoadOptions;
pub use pipeline::output::Output;
pub use pipeline::rank_plan::{RankMemory, RankPlan, StageSummary};
pub use pipeline::request::{Defaults, IntoPrompts, OutputType, Overlay, Request};
pub use pipeline::run_plan::RunPlan;
pub use ranks::axes;
pub use ranks::checkpoint::Checkpoint;
pub use ranks::degrees::Degrees;
pub use ranks::mesh_order::MeshOrder;
pub use ranks::parallel::{OnRankLoss, Parallel, PipeFusion, RankBackend, StageSplit};
pub use ranks::run_part::{LostRank, RunPart};
pub use xdit_comm;
pub use xdit_kernels;
pub use xdit_pipefusion::{Blocks, PatchPlan, Placement, Report, Schedule, StepTraffic, Traffic};
