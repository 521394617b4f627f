//! What the configurations of a family of models decide: all that plans need before any weight is read.

use crate::error::Result;
use crate::files::config::ConfigFile;
use crate::files::model_index::PipelineClass;
use crate::files::source::ModelSource;
use crate::models::dit::Guide;
use crate::pipeline::request::{Defaults, Request};
use crate::pipeline::resolve::Rules;
use crate::schedulers::SchedulerConfig;

/// What a transformer's configuration says about it.
#[derive(Debug)]
pub(crate) struct TransformerFacts {
    /// Attention heads.
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
    /// How many blocks of each kind it has.
    pub(crate) blocks: Vec<(&'static str, usize)>,
}

/// The configurations of all components of a pipeline, which fit together.
pub(crate) trait Configurations: Sized {
    /// The class of the pipelines.
    const CLASS: PipelineClass;
    /// The Python class of their transformers.
    const TRANSFORMER: &'static str;

    /// What a transformer's configuration says about it.
    ///
    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) for one that is wrong.
    fn facts(config: &ConfigFile) -> Result<TransformerFacts>;

    /// Those of the pipeline in `source`.
    ///
    /// # Errors
    /// [`Error::BadConfig`](crate::Error::BadConfig) and others for components that are wrong or do not fit together.
    fn read(source: &ModelSource) -> Result<Self>;

    /// diffusers' own defaults.
    fn defaults(&self, source: &ModelSource) -> Defaults;

    /// What sizes and lengths are allowed.
    fn rules(&self) -> Rules;

    /// The scheduler that the request asks for.
    fn scheduler(&self, request: &Request) -> Result<SchedulerConfig>;

    /// What guides the request's call; an error for arguments that the family has no use for, and for prompts that do not fit
    /// each other.
    fn guide(&self, request: &Request, defaults: &Defaults) -> Result<Guide>;

    /// Channels of the autoencoder's latents, in which noise is drawn.
    fn noise_channels(&self) -> usize;
}
