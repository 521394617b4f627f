//! Stages and samplers from closures.

use crate::{Error, Sampler, Stage, Turn};
use xdit_comm::Spec;
use xdit_kernels::Tensor;

/// Creates a stage whose blocks are the function `blocks` of the hidden states of one patch. Latents are used as hidden states,
/// and hidden states as predictions. `hidden` is the shape and dtype of one patch, and `patches` is their number.
///
/// # Examples
/// ```
/// use xdit_comm::Spec;
/// use xdit_kernels::{DType, elementwise};
/// use xdit_pipefusion::stage_fn;
/// let halves = stage_fn(4, Spec::new([1, 16, 8], DType::F32), |_turn, x| Ok(elementwise::scale(x, 0.5)?));
/// ```
pub fn stage_fn<F>(patches: usize, hidden: Spec, blocks: F) -> impl Stage<Error = Error>
where
    F: FnMut(Turn, &Tensor) -> Result<Tensor, Error>,
{
    StageFn {
        patches,
        hidden,
        blocks,
    }
}

/// Creates a sampler without state. `update` computes the next latents of a patch from its prediction and its latents.
///
/// # Examples
/// ```
/// use xdit_kernels::elementwise;
/// use xdit_pipefusion::sampler_fn;
/// let euler = sampler_fn(|_turn, prediction, latents| Ok(elementwise::add_scaled(latents, prediction, -0.1)?));
/// ```
pub fn sampler_fn<F>(update: F) -> impl Sampler<Error = Error, State = ()>
where
    F: FnMut(Turn, &Tensor, &Tensor) -> Result<Tensor, Error>,
{
    SamplerFn(update)
}

struct StageFn<F> {
    patches: usize,
    hidden: Spec,
    blocks: F,
}

impl<F> Stage for StageFn<F>
where
    F: FnMut(Turn, &Tensor) -> Result<Tensor, Error>,
{
    type Error = Error;

    fn carried(&self, turn: Turn, _: usize) -> Vec<Spec> {
        let patches = turn.part.patches(self.patches);
        patches.map(|_| self.hidden).collect()
    }

    fn embed(&mut self, _: Turn, latents: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        Ok(latents.to_vec())
    }

    fn blocks(&mut self, turn: Turn, _: usize, hidden: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        hidden.iter().map(|x| (self.blocks)(turn, x)).collect()
    }

    fn project(&mut self, _: Turn, hidden: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        Ok(hidden)
    }
}

struct SamplerFn<F>(F);

impl<F> Sampler for SamplerFn<F>
where
    F: FnMut(Turn, &Tensor, &Tensor) -> Result<Tensor, Error>,
{
    type Error = Error;
    type State = ();

    fn step(
        &mut self,
        turn: Turn,
        _: usize,
        (): &mut (),
        prediction: &Tensor,
        latents: &Tensor,
    ) -> Result<Tensor, Error> {
        (self.0)(turn, prediction, latents)
    }

    fn step_end(&mut self, _: usize, _: &[Tensor]) -> Result<(), Error> {
        Ok(())
    }
}
