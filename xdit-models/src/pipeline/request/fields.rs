//! The arguments of a call, with their names in diffusers, and their defaults.

use serde::{Deserialize, Serialize};
use xdit_kernels::Tensor;

use super::lists::{seeds, some_texts, texts};

/// The kind of result of a call.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum OutputType {
    /// Decoded images.
    #[default]
    Image,
    /// Packed latents, as diffusers' `output_type="latent"`. The VAE does not run.
    Latent,
}

/// The arguments of one call. The pipeline's [`Defaults`] replace missing ones.
///
/// With serde, a request is an object with these field names, except that `seeds` is `seed`, as in diffusers. A prompt is one
/// string or a list, a seed one number or a list. Missing fields have their defaults, and an unknown field is an error.
/// `latents` and `output` are not part of it, because they concern tensors in memory. An [`Overlay`](crate::Overlay) holds some
/// of the fields.
///
/// # Examples
/// ```
/// use xdit_models::Request;
/// let request = Request::new("a red circle on a blue background")
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
    /// The prompts. Each prompt has its own group of images.
    #[serde(deserialize_with = "texts")]
    pub prompt: Vec<String>,
    /// Prompts of the second text encoder, one for all or one per prompt. Default: `prompt`.
    #[serde(deserialize_with = "some_texts", skip_serializing_if = "none")]
    pub prompt_2: Option<Vec<String>>,
    /// Negative prompts, one for all or one per prompt. Used with `true_cfg_scale` above 1.
    #[serde(deserialize_with = "some_texts", skip_serializing_if = "none")]
    pub negative_prompt: Option<Vec<String>>,
    /// Negative prompts of the second text encoder. Default: `negative_prompt`.
    #[serde(deserialize_with = "some_texts", skip_serializing_if = "none")]
    pub negative_prompt_2: Option<Vec<String>>,
    /// Prompts of the third text encoder of Stable Diffusion 3 (T5). Default: `prompt`.
    #[serde(deserialize_with = "some_texts", skip_serializing_if = "none")]
    pub prompt_3: Option<Vec<String>>,
    /// Negative prompts of the third text encoder. Default: `negative_prompt`.
    #[serde(deserialize_with = "some_texts", skip_serializing_if = "none")]
    pub negative_prompt_3: Option<Vec<String>>,
    /// The number of layers of CLIP that are skipped before the last one. Stable Diffusion 3 only.
    #[serde(skip_serializing_if = "is_default")]
    pub clip_skip: usize,
    /// The sampler, by the name of its class in diffusers. Default: the sampler of the pipeline's file. HunyuanDiT only.
    #[serde(skip_serializing_if = "none")]
    pub scheduler: Option<String>,
    /// How far the guided prediction is rescaled to the standard deviation of the conditional one (Lin et al. 2023). 0 is no
    /// rescale. HunyuanDiT only.
    #[serde(skip_serializing_if = "is_default")]
    pub guidance_rescale: f64,
    /// Whether to draw images in the nearest size that the model was trained on. The images keep that size. Default: that of
    /// the model. HunyuanDiT only.
    #[serde(skip_serializing_if = "none")]
    pub use_resolution_binning: Option<bool>,
    /// Height and width of the image before scaling, as an input of the model. Default: 1024 and 1024. This and the next two:
    /// HunyuanDiT v1.1 only.
    #[serde(skip_serializing_if = "none")]
    pub original_size: Option<[usize; 2]>,
    /// Height and width of the image, as an input of the model. Default: the size of the image.
    #[serde(skip_serializing_if = "none")]
    pub target_size: Option<[usize; 2]>,
    /// Row and column of the crop, as an input of the model. Default: 0 and 0.
    #[serde(skip_serializing_if = "none")]
    pub crops_coords_top_left: Option<[usize; 2]>,
    /// Whether to copy a fault of diffusers: with several prompts of several images each, HunyuanDiT's images read their own
    /// prompts' tokens with the masks of other prompts. Default: false.
    #[serde(skip_serializing_if = "none")]
    pub exact_diffusers: Option<bool>,
    /// Blocks that skip-layer guidance leaves out. Empty for no skip-layer guidance. Stable Diffusion 3.5 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_guidance_layers: Vec<usize>,
    /// The scale of skip-layer guidance. Default: 2.8.
    #[serde(skip_serializing_if = "none")]
    pub skip_layer_guidance_scale: Option<f64>,
    /// The fraction of the steps after which skip-layer guidance starts. Default: 0.01.
    #[serde(skip_serializing_if = "none")]
    pub skip_layer_guidance_start: Option<f64>,
    /// The fraction of the steps at which skip-layer guidance stops. Default: 0.2.
    #[serde(skip_serializing_if = "none")]
    pub skip_layer_guidance_stop: Option<f64>,
    /// The scale of classifier-free guidance, which runs the model a second time. It is used only above 1 and with a negative
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
    /// Noise levels instead of the evenly spaced ones, from high to low. Their number is the number of steps.
    #[serde(skip_serializing_if = "none")]
    pub sigmas: Option<Vec<f64>>,
    /// The guidance input of a distilled model. Models without this input ignore it.
    #[serde(skip_serializing_if = "none")]
    pub guidance_scale: Option<f64>,
    /// The number of tokens of the second text encoder. Longer prompts are cut.
    #[serde(skip_serializing_if = "none")]
    pub max_sequence_length: Option<usize>,
    /// The number of images per prompt.
    pub num_images_per_prompt: usize,
    /// Whether to decode images that are larger than those of the VAE's training in overlapping tiles. This needs less memory
    /// and is approximate, as diffusers' `enable_tiling()`. It has no effect if several ranks decode together, which is exact.
    #[serde(skip_serializing_if = "is_default")]
    pub vae_tiling: bool,
    /// Whether to return a result with NaN or infinity, with a warning, instead of
    /// [`Error::NotFinite`](crate::Error::NotFinite).
    #[serde(skip_serializing_if = "is_default")]
    pub allow_non_finite: bool,
    /// One seed for the whole batch, or one for each image.
    #[serde(rename = "seed", deserialize_with = "seeds")]
    pub seeds: Vec<i128>,
    /// Packed initial latents instead of noise: `[images, tokens, channels]`.
    #[serde(skip)]
    pub latents: Option<Tensor>,
    /// The kind of output.
    #[serde(skip)]
    pub output: OutputType,
}

impl Default for Request {
    /// A request without a prompt. Use [`Request::new`] for a valid request.
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
    /// Returns the number of images of the request.
    #[must_use]
    pub fn image_count(&self) -> usize {
        self.prompt.len().saturating_mul(self.num_images_per_prompt)
    }

    /// Returns the scale of skip-layer guidance and the fractions of the steps at which it starts and stops, or `None` if no
    /// block is left out.
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

/// The defaults of a pipeline for the missing arguments of a [`Request`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Defaults {
    /// Height of the images in pixels.
    pub height: usize,
    /// Width of the images in pixels.
    pub width: usize,
    /// Denoising steps.
    pub num_inference_steps: usize,
    /// Guidance input of a distilled model.
    pub guidance_scale: f64,
    /// Number of tokens of the second text encoder.
    pub max_sequence_length: usize,
    /// The name of the sampler's class in diffusers.
    pub scheduler: &'static str,
}
