//! What to draw: the arguments of a pipeline's call, in diffusers' words.

mod branches;
mod conditions;

use xdit_kernels::Tensor;

pub(crate) use branches::{Branches, Branches3};

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
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// One prompt per group of images.
    pub prompt: Vec<String>,
    /// Prompts for the second text encoder; `prompt` when absent. One for all, or as many as `prompt`.
    pub prompt_2: Option<Vec<String>>,
    /// What not to draw; used when `true_cfg_scale` is above 1. One for all, or as many as `prompt`.
    pub negative_prompt: Option<Vec<String>>,
    /// Negative prompts for the second text encoder; `negative_prompt` when absent.
    pub negative_prompt_2: Option<Vec<String>>,
    /// For the third text encoder of Stable Diffusion 3 (T5); `prompt` when `None`.
    pub prompt_3: Option<Vec<String>>,
    /// What that encoder reads instead to be kept away from; the first negative prompt when `None`.
    pub negative_prompt_3: Option<Vec<String>>,
    /// Layers of CLIP that are left out before its embeddings are taken, beside the last. Stable Diffusion 3 only.
    pub clip_skip: usize,
    /// The sampler, by diffusers' name of its class; that of the pipeline's file when `None`. HunyuanDiT only.
    pub scheduler: Option<String>,
    /// How far the guided prediction's deviation is brought back to that of the conditional one (Lin et al. 2023): 0 for
    /// not at all. HunyuanDiT only.
    pub guidance_rescale: f64,
    /// Whether pictures are drawn in the size nearest to theirs that the model was trained on, and stay in it; as the model has
    /// it by default when `None`. HunyuanDiT only.
    pub use_resolution_binning: Option<bool>,
    /// Height and width that the model is told the picture had before it was scaled; 1024 and 1024 when `None`. HunyuanDiT
    /// v1.1 only, as the next two.
    pub original_size: Option<[usize; 2]>,
    /// Height and width that the model is told the picture has; its own when `None`.
    pub target_size: Option<[usize; 2]>,
    /// Row and column at which the model is told the picture was cut out of a larger one; 0 and 0 when `None`.
    pub crops_coords_top_left: Option<[usize; 2]>,
    /// Blocks that skip-layer guidance leaves out; none for no such guidance. Stable Diffusion 3.5 only.
    pub skip_guidance_layers: Vec<usize>,
    /// How far skip-layer guidance pushes away from the prediction without those blocks.
    pub skip_layer_guidance_scale: f64,
    /// The part of the steps after which skip-layer guidance begins.
    pub skip_layer_guidance_start: f64,
    /// The part of the steps at which it ends.
    pub skip_layer_guidance_stop: f64,
    /// Weight of classifier-free guidance by a second run of the model; it runs only above 1 and with a negative
    /// prompt, as in diffusers.
    pub true_cfg_scale: f64,
    /// Height of the images in pixels.
    pub height: Option<usize>,
    /// Width of the images in pixels.
    pub width: Option<usize>,
    /// Denoising steps.
    pub num_inference_steps: Option<usize>,
    /// Noise levels to use instead of the evenly spaced ones, from high to low.
    pub sigmas: Option<Vec<f64>>,
    /// Guidance that a distilled model takes as an input; ignored by models without it.
    pub guidance_scale: Option<f64>,
    /// Tokens of the second text encoder; longer prompts are cut.
    pub max_sequence_length: Option<usize>,
    /// Images of each prompt.
    pub num_images_per_prompt: usize,
    /// One seed for the whole batch, or one for each image.
    pub seeds: Vec<i128>,
    /// Packed initial latents to use instead of noise: `[images, tokens, channels]`.
    pub latents: Option<Tensor>,
    /// What is returned.
    pub output: OutputType,
    /// Whether a fault of diffusers is copied: with several prompts of several images each, HunyuanDiT's images read their own
    /// prompts' tokens under the masks of other prompts.
    pub exact_diffusers: bool,
    /// Whether a result with NaN or infinity in it is given out, with a warning, instead of ending in
    /// [`Error::NotFinite`](crate::Error::NotFinite).
    pub allow_non_finite: bool,
    /// Whether images larger than the VAE was trained on are decoded in overlapping tiles, in less memory: an
    /// approximation, as diffusers' `enable_tiling()`. Not where several ranks share the decode, which is exact.
    pub vae_tiling: bool,
}

