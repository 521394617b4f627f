#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod activation;
pub mod config;
pub mod error;
pub mod flux;
mod model_index;
pub mod noise;
pub mod schedulers;
mod source;
pub mod text;
pub mod vae;

pub use activation::ActivationKind;
pub use config::ConfigFile;
pub use error::{Error, ErrorCategory, Result};
pub use model_index::{ComponentClass, MODEL_INDEX, ModelIndex, PipelineClass};
pub use source::ModelSource;
