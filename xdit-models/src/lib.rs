#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod activation;
mod compose;
pub mod config;
#[cfg(feature = "demo")]
mod demo;
mod dit;
pub mod error;
mod estimate;
mod file_bytes;
mod finite;
mod fits;
pub mod flux;
#[cfg(feature = "hub")]
pub mod hub;
pub mod hunyuandit;
mod image;
pub mod info;
mod inner_path;
pub mod layers;
mod memory;
mod model_index;
pub mod noise;
mod observer;
mod parallel;
mod pipeline;
pub mod quote;
mod request;
mod run_plan;
pub mod schedulers;
pub mod sd3;
mod snapshots;
mod source;
pub mod text;
pub mod tokenizers;
pub mod vae;
pub mod weights;

pub use activation::ActivationKind;
pub use config::ConfigFile;
pub use error::{Error, ErrorCategory, Result};
pub use estimate::MemoryEstimate;
pub use image::Image;
pub use memory::refused_thread;
pub use model_index::{ComponentClass, MODEL_INDEX, ModelIndex, PipelineClass};
pub use observer::{Observer, Phase, PhaseEvent, StepEnd};
pub use parallel::{Parallel, PipeFusion, RankBackend, StageSplit};
pub use pipeline::{LoadOptions, Output, Pipeline};
pub use request::{Defaults, OutputType, Request};
pub use run_plan::{RankMemory, RankPlan, RunPlan, StageSummary};
pub use source::ModelSource;
pub use xdit_pipefusion::{Blocks, PatchPlan, Placement, Report, Schedule, StepTraffic, Traffic};
