//! The arguments of a pipeline's call, in diffusers' words, and what they are by default.

use serde::{Deserialize, Serialize};
use xdit_kernels::Tensor;

use super::lists::{seeds, some_texts, texts};

/// What a call is to return.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum OutputType {
    /// Decoded images.
    #[default]
    Image,
    /// Packed latents, as diffusers' `output_type="latent"`; the VAE does not run.
    Latent,
}

/// The arguments of one call. What is not set is taken from the pipeline's [`Defaults`].
///
/// With serde a request is an object whose fields have these names, except that `seeds` is `seed`, as diffusers' users know it.
/// A prompt may be one text or a list, a seed one number or a list. What is left out has its default, and a field of another name
/// is an error. `latents` and `output` are left out: they are about tensors in memory. An [`Overlay`](crate::Overlay) holds
/// some of the fields.
///
/// # Examples
/// ```
/// use xdit_models::Request;
/// let request = Request::new(["a red circle on a blue background"])
///     .height(256)
///     .width(256)
///     .num_inference_steps(4)
///     .seed(7);
/// assert_eq!(request.seeds, [7]);
/// assert_eq!(request.guidance_scale, None);
///
/// let same: Request = serde_json::from_str(
///     r#"{"prompt": "a red circle on a blue background", "height": 256, "width": 256, "num_inference_steps": 4, "seed": 7}"#,
/// )?;
/// assert_eq!(serde_json::to_string(&same)?, serde_json::to_string(&request)?);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Request {
    /// One prompt per group of images.
    #[serde(deserialize_with = "texts")]
    pub prompt: Vec<String>,
    /// Prompts for the second text encoder; `prompt` when absent. One for all, or as many as `prompt`.
    #[serde(deserialize_with = "some_texts", skip_serializing_if = "none")]
    pub prompt_2: Option<Vec<String>>,
    /// What not to draw; used when `true_cfg_scale` is above 1. One for all, or as many as `prompt`.
    #[serde(deserialize_with = "some_texts", skip_serializing_if = "none")]
    pub negative_prompt: Option<Vec<String>>,
    /// Negative prompts for the second text encoder; `negative_prompt` when absent.
    #[serde(deserialize_with = "some_texts", skip_serializing_if = "none")]
    pub negative_prompt_2: Option<Vec<String>>,
    /// For the third text encoder of Stable Diffusion 3 (T5); `prompt` when `None`.
    #[serde(deserialize_with = "some_texts", skip_serializing_if = "none")]
    pub prompt_3: Option<Vec<String>>,
    /// What that encoder reads instead to be kept away from; the first negative prompt when `None`.
    #[serde(deserialize_with = "some_texts", skip_serializing_if = "none")]
    pub negative_prompt_3: Option<Vec<String>>,
    /// Layers of CLIP that are left out before its embeddings are taken, beside the last. Stable Diffusion 3 only.
    #[serde(skip_serializing_if = "is_default")]
    pub clip_skip: usize,
    /// The sampler, by diffusers' name of its class; that of the pipeline's file when `None`. HunyuanDiT only.
    #[serde(skip_serializing_if = "none")]
    pub scheduler: Option<String>,
    /// How far the guided prediction's deviation is brought back to that of the conditional one (Lin et al. 2023): 0 for
    /// not at all. HunyuanDiT only.
    #[serde(skip_serializing_if = "is_default")]
    pub guidance_rescale: f64,
    /// Whether pictures are drawn in the size nearest to theirs that the model was trained on, and stay in it; as the model has
    /// it by default when `None`. HunyuanDiT only.
    #[serde(skip_serializing_if = "none")]
    pub use_resolution_binning: Option<bool>,
    /// Height and width that the model is told the picture had before it was scaled; 1024 and 1024 when `None`. HunyuanDiT
    /// v1.1 only, as the next two.
    #[serde(skip_serializing_if = "none")]
    pub original_size: Option<[usize; 2]>,
    /// Height and width that the model is told the picture has; its own when `None`.
    #[serde(skip_serializing_if = "none")]
    pub target_size: Option<[usize; 2]>,
    /// Row and column at which the model is told the picture was cut out of a larger one; 0 and 0 when `None`.
    #[serde(skip_serializing_if = "none")]
    pub crops_coords_top_left: Option<[usize; 2]>,
    /// Whether a fault of diffusers is copied: with several prompts of several images each, HunyuanDiT's images read their own
    /// prompts' tokens under the masks of other prompts. Not when `None`.
    #[serde(skip_serializing_if = "none")]
    pub exact_diffusers: Option<bool>,
    /// Blocks that skip-layer guidance leaves out; none for no such guidance. Stable Diffusion 3.5 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_guidance_layers: Vec<usize>,
    /// How far skip-layer guidance pushes away from the prediction without those blocks; 2.8 when `None`.
    #[serde(skip_serializing_if = "none")]
    pub skip_layer_guidance_scale: Option<f64>,
    /// The part of the steps after which skip-layer guidance begins; 0.01 when `None`.
    #[serde(skip_serializing_if = "none")]
    pub skip_layer_guidance_start: Option<f64>,
    /// The part of the steps at which it ends; 0.2 when `None`.
    #[serde(skip_serializing_if = "none")]
    pub skip_layer_guidance_stop: Option<f64>,
    /// Weight of classifier-free guidance by a second run of the model; it runs only above 1 and with a negative
    /// prompt, as in diffusers.
    pub true_cfg_scale: f64,
    /// Height of the images in pixels.
    #[serde(skip_serializing_if = "none")]
    pub height: Option<usize>,
    /// Width of the images in pixels.
    #[serde(skip_serializing_if = "none")]
    pub width: Option<usize>,
    /// Denoising steps.
    #[serde(skip_serializing_if = "none")]
    pub num_inference_steps: Option<usize>,
    /// Noise levels to use instead of the evenly spaced ones, from high to low; their number is that of the steps.
    #[serde(skip_serializing_if = "none")]
    pub sigmas: Option<Vec<f64>>,
    /// Guidance that a distilled model takes as an input; ignored by models without it.
    #[serde(skip_serializing_if = "none")]
    pub guidance_scale: Option<f64>,
    /// Tokens of the second text encoder; longer prompts are cut.
    #[serde(skip_serializing_if = "none")]
    pub max_sequence_length: Option<usize>,
    /// Images of each prompt.
    pub num_images_per_prompt: usize,
    /// Whether images larger than the VAE was trained on are decoded in overlapping tiles, in less memory: an
    /// approximation, as diffusers' `enable_tiling()`. Not where several ranks share the decode, which is exact.
    #[serde(skip_serializing_if = "is_default")]
    pub vae_tiling: bool,
    /// Whether a result with NaN or infinity in it is given out, with a warning, instead of ending in
    /// [`Error::NotFinite`](crate::Error::NotFinite).
    #[serde(skip_serializing_if = "is_default")]
    pub allow_non_finite: bool,
    /// One seed for the whole batch, or one for each image.
    #[serde(rename = "seed", deserialize_with = "seeds")]
    pub seeds: Vec<i128>,
    /// Packed initial latents to use instead of noise: `[images, tokens, channels]`.
    #[serde(skip)]
    pub latents: Option<Tensor>,
    /// What is returned.
    #[serde(skip)]
    pub output: OutputType,
}

