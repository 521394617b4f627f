//! The traits of a model and of an update rule in the denoising loop.

use crate::{Error, Turn};
use xdit_comm::Spec;
use xdit_kernels::Tensor;

/// One stage of a model: its first, middle or last blocks, or blocks from both ends. A model with one stage has all blocks.
///
/// Tensors hold the rows of one rank. [`Driver`](crate::Driver) never reads them. A call names the leg of the pass through the
/// model ([`Placement`](crate::Placement)). In a linear pipeline each stage has one leg, with the number of the stage.
pub trait Stage {
    /// The error of the stage.
    type Error: From<Error>;

    /// Returns the specs of the tensors that the previous leg sends to this one in a turn, in order. Every rank computes them
    /// from the plan, so ranks never send sizes.
    fn carried(&self, turn: Turn, leg: usize) -> Vec<Spec>;

    /// Turns latents into hidden states, on the first leg.
    ///
    /// # Errors
    /// The model's.
    fn embed(&mut self, turn: Turn, latents: &[Tensor]) -> Result<Vec<Tensor>, Self::Error>;

    /// Runs the blocks of a leg on hidden states.
    ///
    /// # Errors
    /// The model's.
    fn blocks(
        &mut self,
        turn: Turn,
        leg: usize,
        hidden: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, Self::Error>;

    /// Turns hidden states into the prediction for each patch of the part, on the last leg.
    ///
    /// # Errors
    /// The model's.
    fn project(&mut self, turn: Turn, hidden: Vec<Tensor>) -> Result<Vec<Tensor>, Self::Error>;

    /// Waits for a device that computes beside this thread, and reports the progress of the rank meanwhile. The driver calls it
    /// before it reads what the device computed.
    ///
    /// # Errors
    /// The model's.
    fn settle(&self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// For a U-shaped model: returns the specs of the outputs that blocks of leg `from` pass to blocks of the later leg `to` in
    /// a turn, in order. It is called only for legs on different stages. A stage keeps the other outputs itself.
    fn skipped(&self, turn: Turn, from: usize, to: usize) -> Vec<Spec> {
        let (_, _, _) = (turn, from, to);
        Vec::new()
    }

    /// Returns these outputs, after the blocks of `from`.
    ///
    /// # Errors
    /// The model's.
    fn give(&mut self, turn: Turn, from: usize, to: usize) -> Result<Vec<Tensor>, Self::Error> {
        let (_, _, _) = (turn, from, to);
        Ok(Vec::new())
    }

    /// Receives these outputs, before the blocks of `to`.
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

/// The update rule of a denoising step. It runs on the stage with the last leg, patch by patch. The state of each patch holds
/// the values that later steps need, so the rule needs no special code for patches.
pub trait Sampler {
    /// The error of the sampler.
    type Error: From<Error>;
    /// The values that later steps need, for one patch.
    type State: Default;

    /// Returns the state of a patch before `first_step`, the first step that runs. The default is that of a new run.
    fn begin(&self, first_step: usize, patch: usize) -> Self::State {
        let _ = (first_step, patch);
        Self::State::default()
    }

    /// Returns the latents of a patch after the step.
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

    /// Called at the end of a step with its latents, patch by patch. An error ends the run. The stage of the sampler waits for
    /// this call, and other ranks that watch the drift soon wait for the stage.
    ///
    /// # Errors
    /// The sampler's.
    fn step_end(&mut self, step: usize, latents: &[Tensor]) -> Result<(), Self::Error>;

    /// Called on the other stages instead, when nothing of the step is left to do there. A stage may then receive what the stage of
    /// the sampler sends in `step_end`, on a group of its own: on a backend without receives ahead no message of the pipeline is
    /// between the two. A stage that waits here for that message delays the next step.
    ///
    /// # Errors
    /// The sampler's.
    fn step_over(&mut self, step: usize) -> Result<(), Self::Error> {
        let _ = step;
        Ok(())
    }
}
