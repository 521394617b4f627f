//! Prompt to image with Stable Diffusion 3 and 3.5 (diffusers `pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py`,
//! `StableDiffusion3Pipeline`).

use xdit_cfg::{GuidancePlan, SkipLayers};

use super::configs::Configs;
use super::encoders::{Tokenizers, encode};
use super::{PromptEmbeds, Sd3Text, Sd3Transformer};
use crate::error::{Error, Result};
use crate::files::source::ModelSource;
use crate::models::dit::Guide;
use crate::observer::Observer;
use crate::pipeline::family::Family;
use crate::pipeline::finite::Finite;
use crate::pipeline::request::{Defaults, Request};
use crate::pipeline::resolve::{ResolvedRequest, Rules};
use crate::pipeline::store::ModelStore;
use crate::schedulers::SchedulerConfig;

/// diffusers refuses more tokens of T5.
pub(super) const MAX_SEQUENCE_LENGTH: usize = 512;

impl Family for Configs {
    type Tokenizers = Tokenizers;
    type Embeds = PromptEmbeds;

    fn read(source: &ModelSource) -> Result<Self> {
        Self::read(source)
    }

    fn tokenizers(&self, source: &ModelSource) -> Result<Tokenizers> {
        Tokenizers::read(source, self)
    }

    fn defaults(&self, _: &ModelSource) -> Defaults {
        self.defaults()
    }

    fn rules(&self) -> Rules {
        Rules {
            max_sequence_length: MAX_SEQUENCE_LENGTH,
            clip_tokens: self.clip_length,
            patch: self.sd3.patch_size,
            cuts_sizes: false,
            standard_size: None,
            max_tokens: Some(self.sd3.pos_embed_max_size),
            even_sigmas: false,
        }
    }

    fn scheduler(&self, _: &Request) -> Result<SchedulerConfig> {
        Ok(SchedulerConfig::FlowMatchEuler(self.scheduler.clone()))
    }

    /// Guidance, and which blocks its third branch leaves out.
    fn guide(&self, request: &Request, defaults: &Defaults) -> Result<Guide> {
        request.refuse_conditions(SchedulerConfig::FLOW_MATCHING)?;
        request.refuse(&[("true_cfg_scale", request.true_cfg_scale != 1.0)])?;
        let skipped = &request.skip_guidance_layers;
        let count = self.sd3.block_count();
        if let Some(block) = skipped.iter().find(|block| **block >= count) {
            let allowed = format!("below {count}, the blocks of the model");
            return Err(Error::invalid("skip_guidance_layers", block, allowed));
        }
        let layers = self
            .clip
            .num_hidden_layers
            .min(self.clip_2.num_hidden_layers);
        if request.clip_skip >= layers {
            let allowed = format!("below {layers}, the layers of CLIP");
            return Err(Error::invalid("clip_skip", request.clip_skip, allowed));
        }
        let guidance_scale = request.guidance_scale.unwrap_or(defaults.guidance_scale) as f32;
        request.branches_3(guidance_scale > 1.0)?;
        Ok(Guide {
            embedded: 0.0,
            plan: GuidancePlan {
                guidance_scale,
                guidance_rescale: 0.0,
                skip_layers: (!skipped.is_empty()).then_some(SkipLayers {
                    scale: request.skip_layer_guidance_scale as f32,
                    start: request.skip_layer_guidance_start,
                    stop: request.skip_layer_guidance_stop,
                }),
            },
            skipped: skipped.clone(),
        })
    }

    fn encode(
        store: &ModelStore<Self>,
        tokenizers: &Tokenizers,
        (request, plan): (&Request, &ResolvedRequest),
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
            &request.branches_3(guided)?,
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
        _: (&Request, &ResolvedRequest),
        _: &mut dyn Observer,
    ) -> Result<Sd3Text> {
        transformer.embed_text(&embeds.prompt_embeds, &embeds.pooled)
    }

    fn noise_channels(&self) -> usize {
        self.sd3.in_channels
    }
}