impl Request {
    /// A request to draw one image of each prompt with the pipeline's defaults and seed 42.
    pub fn new<S: Into<String>>(prompt: impl IntoIterator<Item = S>) -> Self {
        Self {
            prompt: texts(prompt),
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
            skip_guidance_layers: Vec::new(),
            skip_layer_guidance_scale: 2.8,
            skip_layer_guidance_start: 0.01,
            skip_layer_guidance_stop: 0.2,
            true_cfg_scale: 1.0,
            height: None,
            width: None,
            num_inference_steps: None,
            sigmas: None,
            guidance_scale: None,
            max_sequence_length: None,
            num_images_per_prompt: 1,
            seeds: vec![42],
            latents: None,
            output: OutputType::Image,
            exact_diffusers: false,
            allow_non_finite: false,
            vae_tiling: false,
        }
    }

    /// Sets the prompts of the second text encoder.
    #[must_use]
    pub fn prompt_2<S: Into<String>>(mut self, prompt: impl IntoIterator<Item = S>) -> Self {
        self.prompt_2 = Some(texts(prompt));
        self
    }

    /// Sets what not to draw.
    #[must_use]
    pub fn negative_prompt<S: Into<String>>(mut self, prompt: impl IntoIterator<Item = S>) -> Self {
        self.negative_prompt = Some(texts(prompt));
        self
    }

    /// Sets what not to draw, for the second text encoder.
    #[must_use]
    pub fn negative_prompt_2<S: Into<String>>(
        mut self,
        prompt: impl IntoIterator<Item = S>,
    ) -> Self {
        self.negative_prompt_2 = Some(texts(prompt));
        self
    }

    /// Sets prompts for the third text encoder.
    #[must_use]
    pub fn prompt_3<S: Into<String>>(mut self, prompt: impl IntoIterator<Item = S>) -> Self {
        self.prompt_3 = Some(texts(prompt));
        self
    }

    /// Sets negative prompts for the third text encoder.
    #[must_use]
    pub fn negative_prompt_3<S: Into<String>>(
        mut self,
        prompt: impl IntoIterator<Item = S>,
    ) -> Self {
        self.negative_prompt_3 = Some(texts(prompt));
        self
    }

    /// Sets how many layers of CLIP are left out.
    #[must_use]
    pub fn clip_skip(mut self, layers: usize) -> Self {
        self.clip_skip = layers;
        self
    }

    /// Sets the blocks that skip-layer guidance leaves out.
    #[must_use]
    pub fn skip_guidance_layers(mut self, blocks: impl Into<Vec<usize>>) -> Self {
        self.skip_guidance_layers = blocks.into();
        self
    }

    /// Sets skip-layer guidance's scale, and the parts of the steps after which it begins and at which it ends.
    #[must_use]
    pub fn skip_layer_guidance(mut self, scale: f64, start: f64, stop: f64) -> Self {
        self.skip_layer_guidance_scale = scale;
        self.skip_layer_guidance_start = start;
        self.skip_layer_guidance_stop = stop;
        self
    }

    /// Sets the weight of classifier-free guidance.
    #[must_use]
    pub fn true_cfg_scale(mut self, scale: f64) -> Self {
        self.true_cfg_scale = scale;
        self
    }

    /// Sets the height in pixels.
    #[must_use]
    pub fn height(mut self, pixels: usize) -> Self {
        self.height = Some(pixels);
        self
    }

    /// Sets the width in pixels.
    #[must_use]
    pub fn width(mut self, pixels: usize) -> Self {
        self.width = Some(pixels);
        self
    }

