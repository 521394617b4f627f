//! The configurations of a family of models. Plans need only these, and no weights.

use crate::error::Result;
use crate::files::config::ConfigFile;
use crate::files::model_index::PipelineClass;
use crate::files::source::ModelSource;
use crate::models::dit::Guide;
use crate::pipeline::request::{Defaults, Request};
use crate::pipeline::resolve::{ResolvedRequest, Rules};
use crate::schedulers::SchedulerConfig;

/// Facts from the configuration of a transformer.
#[derive(Debug)]
pub(crate) struct TransformerFacts {
    /// Attention heads.
    pub(crate) heads: usize,
    /// The width of a head.
    pub(crate) head_dim: usize,
    /// The number of blocks of each kind.
    pub(crate) blocks: Vec<(&'static str, usize)>,
}

/// The configurations of all components of a pipeline, checked against each other.
pub(crate) trait Configurations: Sized {
    /// The class of the pipeline.
    const CLASS: PipelineClass;
    /// The Python class of the transformer.
    const TRANSFORMER: &'static str;

    /// Reads the facts from the configuration of a transformer.
    ///
    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) if the configuration is invalid.
    fn facts(config: &ConfigFile) -> Result<TransformerFacts>;

    /// Reads the configurations of the pipeline in `source`.
    ///
    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) and others if components are invalid or do not fit each other.
    fn read(source: &ModelSource) -> Result<Self>;

    /// Returns the defaults of diffusers.
    fn defaults(&self, source: &ModelSource) -> Defaults;

    /// Returns the allowed sizes and lengths.
    fn rules(&self) -> Rules;

    /// Returns the scheduler of the request.
    fn scheduler(&self, request: &Request) -> Result<SchedulerConfig>;

    /// Returns the guidance of the request. An error for arguments that the family does not support, and for prompts that do
    /// not fit each other.
    fn guide(&self, request: &Request, defaults: &Defaults) -> Result<Guide>;

    /// What the caller should know of a request that can be served: which arguments have no effect on this model, and what the
    /// model was not made for.
    fn warnings(&self, request: &Request, resolved: &ResolvedRequest) -> Vec<String>;

    /// Returns the number of channels of the autoencoder's latents, in which noise is drawn.
    fn noise_channels(&self) -> usize;
}
