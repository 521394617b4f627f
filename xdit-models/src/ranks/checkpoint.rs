//! What the finished steps of a call leave, so that other ranks can continue it.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xdit_comm::Shard;
use xdit_kernels::{Device, Tensor};

use crate::error::{Error, Result};
use crate::pipeline::run_plan::RunPlan;
use crate::ranks::run_part::{LostRank, RunPart};

/// The finished steps of one call: what another call of the same request needs to continue after them, on any ranks.
///
/// It contains the encoded prompts and, for each image, the latents after its last finished step with what the scheduler remembers.
/// All of it lies in the host's memory. [`Pipeline::run_from`] fills it: at the end of each step, every process of a replica puts in
/// the latents of the replica's images. Clones are the same checkpoint.
///
/// [`Pipeline::run_from`]: crate::Pipeline::run_from
///
/// # Examples
/// ```
/// # #[cfg(feature = "demo")] {
/// use std::ops::ControlFlow;
/// use xdit_models::{
///     Checkpoint, Degrees, LoadOptions, ModelSource, Observer, Parallel, Pipeline, Request, StepEnd,
/// };
///
/// /// Ends a call after its first step.
/// struct Once;
/// impl Observer for Once {
///     fn step_end(&mut self, _: &StepEnd<'_>) -> ControlFlow<()> {
///         ControlFlow::Break(())
///     }
/// }
///
/// let (source, options) = (ModelSource::demo(), LoadOptions::default());
/// let request = Request::new("a red circle").height(64).width(64).num_inference_steps(3);
/// let on = |ulysses| Parallel::threads(Degrees { ulysses, ..Degrees::default() });
/// let plan = |ulysses| Pipeline::plan(&source, &options, &request, &on(ulysses));
///
/// let (pipe, checkpoint) = (Pipeline::load(&source, &options, &mut ())?.parallel(on(2))?, Checkpoint::new());
/// assert!(pipe.run_from(plan(2)?, &checkpoint, &mut Once).is_err());
/// assert!(checkpoint.finished_steps() <= 1, "the ranks may have finished the first step before the observer ended it");
/// // On fewer ranks, from where the call ended.
/// let output = pipe.parallel(on(1))?.run_from(plan(1)?, &checkpoint, &mut ())?;
/// assert_eq!((output.images.len(), checkpoint.finished_steps()), (1, 3));
/// # }
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Checkpoint(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    /// The call, as text.
    call: Option<String>,
    /// The encoded prompts of all branches.
    embeds: Option<Vec<Tensor>>,
    images: Vec<Option<KeptImage>>,
    parts: Vec<RunPart>,
}

/// What the finished steps leave of one image.
#[derive(Clone, Debug)]
pub(crate) struct KeptImage {
    pub(crate) finished: usize,
    /// `[1, l, c]`, f32.
    pub(crate) latents_blc: Tensor,
    /// What the scheduler remembers, in the shape of the latents, oldest first.
    pub(crate) history: Vec<Tensor>,
}

impl KeptImage {
    /// Copies tensors to the host's memory.
    pub(crate) fn on_host(
        finished: usize,
        latents_blc: &Tensor,
        history: &[Tensor],
    ) -> Result<Self> {
        Ok(Self {
            finished,
            latents_blc: latents_blc.to_device(&Device::cpu())?,
            history: on_host(history)?,
        })
    }
}

/// Images of a call with the same number of finished steps.
#[derive(Clone, Debug)]
pub(crate) struct ImageBatch {
    pub(crate) images: Shard,
    pub(crate) first_step: usize,
    /// Of these images, after the finished steps: latents `[b, l, c]`, and what the scheduler remembers. `None` before the first step.
    pub(crate) kept: Option<(Tensor, Vec<Tensor>)>,
}

impl ImageBatch {
    /// All images of a call that begins.
    pub(crate) fn all(images: usize) -> Self {
        Self {
            images: Shard {
                start: 0,
                len: images,
            },
            first_step: 0,
            kept: None,
        }
    }
}

