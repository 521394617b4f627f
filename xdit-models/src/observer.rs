//! The observer of a run: progress, a callback at the end of each step, and every intermediate result under its name in
//! diffusers.

use std::ops::ControlFlow;

use xdit_kernels::{Device, Tensor};

use crate::cancel::CancelToken;
use crate::error::Result;

/// The phases of a run, in order.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Phase {
    /// Reading and packing weights.
    Load,
    /// Encoding prompts.
    Encode,
    /// Denoising.
    Denoise,
    /// Decoding latents to pixels.
    Decode,
}

/// The progress of a [`Phase`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PhaseEvent {
    /// The phase begins, with `total` units of work.
    Start {
        /// The number of units: bytes of weights, prompts, steps or images.
        total: u64,
    },
    /// `done` of `total` units are finished.
    Advance {
        /// Finished units.
        done: u64,
        /// All units.
        total: u64,
    },
    /// The phase ends.
    End,
}

/// A finished denoising step.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepEnd<'a> {
    /// The index of the step, from 0.
    pub index: usize,
    /// The number of steps.
    pub total: usize,
    /// The timestep that the model received, from 1000 down.
    pub timestep: f32,
    /// The latents after the step as diffusers holds them (Flux: packed, `[images, tokens, channels]`; Stable Diffusion 3:
    /// `[images, channels, height, width]`), where [`Observer::wants_latents`].
    pub latents: Option<&'a Tensor>,
}

/// Observes a run. Every method has an empty default, and `()` observes nothing. The caller's thread calls the observer. If a
/// rank waits for it, the deadline of the ranks does not run.
///
/// An observer can end the call that it observes: between two steps by the result of [`step_end`](Self::step_end), and everywhere
/// else, from any thread, by its [`CancelToken`].
///
/// # Examples
/// ```
/// use std::ops::ControlFlow;
/// use xdit_models::{Observer, StepEnd};
///
/// struct AtMost(usize);
/// impl Observer for AtMost {
///     fn step_end(&mut self, step: &StepEnd<'_>) -> ControlFlow<()> {
///         if step.index + 1 < self.0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
///     }
/// }
/// assert!(!AtMost(3).wants_tensors());
/// ```
pub trait Observer: Send {
    /// Called when a phase begins, progresses or ends.
    fn phase(&mut self, phase: Phase, event: PhaseEvent) {
        let _ = (phase, event);
    }

    /// Called at the end of a denoising step. `Break` ends the run with [`Error::Stopped`](crate::Error::Stopped).
    fn step_end(&mut self, step: &StepEnd<'_>) -> ControlFlow<()> {
        let _ = step;
        ControlFlow::Continue(())
    }

    /// Returns whether the observer needs [`StepEnd::latents`]. Ranks must then gather them in every step. With several ranks
    /// it is called once per call.
    fn wants_latents(&self) -> bool {
        false
    }

    /// Returns whether the observer needs [`tensor`](Self::tensor). With several ranks it is called once per call.
    fn wants_tensors(&self) -> bool {
        false
    }

    /// Called with an intermediate result, under its name in diffusers. `make` computes the result, and costs nothing if it is
    /// not called.
    ///
    /// # Errors
    /// An error of `make`, or an error of the observer. It ends the run.
    fn tensor(&mut self, name: &str, make: &dyn Fn() -> Result<Tensor>) -> Result<()> {
        let _ = (name, make);
        Ok(())
    }

    /// Called with the token ids of a batch of prompts, as the text encoder receives them.
    fn ids(&mut self, name: &str, ids: &[Vec<u32>]) {
        let _ = (name, ids);
    }

    /// Returns the token that ends the call. The call asks for it many times, so every answer must be a clone of one token. The
    /// default answer never ends a call.
    fn cancel_token(&self) -> CancelToken {
        CancelToken::NEVER
    }

    /// Called with a warning, for example that a prompt was cut or a size was rounded.
    fn warning(&mut self, text: &str) {
        let _ = text;
    }
}

impl Observer for () {}

/// Observes nothing.
impl Observer for CancelToken {
    fn cancel_token(&self) -> CancelToken {
        self.clone()
    }
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn phase(&mut self, phase: Phase, event: PhaseEvent) {
        (**self).phase(phase, event);
    }

    fn step_end(&mut self, step: &StepEnd<'_>) -> ControlFlow<()> {
        (**self).step_end(step)
    }

    fn wants_latents(&self) -> bool {
        (**self).wants_latents()
    }

    fn wants_tensors(&self) -> bool {
        (**self).wants_tensors()
    }

    fn tensor(&mut self, name: &str, make: &dyn Fn() -> Result<Tensor>) -> Result<()> {
        (**self).tensor(name, make)
    }

    fn ids(&mut self, name: &str, ids: &[Vec<u32>]) {
        (**self).ids(name, ids);
    }

    fn warning(&mut self, text: &str) {
        (**self).warning(text);
    }

    fn cancel_token(&self) -> CancelToken {
        (**self).cancel_token()
    }
}

impl dyn Observer + '_ {
    /// Shows a result that exists already. Layers and blocks offer their results, so this is also where a call without ranks
    /// finds out that it is cancelled.
    pub(crate) fn offer(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        self.cancel_token().check()?;
        if !self.wants_tensors() {
            return Ok(());
        }
        self.tensor(name, &|| Ok(tensor.clone()))
    }

    /// Shows a list of numbers.
    pub(crate) fn offer_values(&mut self, name: &str, values: &[f32]) -> Result<()> {
        if !self.wants_tensors() {
            return Ok(());
        }
        self.tensor(name, &|| {
            Ok(Tensor::from_slice(values, [values.len()], &Device::cpu())?)
        })
    }

    /// Shows an image `[b, h, w, c]` in diffusers' layout `[b, c, h, w]`.
    pub(crate) fn offer_picture(&mut self, name: &str, x_bhwc: &Tensor) -> Result<()> {
        self.cancel_token().check()?;
        if !self.wants_tensors() {
            return Ok(());
        }
        self.tensor(name, &|| {
            Ok(x_bhwc.view().permute(&[0, 3, 1, 2])?.to_tensor()?)
        })
    }
}
