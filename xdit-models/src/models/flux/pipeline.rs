//! Prompt to image with Flux.1 (diffusers `pipelines/flux/pipeline_flux.py`, `FluxPipeline`).

use xdit_kernels::Tensor;

use super::configs::Configs;
use super::encoders::{Tokenizers, encode};
use super::{FluxText, FluxTransformer, latents};
use crate::error::Result;
use crate::files::source::ModelSource;
use crate::observer::Observer;
use crate::pipeline::family::{Asked, Family};
use crate::pipeline::finite::Finite;
use crate::pipeline::store::ModelStore;

impl Family for Configs {
    type Tokenizers = Tokenizers;
    /// Embeddings of T5 and pooled embeddings of CLIP.
    type Embeds = [Tensor; 2];

    fn tokenizers(&self, source: &ModelSource) -> Result<Tokenizers> {
        Tokenizers::read(source, self)
    }

    fn encode(
        store: &ModelStore<Self>,
        tokenizers: &Tokenizers,
        Asked {
            request,
            resolved: plan,
        }: Asked<'_>,
        finite: &Finite,
        observer: &mut dyn Observer,
    ) -> Result<Vec<[Tensor; 2]>> {
        encode(
            store,
            tokenizers,
            &request.branches()?,
            [request.num_images_per_prompt, plan.text_len],
            finite,
            observer,
        )
    }

    fn embed_text(
        transformer: &FluxTransformer,
        [embeds, pooled]: &[Tensor; 2],
        _: Asked<'_>,
        _: &mut dyn Observer,
    ) -> Result<FluxText> {
        transformer.embed_text(embeds, pooled)
    }

    fn of_noise(noise_bchw: Tensor) -> Result<Tensor> {
        latents::pack(&noise_bchw)
    }
}