impl Checkpoint {
    /// Creates the checkpoint of a call that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // Whole values are moved in and out.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of steps that are finished for every image, as far as this process knows.
    #[must_use]
    pub fn finished_steps(&self) -> usize {
        let finished = self.finished_each();
        finished.into_iter().min().unwrap_or(0)
    }

    /// Returns the parts of the call so far, in order.
    #[must_use]
    pub fn parts(&self) -> Vec<RunPart> {
        self.lock().parts.clone()
    }

    /// Begins a part of the call `call` of `images` images.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the checkpoint is that of another call.
    pub(crate) fn begin(&self, call: String, images: usize) -> Result<()> {
        let mut contents = self.lock();
        match &contents.call {
            Some(known) if *known != call => {
                let allowed = "that of the same request on the same model in the same dtype";
                return Err(Error::invalid(
                    "checkpoint",
                    "that of another call",
                    allowed,
                ));
            }
            _ => contents.call = Some(call),
        }
        contents.images.resize_with(images, || None);
        Ok(())
    }

    /// Records that a part begins. All processes know the same finished steps.
    pub(crate) fn begin_part(&self, plan: &RunPlan) {
        let first_steps = self.finished_each();
        self.lock().parts.push(RunPart {
            plan: plan.clone(),
            first_steps,
            lost: None,
        });
    }

    /// Records why the last part ended early. If the next one was lost before it began, the last keeps its own reason.
    pub(crate) fn end_part(&self, lost: LostRank) {
        if let Some(part) = self.lock().parts.last_mut() {
            part.lost.get_or_insert(lost);
        }
    }

    /// Returns the encoded prompts, if they are known.
    pub(crate) fn embeds(&self) -> Option<Vec<Tensor>> {
        self.lock().embeds.clone()
    }

    pub(crate) fn keep_embeds(&self, embeds: &[Tensor]) -> Result<()> {
        let kept = on_host(embeds)?;
        self.lock().embeds = Some(kept);
        Ok(())
    }

    /// Returns the number of finished steps of each image, as far as this process knows. Empty before a call begins.
    ///
    /// # Examples
    /// ```
    /// assert!(xdit_models::Checkpoint::default().finished_each().is_empty());
    /// ```
    #[must_use]
    pub fn finished_each(&self) -> Vec<usize> {
        let contents = self.lock();
        let finished = |kept: &Option<KeptImage>| kept.as_ref().map_or(0, |kept| kept.finished);
        contents.images.iter().map(finished).collect()
    }

    /// Returns what is kept of an image.
    pub(crate) fn image(&self, index: usize) -> Option<KeptImage> {
        self.lock().images.get(index).cloned().flatten()
    }

    /// Keeps the latents `[b, l, c]` of these images after `finished` steps, unless later ones are known.
    pub(crate) fn keep(
        &self,
        images: Shard,
        finished: usize,
        latents_blc: &Tensor,
        history: &[Tensor],
    ) -> Result<()> {
        let indices: Range<usize> = images.start..images.end();
        // Ranks of the same process that come later need not copy.
        let known = self.finished_each();
        if indices
            .clone()
            .all(|index| known.get(index).is_some_and(|known| *known >= finished))
        {
            return Ok(());
        }
        let all = KeptImage::on_host(finished, latents_blc, history)?;
        for (row, index) in indices.enumerate() {
            let one = |of: &Tensor| of.narrow(0, row, 1);
            let kept = KeptImage {
                finished,
                latents_blc: one(&all.latents_blc)?,
                history: all.history.iter().map(one).collect::<Result<_, _>>()?,
            };
            self.keep_image(index, kept);
        }
        Ok(())
    }

