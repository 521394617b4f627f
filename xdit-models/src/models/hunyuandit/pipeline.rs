//! Prompt to image with HunyuanDiT (diffusers `pipelines/hunyuandit/pipeline_hunyuandit.py`, `HunyuanDiTPipeline`).

use xdit_comm::Spec;
use xdit_kernels::{DType, Tensor};

use super::configs::Configs;
use super::embeddings::SIZE_NUMBERS;
use super::encoders::{HunyuanEmbeds, ImagesOfPrompts, Tokenizers, encode};
use super::{HunyuanText, HunyuanTransformer};
use crate::error::Result;
use crate::files::source::ModelSource;
use crate::observer::Observer;
use crate::pipeline::embeds::EmbedTensors;
use crate::pipeline::family::{Asked, Family};
use crate::pipeline::finite::Finite;
use crate::pipeline::request::Request;
use crate::pipeline::resolve::ResolvedRequest;
use crate::pipeline::store::ModelStore;

impl EmbedTensors for HunyuanEmbeds {
    const COUNT: usize = 4;

    fn tensors(&self) -> Result<Vec<Tensor>> {
        let masks = self.masks.iter().zip(&self.embeds).map(|(mask, embeds)| {
            let bytes: Vec<u8> = mask.iter().map(|is_text| u8::from(*is_text)).collect();
            let shape = [embeds.dim(0), embeds.dim(1)];
            Ok(Tensor::from_slice(&bytes, shape, embeds.device())?)
        });
        let embeds = self.embeds.iter().cloned().map(Ok);
        embeds.chain(masks).collect()
    }

    fn of_tensors(tensors: &[Tensor]) -> Result<Self> {
        let mask = |tensor: &Tensor| -> Result<Vec<bool>> {
            let bytes = tensor.to_vec_blocking::<u8>()?;
            Ok(bytes.into_iter().map(|byte| byte != 0).collect())
        };
        Ok(Self {
            embeds: [tensors[0].clone(), tensors[1].clone()],
            masks: [mask(&tensors[2])?, mask(&tensors[3])?],
        })
    }
}

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

    fn embed_specs(&self, asked: Asked<'_>, dtype: DType) -> Result<Vec<Spec>> {
        let (images, config) = (asked.resolved.images, &self.hunyuan);
        let lengths = [config.text_len, config.text_len_t5];
        let widths = [config.cross_attention_dim, config.cross_attention_dim_t5];
        let embeds = [0, 1].map(|i| Spec::new([images, lengths[i], widths[i]], dtype));
        let masks = lengths.map(|length| Spec::new([images, length], DType::U8));
        let guided = asked.resolved.guide.plan.guidance_scale > 1.0;
        let branches = 1 + usize::from(asked.request.branches_3(guided).negative.is_some());
        Ok([embeds, masks].concat().repeat(branches))
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
