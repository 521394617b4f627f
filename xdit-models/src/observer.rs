//! Who watches a run: progress, the callback at each step's end, and every intermediate result under diffusers' name.

use std::ops::ControlFlow;

use xdit_kernels::{Device, Tensor};

use crate::error::Result;

/// The parts of a run, in order.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Phase {
    /// Reading and packing weights.
    Load,
    /// Prompts to embeddings.
    Encode,
    /// Noise to latents.
    Denoise,
    /// Latents to pixels.
    Decode,
}

/// How far a [`Phase`] is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PhaseEvent {
    /// It begins and will have `total` units of work.
    Start {
        /// Units: bytes of weights, prompts, steps, images.
        total: u64,
    },
    /// `done` of `total` units are finished.
    Advance {
        /// Finished units.
        done: u64,
        /// All units.
        total: u64,
    },
    /// It is over.
    End,
}

/// A finished denoising step.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepEnd<'a> {
    /// Which step, from 0.
    pub index: usize,
    /// How many there are.
    pub total: usize,
    /// The timestep that the model was given, from 1000 down.
    pub timestep: f32,
    /// The latents after the step as diffusers holds them (Flux: packed, `[images, tokens, channels]`; Stable Diffusion 3:
    /// `[images, channels, height, width]`), where [`Observer::wants_latents`].
    pub latents: Option<&'a Tensor>,
}

/// Watches a run. Every method has an empty default; `()` watches nothing. An observer is called on the thread of the caller, one that
/// ranks wait for; their deadline does not run meanwhile.
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
    /// A phase begins, moves on or ends.
    fn phase(&mut self, phase: Phase, event: PhaseEvent) {
        let _ = (phase, event);
    }

    /// A denoising step is finished. `Break` ends the run with [`Error::Stopped`](crate::Error::Stopped).
    fn step_end(&mut self, step: &StepEnd<'_>) -> ControlFlow<()> {
        let _ = step;
        ControlFlow::Continue(())
    }

    /// Whether [`StepEnd::latents`] is to be filled: ranks must gather them for it in every step. Over ranks asked once a call.
    fn wants_latents(&self) -> bool {
        false
    }

    /// Whether [`tensor`](Self::tensor) is to be called. Over ranks asked once a call.
    fn wants_tensors(&self) -> bool {
        false
    }

    /// An intermediate result, under the name that diffusers gives it. `make` builds it; not calling it costs nothing.
    ///
    /// # Errors
    /// What `make` returned, or what the observer could not do with it; it ends the run.
    fn tensor(&mut self, name: &str, make: &dyn Fn() -> Result<Tensor>) -> Result<()> {
        let _ = (name, make);
        Ok(())
    }

    /// The token ids of a batch of prompts, as the text encoder gets them.
    fn ids(&mut self, name: &str, ids: &[Vec<u32>]) {
        let _ = (name, ids);
    }

    /// Something that the caller should know: a prompt was cut, a size was snapped.
    fn warning(&mut self, text: &str) {
        let _ = text;
    }
}

impl Observer for () {}

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
}

impl dyn Observer + '_ {
    /// Shows a result that is there already.
    pub(crate) fn offer(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
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

    /// Shows a picture `[b, h, w, c]` in diffusers' layout `[b, c, h, w]`.
    pub(crate) fn offer_picture(&mut self, name: &str, x_bhwc: &Tensor) -> Result<()> {
        if !self.wants_tensors() {
            return Ok(());
        }
        self.tensor(name, &|| {
            Ok(x_bhwc.view().permute(&[0, 3, 1, 2])?.to_tensor()?)
        })
    }
}
