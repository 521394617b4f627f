//! What a model offers to the denoising loop: its blocks, and the update rule of a step.

use crate::{Error, Turn};
use xdit_comm::Spec;
use xdit_kernels::Tensor;

/// One stage of a model: its first, last or middle blocks, or some from both ends. A model with one stage is all of them.
///
/// Tensors hold the rows of one rank: [`Driver`](crate::Driver) never looks into them. Where a stage computes is told as a leg of the pass
/// through the model ([`Placement`](crate::Placement)); in a linear pipeline each stage has one, of its own number.
pub trait Stage {
    /// What goes wrong in it.
    type Error: From<Error>;

    /// What the leg before hands to this one in a turn, in order. Every rank can tell it from the plan, so that no size
    /// is ever sent.
    fn carried(&self, turn: Turn, leg: usize) -> Vec<Spec>;

    /// Latents to hidden states; on the first leg.
    ///
    /// # Errors
    /// The model's.
    fn embed(&mut self, turn: Turn, latents: &[Tensor]) -> Result<Vec<Tensor>, Self::Error>;

    /// Hidden states through the blocks of a leg.
    ///
    /// # Errors
    /// The model's.
    fn blocks(
        &mut self,
        turn: Turn,
        leg: usize,
        hidden: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, Self::Error>;

    /// Hidden states to the prediction for each of the part's patches; on the last leg.
    ///
    /// # Errors
    /// The model's.
    fn project(&mut self, turn: Turn, hidden: Vec<Tensor>) -> Result<Vec<Tensor>, Self::Error>;

    /// In a U-shaped model: what blocks of leg `from` hand straight to blocks of the later leg `to` in a turn, in order. Asked
    /// for legs of different stages only; what stays on a stage is its own affair.
    fn skipped(&self, turn: Turn, from: usize, to: usize) -> Vec<Spec> {
        let (_, _, _) = (turn, from, to);
        Vec::new()
    }

    /// These, after the blocks of `from`.
    ///
    /// # Errors
    /// The model's.
    fn give(&mut self, turn: Turn, from: usize, to: usize) -> Result<Vec<Tensor>, Self::Error> {
        let (_, _, _) = (turn, from, to);
        Ok(Vec::new())
    }

    /// These, before the blocks of `to`.
    ///
    /// # Errors
    /// The model's.
    fn receive(
        &mut self,
        turn: Turn,
        from: usize,
        to: usize,
        skips: Vec<Tensor>,
    ) -> Result<(), Self::Error> {
        let (_, _, _, _) = (turn, from, to, skips);
        Ok(())
    }
}

/// The update rule of a denoising step. It runs on the stage with the last leg, patch by patch: what it needs of earlier steps
/// lies in a state of each patch, so that it need not know of patches.
pub trait Sampler {
    /// What goes wrong in it.
    type Error: From<Error>;
    /// What later steps need of earlier ones.
    type State: Default;

    /// The latents of a patch after the step.
    ///
    /// # Errors
    /// The sampler's.
    fn step(
        &mut self,
        turn: Turn,
        patch: usize,
        state: &mut Self::State,
        prediction: &Tensor,
        latents: &Tensor,
    ) -> Result<Tensor, Self::Error>;

    /// A step is over; its latents, patch by patch. An error ends the run. The sampler's stage does nothing else meanwhile, and
    /// other ranks that watch the drift soon wait for it.
    ///
    /// # Errors
    /// The sampler's.
    fn step_end(&mut self, step: usize, latents: &[Tensor]) -> Result<(), Self::Error>;
}
