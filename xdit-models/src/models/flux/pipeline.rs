//! Prompt to image with Flux.1 (diffusers `pipelines/flux/pipeline_flux.py`, `FluxPipeline`).

use xdit_comm::Spec;
use xdit_kernels::{DType, Tensor};

use super::configs::Configs;
use super::encoders::{Tokenizers, encode};
use super::{FluxText, FluxTransformer, latents};
use crate::error::Result;
use crate::files::source::ModelSource;
use crate::observer::Observer;
use crate::pipeline::embeds::EmbedTensors;
use crate::pipeline::family::{Asked, Family};
use crate::pipeline::finite::Finite;
use crate::pipeline::store::ModelStore;

impl EmbedTensors for [Tensor; 2] {
    const COUNT: usize = 2;

    fn tensors(&self) -> Result<Vec<Tensor>> {
        Ok(self.to_vec())
    }

    fn of_tensors(tensors: &[Tensor]) -> Result<Self> {
        Ok([tensors[0].clone(), tensors[1].clone()])
    }
}

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

    fn embed_specs(&self, asked: Asked<'_>, dtype: DType) -> Result<Vec<Spec>> {
        let (images, text_len) = (asked.resolved.images, asked.resolved.text_len);
        let specs = [
            Spec::new([images, text_len, self.t5.d_model], dtype),
            Spec::new([images, self.clip.hidden_size], dtype),
        ];
        let branches = 1 + usize::from(asked.request.branches()?.negative.is_some());
        Ok(specs.repeat(branches))
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
