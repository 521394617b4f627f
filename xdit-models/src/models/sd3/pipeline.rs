//! Prompt to image with Stable Diffusion 3 and 3.5 (diffusers `pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py`,
//! `StableDiffusion3Pipeline`).

use super::configs::Configs;
use super::encoders::{Tokenizers, encode};
use super::{PromptEmbeds, Sd3Text, Sd3Transformer};
use crate::error::Result;
use crate::files::source::ModelSource;
use crate::observer::Observer;
use crate::pipeline::family::{Asked, Family};
use crate::pipeline::finite::Finite;
use crate::pipeline::store::ModelStore;

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
        let for_t5 = request.prompt_3.is_some() || request.negative_prompt_3.is_some();
        if for_t5 && store.configs.t5.is_none() {
            observer.warning("`prompt_3` and `negative_prompt_3` have no effect without T5");
        }
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

    fn embed_text(
        transformer: &Sd3Transformer,
        embeds: &PromptEmbeds,
        _: Asked<'_>,
        _: &mut dyn Observer,
    ) -> Result<Sd3Text> {
        transformer.embed_text(&embeds.prompt_embeds, &embeds.pooled)
    }
}
