//! Prompt to image with HunyuanDiT (diffusers `pipelines/hunyuandit/pipeline_hunyuandit.py`, `HunyuanDiTPipeline`).

use xdit_cfg::GuidancePlan;
use xdit_kernels::Tensor;

use super::configs::{Configs, TEXT_LENGTHS};
use super::embeddings::SIZE_NUMBERS;
use super::encoders::{ImagesOfPrompts, PromptEmbeds, Tokenizers, encode};
use super::sizes::standard_size;
use super::{HunyuanText, HunyuanTransformer};
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
            max_sequence_length: TEXT_LENGTHS[1],
            clip_tokens: TEXT_LENGTHS[0],
            patch: self.hunyuan.patch_size,
            cuts_sizes: true,
            standard_size: Some(standard_size),
            max_tokens: None,
            even_sigmas: false,
        }
    }

    fn scheduler(&self, request: &Request) -> Result<SchedulerConfig> {
        self.scheduler(request)
    }

    fn guide(&self, request: &Request, defaults: &Defaults) -> Result<Guide> {
        request.refuse(&[
            ("prompt_2", request.prompt_2.is_some()),
            ("prompt_3", request.prompt_3.is_some()),
            ("negative_prompt_2", request.negative_prompt_2.is_some()),
            ("negative_prompt_3", request.negative_prompt_3.is_some()),
            ("true_cfg_scale", request.true_cfg_scale != 1.0),
            ("clip_skip", request.clip_skip != 0),
            (
                "skip_guidance_layers",
                !request.skip_guidance_layers.is_empty(),
            ),
            ("sigmas", request.sigmas.is_some()),
        ])?;
        if let Some(length) = request.max_sequence_length
            && length != TEXT_LENGTHS[1]
        {
            let allowed = format!("{}: this model reads no other number", TEXT_LENGTHS[1]);
            return Err(Error::invalid("max_sequence_length", length, allowed));
        }
        if !self.hunyuan.style_and_size {
            request.refuse_sizes()?;
        }
        let guidance_scale = request.guidance_scale.unwrap_or(defaults.guidance_scale) as f32;
        request.branches_3(guidance_scale > 1.0)?;
        Ok(Guide {
            embedded: 0.0,
            plan: GuidancePlan {
                guidance_scale,
                guidance_rescale: request.guidance_rescale as f32,
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
    ) -> Result<Vec<PromptEmbeds>> {
        let branches = request.branches_3(plan.guide.plan.guidance_scale > 1.0)?;
        let [prompt, ..] = branches.positive;
        let negative = branches.negative.map(|[prompt, ..]| prompt);
        let branches: Vec<_> = std::iter::once(prompt).chain(negative).collect();
        let images = ImagesOfPrompts {
            each: request.num_images_per_prompt,
            exact_diffusers: request.exact_diffusers,
        };
        encode(store, tokenizers, &branches, images, finite, observer)
    }

    fn embed_text(
        transformer: &HunyuanTransformer,
        embeds: &PromptEmbeds,
        (request, plan): (&Request, &ResolvedRequest),
        observer: &mut dyn Observer,
    ) -> Result<HunyuanText> {
        let sizes = sizes(request, plan);
        if transformer.config().style_and_size {
            let shown = Tensor::from_slice(&sizes, [1, SIZE_NUMBERS])?;
            observer.offer("image_meta_size", &shown)?;
        }
        let both = embeds.embeds.each_ref();
        let masks = embeds.masks.each_ref().map(Vec::as_slice);
        transformer.embed_text(both, masks, &sizes, observer)
    }

    fn noise_channels(&self) -> usize {
        self.hunyuan.in_channels
    }
}

/// What the model is told of every image's size: what it was once, what it shall be, and where it was cut.
fn sizes(request: &Request, plan: &ResolvedRequest) -> [f32; SIZE_NUMBERS] {
    let [original_height, original_width] = request.original_size.unwrap_or([1024, 1024]);
    let [height, width] = request.target_size.unwrap_or([plan.height, plan.width]);
    let [top, left] = request.crops_coords_top_left.unwrap_or([0, 0]);
    [original_height, original_width, height, width, top, left].map(|pixels| pixels as f32)
}
