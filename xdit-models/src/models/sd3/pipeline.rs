//! Prompt to image with Stable Diffusion 3 and 3.5 (diffusers `pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py`,
//! `StableDiffusion3Pipeline`).

use xdit_comm::Spec;
use xdit_kernels::{DType, Tensor};

use super::configs::Configs;
use super::encoders::{Tokenizers, encode};
use super::{PromptEmbeds, Sd3Text, Sd3Transformer};
use crate::error::Result;
use crate::files::source::ModelSource;
use crate::observer::Observer;
use crate::pipeline::embeds::EmbedTensors;
use crate::pipeline::family::{Asked, Family};
use crate::pipeline::finite::Finite;
use crate::pipeline::store::ModelStore;

impl EmbedTensors for PromptEmbeds {
    const COUNT: usize = 2;

    fn tensors(&self) -> Result<Vec<Tensor>> {
        Ok(vec![self.prompt_embeds.clone(), self.pooled.clone()])
    }

    fn of_tensors(tensors: &[Tensor]) -> Result<Self> {
        Ok(Self {
            prompt_embeds: tensors[0].clone(),
            pooled: tensors[1].clone(),
        })
    }
}

impl Family for Configs {
    type Tokenizers = Tokenizers;
    type Embeds = PromptEmbeds;

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
    ) -> Result<Vec<PromptEmbeds>> {
        let guided = plan.guide.plan.guidance_scale > 1.0;
        encode(
            store,
            tokenizers,
            &request.branches_3(guided),
            [
                request.num_images_per_prompt,
                plan.sequence_length,
                request.clip_skip,
            ],
            finite,
            observer,
        )
    }

    fn embed_specs(&self, asked: Asked<'_>, dtype: DType) -> Result<Vec<Spec>> {
        let plan = asked.resolved;
        let specs = [
            Spec::new(
                [plan.images, plan.text_len, self.sd3.joint_attention_dim],
                dtype,
            ),
            Spec::new([plan.images, self.sd3.pooled_projection_dim], dtype),
        ];
        let guided = plan.guide.plan.guidance_scale > 1.0;
        let branches = 1 + usize::from(asked.request.branches_3(guided).negative.is_some());
        Ok(specs.repeat(branches))
    }

    fn embed_text(
        transformer: &Sd3Transformer,
        embeds: &PromptEmbeds,
        _: Asked<'_>,
        _: &mut dyn Observer,
    ) -> Result<Sd3Text> {
        transformer.embed_text(&embeds.prompt_embeds, &embeds.pooled)
    }
}
