//! Checks of a request that hold for all models.

use super::fields::Request;
use crate::error::{Error, Result};
use crate::noise::Generator;
use crate::quote;
use crate::schedulers::MAX_INFERENCE_STEPS;

/// The longest side of an image in pixels.
pub(crate) const MAX_SIDE: usize = 1 << 15;

/// The largest number of images of one call.
const MAX_IMAGES: usize = 1 << 20;

/// The largest number of bytes of one prompt: far above what a text encoder reads (512 tokens).
const MAX_PROMPT_BYTES: usize = 64 << 10;

impl Request {
    /// Checks the arguments that no model accepts. Planning a request calls this first, and then checks the arguments that
    /// depend on the model.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], which names the argument.
    pub fn check(&self) -> Result<()> {
        self.check_prompts()?;
        self.check_images()?;
        self.check_steps()?;
        self.check_scales()
    }

    fn check_prompts(&self) -> Result<()> {
        let count = self.prompt.len();
        if count == 0 {
            return Err(Error::invalid("prompt", "nothing", "at least one prompt"));
        }
        let lists = [
            ("prompt", Some(&self.prompt)),
            ("prompt_2", self.prompt_2.as_ref()),
            ("prompt_3", self.prompt_3.as_ref()),
            ("negative_prompt", self.negative_prompt.as_ref()),
            ("negative_prompt_2", self.negative_prompt_2.as_ref()),
            ("negative_prompt_3", self.negative_prompt_3.as_ref()),
        ];
        for (argument, list) in lists {
            let Some(list) = list else { continue };
            if let Some(long) = list.iter().find(|text| text.len() > MAX_PROMPT_BYTES) {
                let given = format!("a text of {} bytes", long.len());
                let allowed = format!("at most {MAX_PROMPT_BYTES} bytes (64 KiB)");
                return Err(Error::invalid(argument, given, allowed));
            }
            if list.len() != 1 && list.len() != count {
                let given = quote::counted(list.len(), "prompt");
                let allowed = match count {
                    1 => "1 prompt, as `prompt` is".to_owned(),
                    _ => format!("1 prompt or {count}, as many as `prompt`"),
                };
                return Err(Error::invalid(argument, given, allowed));
            }
        }
        Ok(())
    }

    fn check_images(&self) -> Result<()> {
        let each = self.num_images_per_prompt;
        let images = self.image_count();
        if !(1..=MAX_IMAGES).contains(&images) {
            let allowed = format!("at least 1, and at most {MAX_IMAGES} for all prompts together");
            return Err(Error::invalid("num_images_per_prompt", each, allowed));
        }
        if self.seeds.len() != 1 && self.seeds.len() != images {
            let given = quote::counted(self.seeds.len(), "seed");
            let allowed = match images {
                1 => "1 seed, because 1 image is drawn".to_owned(),
                _ => format!("1 seed for all images or {images}, one for each"),
            };
            return Err(Error::invalid("seed", given, allowed));
        }
        for seed in &self.seeds {
            Generator::from_seed(*seed)?;
        }
        for (argument, side) in [("height", self.height), ("width", self.width)] {
            if let Some(pixels) = side.filter(|pixels| !(1..=MAX_SIDE).contains(pixels)) {
                let allowed = format!("from 1 to {MAX_SIDE} pixels");
                return Err(Error::invalid(argument, pixels, allowed));
            }
        }
        Ok(())
    }

    fn check_steps(&self) -> Result<()> {
        let (argument, steps) = match &self.sigmas {
            Some(sigmas) => ("sigmas", Some(sigmas.len())),
            None => ("num_inference_steps", self.num_inference_steps),
        };
        if let Some(steps) = steps.filter(|steps| !(1..=MAX_INFERENCE_STEPS).contains(steps)) {
            let allowed = format!("from 1 to {MAX_INFERENCE_STEPS}");
            return Err(Error::invalid(argument, steps, allowed));
        }
        let mut sigmas = self.sigmas.iter().flatten();
        match sigmas.find(|sigma| !(0.0..=1.0).contains(*sigma)) {
            Some(sigma) => Err(Error::invalid("sigmas", sigma, "numbers from 0 to 1")),
            None => Ok(()),
        }
    }

