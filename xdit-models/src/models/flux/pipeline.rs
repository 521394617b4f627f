//! Prompt to image with Flux.1 (diffusers `pipelines/flux/pipeline_flux.py`, `FluxPipeline`).

use xdit_cfg::GuidancePlan;
use xdit_kernels::Tensor;

use super::configs::Configs;
use super::encoders::{Tokenizers, encode};
use super::{FluxText, FluxTransformer, latents};
use crate::error::Result;
use crate::files::source::ModelSource;
use crate::models::dit::Guide;
use crate::observer::Observer;
use crate::pipeline::family::Family;
use crate::pipeline::finite::Finite;
use crate::pipeline::request::{Defaults, Request};
use crate::pipeline::resolve::{ResolvedRequest, Rules};
use crate::pipeline::store::ModelStore;
use crate::schedulers::SchedulerConfig;

/// `FluxPipeline.check_inputs`, and its sigmas.
pub(crate) const RULES: Rules = Rules {
    max_sequence_length: 512,
    clip_tokens: 0,
    patch: 2,
    cuts_sizes: true,
    standard_size: None,
    max_tokens: None,
    even_sigmas: true,
};

impl Family for Configs {
    type Tokenizers = Tokenizers;
    /// T5's, and CLIP's pooled ones.
    type Embeds = [Tensor; 2];

    fn read(source: &ModelSource) -> Result<Self> {
        Self::read(source)
    }

    fn tokenizers(&self, source: &ModelSource) -> Result<Tokenizers> {
        Tokenizers::read(source, self)
    }

    fn defaults(&self, source: &ModelSource) -> Defaults {
        self.defaults(source)
    }

    fn rules(&self) -> Rules {
        RULES
    }

    fn scheduler(&self, _: &Request) -> Result<SchedulerConfig> {
        Ok(SchedulerConfig::FlowMatchEuler(self.scheduler.clone()))
    }

    fn guide(&self, request: &Request, defaults: &Defaults) -> Result<Guide> {
        request.refuse_conditions(SchedulerConfig::FLOW_MATCHING)?;
        request.refuse(&[
            ("prompt_3", request.prompt_3.is_some()),
            ("negative_prompt_3", request.negative_prompt_3.is_some()),
            ("clip_skip", request.clip_skip != 0),
            (
                "skip_guidance_layers",
                !request.skip_guidance_layers.is_empty(),
            ),
        ])?;
        // Without a negative prompt there is no other branch, whatever the scale.
        let scale = match request.branches()?.negative {
            Some(_) => request.true_cfg_scale as f32,
            None => 1.0,
        };
        Ok(Guide {
            embedded: request.guidance_scale.unwrap_or(defaults.guidance_scale) as f32,
            plan: GuidancePlan {
                guidance_scale: scale,
                guidance_rescale: 0.0,
                skip_layers: None,
            },
            skipped: Vec::new(),
        })
    }

    fn encode(
        store: &ModelStore<Self>,
        tokenizers: &Tokenizers,
        (request, plan): (&Request, &ResolvedRequest),
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
        _: (&Request, &ResolvedRequest),
        _: &mut dyn Observer,
    ) -> Result<FluxText> {
        transformer.embed_text(embeds, pooled)
    }

    fn noise_channels(&self) -> usize {
        self.flux.in_channels / 4
    }

    fn of_noise(noise_bchw: Tensor) -> Result<Tensor> {
        latents::pack(&noise_bchw)
    }
}