    /// Sets the number of denoising steps.
    #[must_use]
    pub fn num_inference_steps(mut self, steps: usize) -> Self {
        self.num_inference_steps = Some(steps);
        self
    }

    /// Sets the noise levels, which also sets the number of steps.
    #[must_use]
    pub fn sigmas(mut self, sigmas: impl Into<Vec<f64>>) -> Self {
        self.sigmas = Some(sigmas.into());
        self
    }

    /// Sets the guidance that a distilled model takes as an input.
    #[must_use]
    pub fn guidance_scale(mut self, scale: f64) -> Self {
        self.guidance_scale = Some(scale);
        self
    }

    /// Sets the number of tokens of the second text encoder.
    #[must_use]
    pub fn max_sequence_length(mut self, tokens: usize) -> Self {
        self.max_sequence_length = Some(tokens);
        self
    }

    /// Sets how many images of each prompt are drawn.
    #[must_use]
    pub fn num_images_per_prompt(mut self, images: usize) -> Self {
        self.num_images_per_prompt = images;
        self
    }

    /// Sets one seed for the whole batch.
    #[must_use]
    pub fn seed(mut self, seed: impl Into<i128>) -> Self {
        self.seeds = vec![seed.into()];
        self
    }

    /// Sets the seeds: one for the whole batch, or one for each image.
    #[must_use]
    pub fn seeds<S: Into<i128>>(mut self, seeds: impl IntoIterator<Item = S>) -> Self {
        self.seeds = seeds.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the initial latents, packed.
    #[must_use]
    pub fn latents(mut self, latents: Tensor) -> Self {
        self.latents = Some(latents);
        self
    }

    /// Sets what is returned.
    #[must_use]
    pub fn output(mut self, output: OutputType) -> Self {
        self.output = output;
        self
    }

    /// Sets whether a fault of diffusers is copied.
    #[must_use]
    pub fn exact_diffusers(mut self, exact: bool) -> Self {
        self.exact_diffusers = exact;
        self
    }

    /// Sets whether a result with NaN or infinity in it is given out.
    #[must_use]
    pub fn allow_non_finite(mut self, allowed: bool) -> Self {
        self.allow_non_finite = allowed;
        self
    }

    /// Sets whether large images are decoded in tiles.
    #[must_use]
    pub fn vae_tiling(mut self, tiling: bool) -> Self {
        self.vae_tiling = tiling;
        self
    }

    /// How many images the request asks for.
    #[must_use]
    pub fn image_count(&self) -> usize {
        self.prompt.len().saturating_mul(self.num_images_per_prompt)
    }
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

fn texts<S: Into<String>>(list: impl IntoIterator<Item = S>) -> Vec<String> {
    list.into_iter().map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_negative_prompt_serves_all() {
        let request = Request::new(["a", "b"])
            .negative_prompt(["c"])
            .true_cfg_scale(2.0);
        let branches = request.branches().unwrap();
        assert_eq!(branches.positive[1], ["a", "b"]);
        assert_eq!(branches.negative.unwrap()[1], ["c", "c"]);
        // Without a scale above 1 diffusers runs one branch.
        let request = Request::new(["a"]).negative_prompt(["c"]);
        assert!(request.branches().unwrap().negative.is_none());
    }

    #[test]
    fn counts_that_do_not_fit_name_the_argument() {
        for (request, argument) in [
            (Request::new::<&str>([]), "prompt"),
            (
                Request::new(["a", "b", "c"]).prompt_2(["d", "e"]),
                "prompt_2",
            ),
            (
                Request::new(["a", "b"]).negative_prompt(["c"; 3]),
                "negative_prompt",
            ),
            (
                Request::new(["a"]).negative_prompt_2(["c"]),
                "negative_prompt_2",
            ),
        ] {
            let error = request.branches().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{argument}`")), "{error}");
        }
    }
}