    fn check_scales(&self) -> Result<()> {
        if self.max_sequence_length == Some(0) {
            return Err(Error::invalid("max_sequence_length", 0, "at least 1"));
        }
        let skips = [
            ("skip_layer_guidance_scale", self.skip_layer_guidance_scale),
            ("skip_layer_guidance_start", self.skip_layer_guidance_start),
            ("skip_layer_guidance_stop", self.skip_layer_guidance_stop),
        ];
        let scales = [
            ("guidance_scale", self.guidance_scale),
            ("true_cfg_scale", Some(self.true_cfg_scale)),
            ("guidance_rescale", Some(self.guidance_rescale)),
        ];
        for (argument, number) in scales.into_iter().chain(skips) {
            if let Some(number) = number.filter(|number| !(*number as f32).is_finite()) {
                return Err(Error::invalid(argument, number, "a finite number"));
            }
        }
        let unused = skips.iter().find(|(_, number)| number.is_some());
        match unused.filter(|_| self.skip_guidance_layers.is_empty()) {
            Some((argument, number)) => Err(Error::invalid(
                argument,
                number.unwrap_or_default(),
                "left out without `skip_guidance_layers`: no block is left out",
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_can_serve_names_its_argument() {
        let base = || Request::new("a");
        let mut unused = base();
        unused.skip_layer_guidance_stop = Some(0.5);
        for (request, argument) in [
            (Request::new(Vec::<String>::new()), "prompt"),
            (
                Request::new(["a", "b", "c"]).prompt_2(["d", "e"]),
                "prompt_2",
            ),
            (base().prompt_3(["c", "d"]), "prompt_3"),
            (
                Request::new(["a", "b"]).negative_prompt(["c"; 3]),
                "negative_prompt",
            ),
            (
                base().negative_prompt_3(Vec::<String>::new()),
                "negative_prompt_3",
            ),
            (Request::new(["a".repeat(65 << 10)]), "prompt"),
            (base().prompt_2(["a".repeat(65 << 10)]), "prompt_2"),
            (base().height(0), "height"),
            (base().width(1_000_000), "width"),
            (base().width(usize::MAX), "width"),
            (base().num_inference_steps(0), "num_inference_steps"),
            (
                base().num_inference_steps(usize::MAX),
                "num_inference_steps",
            ),
            (base().sigmas([]), "sigmas"),
            (base().sigmas([f64::NAN]), "sigmas"),
            (base().num_images_per_prompt(0), "num_images_per_prompt"),
            (
                Request::new(["a", "b"]).num_images_per_prompt(usize::MAX),
                "num_images_per_prompt",
            ),
            (base().seeds([1, 2]), "seed"),
            (base().seeds::<i128>([]), "seed"),
            (base().seed(1_i128 << 64), "seed"),
            (base().max_sequence_length(0), "max_sequence_length"),
            (base().guidance_scale(f64::NAN), "guidance_scale"),
            (base().guidance_scale(1e300), "guidance_scale"),
            (base().true_cfg_scale(f64::INFINITY), "true_cfg_scale"),
            (unused, "skip_layer_guidance_stop"),
        ] {
            let message = request.check().unwrap_err().to_string();
            let start = format!("`{argument}` = ");
            assert!(message.starts_with(&start), "{message}");
            assert!(message.len() < 300, "{message}");
        }
        for prompt in ["", " \t\n"] {
            let empty = Request::new([prompt])
                .prompt_2([prompt])
                .negative_prompt([""]);
            assert!(
                empty.check().is_ok(),
                "{prompt:?} is drawn, as by diffusers"
            );
        }
    }
}
