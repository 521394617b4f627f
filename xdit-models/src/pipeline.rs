//! Pipelines: from a prompt to an image, whatever the model.

use xdit_kernels::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::image::Image;
use crate::model_index::{ModelIndex, PipelineClass};
use crate::observer::Observer;
use crate::request::{Defaults, Request};
use crate::source::ModelSource;

/// How a pipeline is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// The dtype that weights are held in and models compute in; sums are f32 always.
    pub dtype: DType,
    /// Where it runs.
    pub device: Device,
    /// Threads to compute with; all of the machine's when `None`. Results do not depend on it.
    pub threads: Option<usize>,
    /// Which variant of the weights to read (`fp16` for `….fp16.safetensors`).
    pub variant: Option<String>,
    /// The most memory that a call may plan to use, in bytes; what the system says is available when `None`.
    pub memory_limit: Option<u64>,
}

impl Default for LoadOptions {
    /// f32 on all cores of the processor.
    fn default() -> Self {
        Self {
            dtype: DType::F32,
            device: Device::cpu(),
            threads: None,
            variant: None,
            memory_limit: None,
        }
    }
}

/// What a call returns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Output {
    /// The images; empty when only latents were asked for.
    pub images: Vec<Image>,
    /// The images before rounding: `[images, 3, height, width]` f32 in [0, 1].
    pub float: Option<Tensor>,
    /// The final latents, packed: `[images, tokens, channels]`, as diffusers' `output_type="latent"` returns them.
    pub latents: Tensor,
    /// Height of the images in pixels, after snapping.
    pub height: usize,
    /// Width of the images in pixels, after snapping.
    pub width: usize,
}

/// A loaded pipeline of any supported class.
#[derive(Debug)]
pub struct Pipeline {
    defaults: Defaults,
}

impl Pipeline {
    /// The pipeline in `source`, ready to run.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::BadFile`], [`Error::BadConfig`], [`Error::BadTensor`] or
    /// [`Error::Unsupported`] for what is wrong with its files, [`Error::OutOfMemory`] when its weights do not fit.
    pub fn load(
        source: &ModelSource,
        options: &LoadOptions,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let _ = (options, observer);
        match ModelIndex::read(source)?.pipeline {
            PipelineClass::Flux => Err(Error::bad_file(source.name(), "Flux lands next")),
        }
    }

    /// What a call uses where its request says nothing.
    #[must_use]
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Draws what `request` asks for.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for arguments out of range, [`Error::OutOfMemory`] when the call would not fit,
    /// [`Error::Stopped`] when the observer ended it.
    pub fn generate(&self, request: &Request, observer: &mut dyn Observer) -> Result<Output> {
        let _ = (request, observer);
        Err(Error::bad_file("pipeline", "Flux lands next"))
    }
}