impl Default for Request {
    /// A request without a prompt, of which [`Request::new`] makes one that can be served.
    fn default() -> Self {
        Self {
            prompt: Vec::new(),
            prompt_2: None,
            negative_prompt: None,
            negative_prompt_2: None,
            prompt_3: None,
            negative_prompt_3: None,
            clip_skip: 0,
            scheduler: None,
            guidance_rescale: 0.0,
            use_resolution_binning: None,
            original_size: None,
            target_size: None,
            crops_coords_top_left: None,
            exact_diffusers: None,
            skip_guidance_layers: Vec::new(),
            skip_layer_guidance_scale: None,
            skip_layer_guidance_start: None,
            skip_layer_guidance_stop: None,
            true_cfg_scale: 1.0,
            height: None,
            width: None,
            num_inference_steps: None,
            sigmas: None,
            guidance_scale: None,
            max_sequence_length: None,
            num_images_per_prompt: 1,
            vae_tiling: false,
            allow_non_finite: false,
            seeds: vec![42],
            latents: None,
            output: OutputType::Image,
        }
    }
}

impl Request {
    /// How many images the request asks for.
    #[must_use]
    pub fn image_count(&self) -> usize {
        self.prompt.len().saturating_mul(self.num_images_per_prompt)
    }

    /// Skip-layer guidance's scale, and the parts of the steps after which it begins and at which it ends; none where no block is
    /// left out.
    pub(crate) fn skip_layers(&self) -> Option<[f64; 3]> {
        (!self.skip_guidance_layers.is_empty()).then_some([
            self.skip_layer_guidance_scale.unwrap_or(2.8),
            self.skip_layer_guidance_start.unwrap_or(0.01),
            self.skip_layer_guidance_stop.unwrap_or(0.2),
        ])
    }
}

fn none<T>(value: &Option<T>) -> bool {
    value.is_none()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What a pipeline uses where a [`Request`] says nothing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Defaults {
    /// Height of the images in pixels.
    pub height: usize,
    /// Width of the images in pixels.
    pub width: usize,
    /// Denoising steps.
    pub num_inference_steps: usize,
    /// Guidance of a distilled model.
    pub guidance_scale: f64,
    /// Tokens of the second text encoder.
    pub max_sequence_length: usize,
    /// diffusers' name of the sampler's class.
    pub scheduler: &'static str,
}
