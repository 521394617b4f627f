//! Prompt to image with HunyuanDiT (diffusers `pipelines/hunyuandit/pipeline_hunyuandit.py`, `HunyuanDiTPipeline`).

use xdit_kernels::Tensor;

use super::configs::Configs;
use super::embeddings::SIZE_NUMBERS;
use super::encoders::{HunyuanEmbeds, ImagesOfPrompts, Tokenizers, encode};
use super::{HunyuanText, HunyuanTransformer};
use crate::error::Result;
use crate::files::source::ModelSource;
use crate::observer::Observer;
use crate::pipeline::family::{Asked, Family};
use crate::pipeline::finite::Finite;
use crate::pipeline::request::Request;
use crate::pipeline::resolve::ResolvedRequest;
use crate::pipeline::store::ModelStore;

impl Family for Configs {
    type Tokenizers = Tokenizers;
    type Embeds = HunyuanEmbeds;

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
    ) -> Result<Vec<HunyuanEmbeds>> {
        let branches = request.branches_3(plan.guide.plan.guidance_scale > 1.0);
        let [prompt, ..] = branches.positive;
        let negative = branches.negative.map(|[prompt, ..]| prompt);
        let branches: Vec<_> = std::iter::once(prompt).chain(negative).collect();
        let images = ImagesOfPrompts {
            each: request.num_images_per_prompt,
            exact_diffusers: request.exact_diffusers == Some(true),
        };
        encode(store, tokenizers, &branches, images, finite, observer)
    }

    fn embed_text(
        transformer: &HunyuanTransformer,
        embeds: &HunyuanEmbeds,
        Asked {
            request,
            resolved: plan,
        }: Asked<'_>,
        observer: &mut dyn Observer,
    ) -> Result<HunyuanText> {
        let sizes = sizes(request, plan);
        if transformer.config().style_and_size {
            let shown = Tensor::from_slice(&sizes, [1, SIZE_NUMBERS], embeds.embeds[0].device())?;
            observer.offer("image_meta_size", &shown)?;
        }
        let both = embeds.embeds.each_ref();
        let masks = embeds.masks.each_ref().map(Vec::as_slice);
        transformer.embed_text(both, masks, &sizes, observer)
    }
}

/// The size inputs of every image: original size, target size and crop.
fn sizes(request: &Request, plan: &ResolvedRequest) -> [f32; SIZE_NUMBERS] {
    let [original_height, original_width] = request.original_size.unwrap_or([1024, 1024]);
    let [height, width] = request.target_size.unwrap_or([plan.height, plan.width]);
    let [top, left] = request.crops_coords_top_left.unwrap_or([0, 0]);
    [original_height, original_width, height, width, top, left].map(|pixels| pixels as f32)
}
