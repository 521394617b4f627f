//! Finds results that are not finite where they begin. They are an error unless the caller allows them.

use std::sync::{Mutex, PoisonError};

use xdit_kernels::{DType, Tensor};

use crate::error::{Error, Result};
use crate::observer::Observer;

/// Checks the results of the parts of a call. All ranks of a call in this process share one value.
#[derive(Debug)]
pub(crate) struct Finite {
    allowed: bool,
    dtype: DType,
    /// The earliest result that is not finite, if the request allows it.
    first: Mutex<Option<NonFinite>>,
}

/// A result that is not finite.
#[derive(Clone, Debug)]
struct NonFinite {
    origin: Origin,
    whose: String,
}

/// The origin of the result. Earlier parts of a run are smaller.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Origin {
    /// A text encoder: its folder in the pipeline, and the prefix of the branch in the names of its embeddings.
    TextEncoder(&'static str, &'static str),
    /// The latents of the caller.
    Latents,
    /// A denoising step.
    Step {
        /// The index of the step, from 0.
        index: usize,
        /// The number of steps.
        of: usize,
        /// The part of the step.
        part: StepPart,
        /// The timestep that the model received, as text.
        timestep: String,
    },
    /// The autoencoder.
    Vae,
    /// The final latents, rounded to the dtype of the call.
    Rounding,
}

/// The parts of a step, in order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum StepPart {
    /// The prediction of the transformer.
    Transformer,
    /// The latents after the scheduler.
    Scheduler,
}

/// The meaning of the first dim of a tensor: prompts or images `start..` of `all`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose {
    noun: &'static str,
    start: usize,
    all: usize,
}

impl Whose {
    /// All prompts of a call.
    pub(crate) fn prompts(all: usize) -> Self {
        Self {
            noun: "prompt",
            start: 0,
            all,
        }
    }

    /// Images from `start` of `all` images of the call.
    pub(crate) fn images(start: usize, all: usize) -> Self {
        Self {
            noun: "image",
            start,
            all,
        }
    }

    /// ` of image 2 of 4`, ` of images 2 and 3 of 4`, or nothing where there is one.
    fn phrase(self, indices: &[usize]) -> String {
        let Self { noun, start, all } = self;
        let numbers: Vec<String> = indices
            .iter()
            .map(|i| (start + i + 1).to_string())
            .collect();
        match numbers.as_slice() {
            [] => String::new(),
            _ if all <= 1 => String::new(),
            [one] => format!(" of {noun} {one} of {all}"),
            several if several.len() == all => format!(" of all {all} {noun}s"),
            [first, second] => format!(" of {noun}s {first} and {second} of {all}"),
            [first, .., last] => {
                format!(" of {} {noun}s ({first} … {last}) of {all}", numbers.len())
            }
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TextEncoder(folder, "") => write!(f, "{folder}, in the embeddings"),
            Self::TextEncoder(folder, _) => write!(f, "{folder}, in the negative embeddings"),
            Self::Latents => write!(f, "the given latents"),
            Self::Step {
                index,
                of,
                part,
                timestep,
            } => {
                let (what, folder) = match part {
                    StepPart::Transformer => ("prediction", "transformer"),
                    StepPart::Scheduler => ("latents", "scheduler"),
                };
                let step = index + 1;
                write!(
                    f,
                    "{folder}, step {step} of {of} (timestep {timestep}), in the {what}"
                )
            }
            Self::Vae => write!(f, "vae, in the pixels"),
            Self::Rounding => write!(f, "the rounding of the final latents"),
        }
    }
}

impl Finite {
    pub(crate) fn new(allowed: bool, dtype: DType) -> Self {
        Self {
            allowed,
            dtype,
            first: Mutex::new(None),
        }
    }

    /// Checks a result. `whose` describes its first dim.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for NaN and infinity, unless they are allowed.
    pub(crate) fn check(
        &self,
        result: &Tensor,
        whose: Whose,
        origin: impl FnOnce() -> Origin,
    ) -> Result<()> {
        if result.first_not_finite_blocking()?.is_none() {
            return Ok(());
        }
        let mut indices = Vec::new();
        for i in 0..result.dim(0) {
            if result
                .narrow(0, i, 1)?
                .first_not_finite_blocking()?
                .is_some()
            {
                indices.push(i);
            }
        }
        self.found(&indices, whose, origin())
    }

    /// Records or refuses a result that is not finite, for these prompts or images.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn found(&self, indices: &[usize], whose: Whose, origin: Origin) -> Result<()> {
        let found = NonFinite {
            origin,
            whose: whose.phrase(indices),
        };
        if !self.allowed {
            return Err(self.error(&found));
        }
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        match &*first {
            Some(earlier) if earlier.origin <= found.origin => {}
            _ => *first = Some(found),
        }
        Ok(())
    }

    fn error(&self, found: &NonFinite) -> Error {
        Error::NotFinite {
            origin: format!("{}{}", found.origin, found.whose),
            dtype: self.dtype,
        }
    }

    /// Warns of allowed results that are not finite, once per call.
    pub(crate) fn tell(&self, observer: &mut dyn Observer) {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*first {
            observer.warning(&self.error(found).to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdit_kernels::Device;

    fn values(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, [values.len(), 1], &Device::cpu()).unwrap()
    }

    #[test]
    fn the_message_names_part_image_and_dtype() {
        let step = || Origin::Step {
            index: 2,
            of: 4,
            part: StepPart::Transformer,
            timestep: "500".into(),
        };
        let finite = Finite::new(false, DType::F16);
        let images = Whose::images(4, 8);
        assert!(finite.check(&values(&[1., 65504.]), images, step).is_ok());
        let told = |bad: &[f32]| {
            let error = finite.check(&values(bad), images, step).unwrap_err();
            error.to_string()
        };
        let one = told(&[0., f32::NAN]);
        assert!(
            one.contains("begins in transformer, step 3 of 4 (timestep 500), in the prediction of image 6 of 8; f16 "),
            "{one}"
        );
        assert!(one.contains("bf16") && one.contains("f32"), "{one}");
        let two = told(&[f32::INFINITY, 0., f32::NAN]);
        assert!(two.contains("of images 5 and 7 of 8"), "{two}");
        let all = Whose::prompts(2).phrase(&[0, 1]);
        assert_eq!(all, " of all 2 prompts");
        assert_eq!(Whose::prompts(1).phrase(&[0]), "");
        assert_eq!(
            Whose::images(0, 9).phrase(&[1, 2, 8]),
            " of 3 images (2 … 9) of 9"
        );
    }

    #[test]
    fn what_is_allowed_is_told_once_and_from_its_beginning() {
        #[derive(Default)]
        struct Told(Vec<String>);
        impl Observer for Told {
            fn warning(&mut self, text: &str) {
                self.0.push(text.to_owned());
            }
        }
        let finite = Finite::new(true, DType::F32);
        let bad = values(&[f32::NAN]);
        let mut told = Told::default();
        finite.tell(&mut told);
        assert!(told.0.is_empty());
        for origin in [
            Origin::Vae,
            Origin::TextEncoder("text_encoder_2", "negative_"),
            Origin::Latents,
        ] {
            finite.check(&bad, Whose::images(0, 1), || origin).unwrap();
        }
        finite.tell(&mut told);
        assert_eq!(told.0.len(), 1);
        assert!(
            told.0[0].contains("begins in text_encoder_2, in the negative embeddings; "),
            "{}",
            told.0[0]
        );
    }
}
