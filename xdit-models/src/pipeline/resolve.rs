//! Checks a request and fills in its defaults, before any work.

use crate::error::{Error, Result};
use crate::models::dit::Guide;
use crate::pipeline::request::{Defaults, MAX_SIDE, Request};
use crate::schedulers::SchedulerConfig;
use crate::vae::VaeConfig;

/// The rules of a family of models.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The largest number of T5 tokens in diffusers.
    pub(crate) max_sequence_length: usize,
    /// The number of CLIP tokens before those of T5.
    pub(crate) clip_tokens: usize,
    /// The number of latent pixels along each side of a token.
    pub(crate) patch: usize,
    /// Whether sizes that are not whole tokens are rounded down, with a warning, or refused.
    pub(crate) cuts_sizes: bool,
    /// The sizes that the model was trained on. An image is drawn in the nearest one, unless the request turns this off.
    pub(crate) standard_size: Option<fn([usize; 2]) -> [usize; 2]>,
    /// The largest number of tokens along a side, if a table of positions limits it.
    pub(crate) max_tokens: Option<usize>,
    /// Whether noise levels are evenly spaced before they are shifted. Otherwise the scheduler chooses its own.
    pub(crate) even_sigmas: bool,
}

/// The checked arguments of one call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ResolvedRequest {
    pub(crate) images: usize,
    /// In pixels, rounded.
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Latent pixels.
    pub(crate) latent_size: [usize; 2],
    /// Rows and columns of image tokens.
    pub(crate) tokens: [usize; 2],
    pub(crate) text_len: usize,
    /// The number of T5 tokens among them.
    pub(crate) sequence_length: usize,
    pub(crate) steps: usize,
    /// Noise levels before the scheduler shifts them, if they are not the scheduler's own.
    pub(crate) sigmas: Option<Vec<f64>>,
    pub(crate) guide: Guide,
    /// Whether large images are decoded in tiles.
    pub(crate) vae_tiling: bool,
    /// The number of images that replicas in this process decode at the same time.
    pub(crate) decoded_at_once: usize,
    /// Warnings for the caller.
    pub(crate) warnings: Vec<String>,
}

impl ResolvedRequest {
    pub(crate) fn new(
        request: &Request,
        defaults: &Defaults,
        rules: Rules,
        guide: Guide,
        vae: &VaeConfig,
    ) -> Result<Self> {
        let unit = rules.patch * vae.scale_factor();
        let asked = [
            request.height.unwrap_or(defaults.height),
            request.width.unwrap_or(defaults.width),
        ];
        for (argument, pixels) in ["height", "width"].into_iter().zip(asked) {
            if pixels < unit {
                return Err(Error::invalid(
                    argument,
                    pixels,
                    format!("from {unit} to {MAX_SIDE} pixels"),
                ));
            }
        }
        let mut tokens = asked.map(|pixels| pixels / unit);
        let [mut height, mut width] = tokens.map(|tokens| tokens * unit);
        let mut warnings = Vec::new();
        for (i, argument) in ["height", "width"].into_iter().enumerate() {
            if !rules.cuts_sizes && asked[i] != [height, width][i] {
                return Err(Error::invalid(
                    argument,
                    asked[i],
                    format!("divisible by {unit}"),
                ));
            }
            if let Some(most) = rules.max_tokens.filter(|most| tokens[i] > *most) {
                let allowed = format!("at most {}: positions are a table", most * unit);
                return Err(Error::invalid(argument, asked[i], allowed));
            }
        }
        if asked != [height, width] {
            warnings.push(format!(
                "`height` and `width` have to be divisible by {unit} but are {} and {}: drawing {height} × {width}",
                asked[0], asked[1]
            ));
        }
        let standard_size = rules
            .standard_size
            .filter(|_| request.use_resolution_binning.unwrap_or(true));
        if let Some(standard_size) = standard_size {
            tokens = standard_size([height, width]).map(|pixels| pixels / unit);
            let standard = tokens.map(|tokens| tokens * unit);
            if standard != [height, width] {
                let [to_height, to_width] = standard;
                warnings.push(format!(
                    "drawing {to_height} × {to_width}, of the sizes that the model was trained on the nearest to \
                     {height} × {width} (`use_resolution_binning`)"
                ));
                [height, width] = standard;
            }
        }
        let sequence_length = request
            .max_sequence_length
            .unwrap_or(defaults.max_sequence_length);
        if sequence_length > rules.max_sequence_length {
            let allowed = format!("from 1 to {}", rules.max_sequence_length);
            return Err(Error::invalid(
                "max_sequence_length",
                sequence_length,
                allowed,
            ));
        }
        let (steps, sigmas) = sigmas(request, defaults, rules);
        Ok(Self {
            images: request.image_count(),
            height,
            width,
            latent_size: tokens.map(|tokens| rules.patch * tokens),
            tokens,
            text_len: rules.clip_tokens + sequence_length,
            sequence_length,
            steps,
            sigmas,
            guide,
            vae_tiling: request.vae_tiling,
            decoded_at_once: 1,
            warnings,
        })
    }

    /// If several ranks decode each image together, tiles have no effect: the bands are exact and already divide the memory.
    pub(crate) fn decode_in_bands(&mut self) {
        if std::mem::take(&mut self.vae_tiling) {
            let text = "`vae_tiling` has no effect: the ranks of a replica decode each image together, exactly";
            self.warnings.push(text.into());
        }
    }

    /// Returns the request with all defaults filled in, and without given latents. Arguments without effect may remain.
    pub(crate) fn completed(&self, request: &Request, defaults: &Defaults) -> Request {
        let guidance_scale = request.guidance_scale.unwrap_or(defaults.guidance_scale);
        let scheduler = request.scheduler.clone().or_else(|| {
            let several = SchedulerConfig::DIFFUSION.contains(&defaults.scheduler);
            several.then(|| defaults.scheduler.into())
        });
        // Only with several prompts of several images can images read the masks of other prompts.
        let several = request.prompt.len() > 1 && request.num_images_per_prompt > 1;
        let skips = request.skip_layers();
        Request {
            scheduler,
            exact_diffusers: several.then_some(request.exact_diffusers.unwrap_or_default()),
            skip_layer_guidance_scale: skips.map(|[scale, ..]| scale),
            skip_layer_guidance_start: skips.map(|[_, start, _]| start),
            skip_layer_guidance_stop: skips.map(|[.., stop]| stop),
            height: Some(self.height),
            width: Some(self.width),
            num_inference_steps: Some(self.steps),
            guidance_scale: Some(guidance_scale),
            max_sequence_length: Some(self.sequence_length),
            latents: None,
            ..request.clone()
        }
    }

    pub(crate) fn image_tokens(&self) -> usize {
        self.tokens[0] * self.tokens[1]
    }
}

/// Returns the number of steps, and the caller's noise levels or `np.linspace(1, 1 / steps, steps)`.
fn sigmas(request: &Request, defaults: &Defaults, rules: Rules) -> (usize, Option<Vec<f64>>) {
    if let Some(sigmas) = &request.sigmas {
        return (sigmas.len(), Some(sigmas.clone()));
    }
    let steps = request
        .num_inference_steps
        .unwrap_or(defaults.num_inference_steps);
    if !rules.even_sigmas {
        return (steps, None);
    }
    let last = 1.0 / steps as f64;
    let step = (last - 1.0) / (steps.max(2) - 1) as f64;
    let sigmas = (0..steps).map(|i| match i > 0 && i + 1 == steps {
        true => last,
        false => i as f64 * step + 1.0,
    });
    (steps, Some(sigmas.collect()))
}

#[cfg(test)]
mod tests;
