//! Results that are not finite: found where they begin, and an error unless the caller wants them all the same.

use std::sync::{Mutex, PoisonError};

use xdit_kernels::{DType, Tensor};

use crate::error::{Error, Result};
use crate::observer::Observer;

/// Looks through what the parts of a call hand on. All ranks of a call in this process share one.
#[derive(Debug)]
pub(crate) struct Finite {
    allowed: bool,
    dtype: DType,
    /// The earliest that was found where it is allowed.
    first: Mutex<Option<NonFinite>>,
}

/// A result that is not finite.
#[derive(Clone, Debug)]
struct NonFinite {
    origin: Origin,
    whose: String,
}

/// Whose result it is; the earlier part of a run comes first.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Origin {
    /// A folder of the pipeline, and the branch's prefix in the names of its embeddings.
    TextEncoder(&'static str, &'static str),
    /// The latents that the caller gave.
    Latents,
    /// A denoising step.
    Step {
        /// From 0.
        index: usize,
        /// How many there are.
        of: usize,
        /// Whose result of the step.
        part: StepPart,
        /// What the model was told, as text.
        timestep: String,
    },
    /// The autoencoder.
    Vae,
    /// The latents, when they are given out in the dtype of the call.
    Rounding,
}

/// What gives a result in a step, in order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum StepPart {
    /// A prediction.
    Transformer,
    /// The latents after it.
    Scheduler,
}

/// What the first dim of a tensor counts: prompts or images `start..` of `all`.
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

    /// Images from `start` on of the call's `all`.
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

    /// Looks through a result, whose first dim counts what `whose` says.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for NaN and infinity that are not allowed.
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

    /// Notes, or refuses, a result that is not finite for these of the prompts or images that `whose` counts.
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

    /// Tells what was found and allowed, once for the call.
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
