//! Chainable setters of a request's arguments.

use xdit_kernels::Tensor;

use super::fields::{OutputType, Request};
use super::into_prompts::IntoPrompts;

impl Request {
    /// Creates a request for one image per prompt, with the pipeline's defaults and seed 42. The argument is one prompt, such as
    /// `"a red circle"`, or a list of prompts, such as `["a red circle", "a star"]`.
    pub fn new(prompt: impl IntoPrompts) -> Self {
        Self {
            prompt: prompt.into_prompts(),
            ..Self::default()
        }
    }

    /// Sets the prompts of the second text encoder: one for all prompts, or one for each.
    #[must_use]
    pub fn prompt_2(mut self, prompt: impl IntoPrompts) -> Self {
        self.prompt_2 = Some(prompt.into_prompts());
        self
    }

    /// Sets the negative prompts: one for all prompts, or one for each.
    #[must_use]
    pub fn negative_prompt(mut self, prompt: impl IntoPrompts) -> Self {
        self.negative_prompt = Some(prompt.into_prompts());
        self
    }

    /// Sets the negative prompts of the second text encoder: one for all prompts, or one for each.
    #[must_use]
    pub fn negative_prompt_2(mut self, prompt: impl IntoPrompts) -> Self {
        self.negative_prompt_2 = Some(prompt.into_prompts());
        self
    }

    /// Sets the prompts of the third text encoder: one for all prompts, or one for each.
    #[must_use]
    pub fn prompt_3(mut self, prompt: impl IntoPrompts) -> Self {
        self.prompt_3 = Some(prompt.into_prompts());
        self
    }

    /// Sets the negative prompts of the third text encoder: one for all prompts, or one for each.
    #[must_use]
    pub fn negative_prompt_3(mut self, prompt: impl IntoPrompts) -> Self {
        self.negative_prompt_3 = Some(prompt.into_prompts());
        self
    }

    /// Sets how many layers of CLIP are skipped.
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

    /// Sets the scale of skip-layer guidance, and the fractions of the steps at which it starts and stops.
    #[must_use]
    pub fn skip_layer_guidance(mut self, scale: f64, start: f64, stop: f64) -> Self {
        self.skip_layer_guidance_scale = Some(scale);
        self.skip_layer_guidance_start = Some(start);
        self.skip_layer_guidance_stop = Some(stop);
        self
    }

    /// Sets the scale of classifier-free guidance.
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

    /// Sets the guidance input of a distilled model.
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

    /// Sets the number of images per prompt.
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

    /// Sets the kind of output.
    #[must_use]
    pub fn output(mut self, output: OutputType) -> Self {
        self.output = output;
        self
    }

    /// Sets whether to copy a fault of diffusers.
    #[must_use]
    pub fn exact_diffusers(mut self, exact: bool) -> Self {
        self.exact_diffusers = Some(exact);
        self
    }

    /// Sets whether to return a result with NaN or infinity.
    #[must_use]
    pub fn allow_non_finite(mut self, allowed: bool) -> Self {
        self.allow_non_finite = allowed;
        self
    }

    /// Sets whether to decode large images in tiles.
    #[must_use]
    pub fn vae_tiling(mut self, tiling: bool) -> Self {
        self.vae_tiling = tiling;
        self
    }

    /// Sets the sampler, by the name of its class in diffusers.
    #[must_use]
    pub fn scheduler(mut self, class: impl Into<String>) -> Self {
        self.scheduler = Some(class.into());
        self
    }

    /// Sets how far the guided prediction is rescaled to the standard deviation of the conditional one.
    #[must_use]
    pub fn guidance_rescale(mut self, weight: f64) -> Self {
        self.guidance_rescale = weight;
        self
    }

    /// Sets whether to draw images in a size that the model was trained on.
    #[must_use]
    pub fn use_resolution_binning(mut self, binning: bool) -> Self {
        self.use_resolution_binning = Some(binning);
        self
    }

    /// Sets the height and width of the image before scaling, as an input of the model.
    #[must_use]
    pub fn original_size(mut self, size: [usize; 2]) -> Self {
        self.original_size = Some(size);
        self
    }

    /// Sets the height and width of the image, as an input of the model.
    #[must_use]
    pub fn target_size(mut self, size: [usize; 2]) -> Self {
        self.target_size = Some(size);
        self
    }

    /// Sets the row and column of the crop, as an input of the model.
    #[must_use]
    pub fn crops_coords_top_left(mut self, corner: [usize; 2]) -> Self {
        self.crops_coords_top_left = Some(corner);
        self
    }
}