    /// Keeps what is left of an image, unless later steps of it are known.
    pub(crate) fn keep_image(&self, index: usize, kept: KeptImage) {
        if let Some(place) = self.lock().images.get_mut(index)
            && place
                .as_ref()
                .is_none_or(|known| known.finished < kept.finished)
        {
            *place = Some(kept);
        }
    }

    /// Returns all images in order, in batches with the same number of finished steps.
    pub(crate) fn batches(&self) -> Result<Vec<ImageBatch>> {
        let finished = self.finished_each();
        let mut batches: Vec<ImageBatch> = Vec::new();
        for (index, first_step) in finished.into_iter().enumerate() {
            match batches.last_mut() {
                Some(last) if last.first_step == first_step => last.images.len += 1,
                _ => batches.push(ImageBatch {
                    images: Shard {
                        start: index,
                        len: 1,
                    },
                    first_step,
                    kept: None,
                }),
            }
        }
        for batch in batches.iter_mut().filter(|batch| batch.first_step > 0) {
            let kept = (batch.images.start..batch.images.end()).map(|index| self.image(index));
            let kept: Vec<KeptImage> = kept.flatten().collect();
            let join = |of: &dyn Fn(&KeptImage) -> &Tensor| {
                let views: Vec<_> = kept.iter().map(|image| of(image).view()).collect();
                Tensor::cat(&views, 0)
            };
            let count = kept.first().map_or(0, |image| image.history.len());
            let history = (0..count).map(|i| join(&|image| &image.history[i]));
            let history = history.collect::<Result<_, _>>()?;
            batch.kept = Some((join(&|image| &image.latents_blc)?, history));
        }
        Ok(batches)
    }
}

fn on_host(tensors: &[Tensor]) -> Result<Vec<Tensor>> {
    let host = Device::cpu();
    let copies = tensors.iter().map(|tensor| tensor.to_device(&host));
    Ok(copies.collect::<Result<_, _>>()?)
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("finished", &self.finished_each())
            .field("parts", &self.lock().parts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(value: f32, images: usize) -> Tensor {
        let values = vec![value; images * 6];
        Tensor::from_slice(&values, [images, 2, 3], &Device::cpu()).unwrap()
    }

    fn images(start: usize, len: usize) -> Shard {
        Shard { start, len }
    }

    #[test]
    fn images_are_in_batches_of_the_same_step() {
        let checkpoint = Checkpoint::new();
        checkpoint.begin("a call".into(), 5).unwrap();
        assert_eq!(checkpoint.batches().unwrap().len(), 1);
        let history = [tokens(7.0, 2)];
        checkpoint
            .keep(images(0, 2), 3, &tokens(3.0, 2), &history)
            .unwrap();
        checkpoint
            .keep(images(3, 2), 2, &tokens(2.0, 2), &[])
            .unwrap();
        // What comes late changes nothing.
        checkpoint
            .keep(images(0, 2), 2, &tokens(9.0, 2), &[])
            .unwrap();
        let batches = checkpoint.batches().unwrap();
        let steps: Vec<_> = batches
            .iter()
            .map(|batch| (batch.images.start, batch.images.len, batch.first_step))
            .collect();
        assert_eq!(steps, [(0, 2, 3), (2, 1, 0), (3, 2, 2)]);
        let (latents, history) = batches[0].kept.as_ref().unwrap();
        assert_eq!(latents.to_vec_blocking::<f32>().unwrap(), [3.0; 12]);
        assert_eq!(history[0].to_vec_blocking::<f32>().unwrap(), [7.0; 12]);
        assert!(batches[1].kept.is_none());
        assert_eq!(checkpoint.finished_steps(), 0);
    }

    #[test]
    fn a_checkpoint_is_that_of_one_call() {
        let checkpoint = Checkpoint::new();
        checkpoint.begin("a call".into(), 1).unwrap();
        checkpoint.begin("a call".into(), 1).unwrap();
        let error = checkpoint.begin("another".into(), 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`checkpoint` = that of another call: must be that of the same request on the same model in the same dtype"
        );
    }
}
