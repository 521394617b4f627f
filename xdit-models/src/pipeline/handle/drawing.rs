//! Executes plans: on their ranks alone, or on those that are left when some are lost.

use super::Pipeline;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::pipeline::device_memory;
use crate::pipeline::output::Output;
use crate::pipeline::run_plan::RunPlan;
use crate::ranks::checkpoint::Checkpoint;
use crate::ranks::degrees::Degrees;
use crate::ranks::parallel::{Parallel, RankBackend};
use crate::ranks::rank_devices::RankDevices;
use crate::ranks::run_part::LostRank;

impl Pipeline {
    /// Returns an error if the plan is for other ranks than those of the pipeline.
    pub(super) fn check_ranks(&self, plan: &RunPlan) -> Result<()> {
        let degrees = self.parallel.degrees;
        let over_group = |ranks: &Parallel| matches!(ranks.backend, RankBackend::Group(_));
        let same_backend = over_group(&plan.call.parallel) == over_group(&self.parallel);
        if plan.degrees != degrees || !same_backend {
            let backend = |ranks: &Parallel| match over_group(ranks) {
                true => "a group",
                false => "threads",
            };
            let given = format!(
                "a plan for {} over {}",
                plan.degrees,
                backend(&plan.call.parallel)
            );
            let allowed = format!(
                "one for {degrees} over {}, the ranks of this pipeline",
                backend(&self.parallel)
            );
            return Err(Error::invalid("plan", given, allowed));
        }
        Ok(())
    }

    pub(super) fn draw(
        &self,
        plan: RunPlan,
        pool: &rayon::ThreadPool,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        match plan.call.parallel.replans() {
            true => self.draw_on_survivors(plan, pool, &Checkpoint::new(), observer),
            false => self.draw_on(plan, pool, None, observer),
        }
    }

    /// Draws on the ranks of the plan alone. With a `checkpoint`, continues after its finished steps and keeps those that follow.
    fn draw_on(
        &self,
        plan: RunPlan,
        pool: &rayon::ThreadPool,
        checkpoint: Option<&Checkpoint>,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        let (threads, idle) = (pool.current_num_threads(), &self.ranks);
        let ways = plan.ways_out();
        let ranks = plan.call.parallel.clone();
        let cancel = observer.cancel_token();
        let run = || {
            cancel.check()?;
            self.check_files()?;
            pool.install(|| self.model.run(plan, threads, idle, checkpoint, observer))
        };
        run().map_err(|error| {
            ranks.tell_group(&error);
            // Asked only then: another call may be loading, and what is held is known when it has.
            let weights_on = |device: &str| {
                let devices = RankDevices::new(&ranks, self.model.device());
                let device = devices.named(device);
                device.map_or_else(Vec::new, |device| self.model.held(device))
            };
            cancel.named(device_memory::explained(error, &weights_on, &ways))
        })
    }

    /// Executes a plan like [`run`](Self::run), continues after the finished steps of `checkpoint`, and keeps those that follow
    /// there. The plan may be for other ranks than the call that finished these steps. Its request, its model and its dtype must be
    /// the same, and so must latents that the request gives. The prompts are not encoded again.
    ///
    /// Without patches the images are those of one call, as exactly as images of the plans agree: the latents, what the scheduler
    /// remembers and the noise of stochastic steps continue to the bit. With patches, the first steps run whole again, as in the
    /// warm-up of a call that begins.
    ///
    /// An observer that ends a call between two steps leaves a checkpoint too.
    ///
    /// In a group, all ranks call it with a checkpoint each, and the newest finished step that any of them knows counts. The ranks of
    /// a replica gather the latents in each step, and stages send them to each other, `4 · tokens · channels` bytes for each image,
    /// times the number of values that the scheduler remembers and one.
    ///
    /// # Errors
    /// As [`run`](Self::run); [`Error::InvalidRequest`](crate::Error::InvalidRequest) if the checkpoint is that of another call. The
    /// checkpoint stays usable.
    pub fn run_from(
        &self,
        plan: RunPlan,
        checkpoint: &Checkpoint,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        self.check_ranks(&plan)?;
        let _span = tracing::info_span!("generate").entered();
        match plan.call.parallel.replans() {
            true => self.draw_on_survivors(plan, &self.pool, checkpoint, observer),
            false => self.draw_noting_loss(plan, &self.pool, checkpoint, observer),
        }
    }

    /// Returns the degrees on which `ranks` ranks, or most of them, continue a call of `plan`: those of [`RunPlan::nearest`] that the
    /// model and the request allow. `None` if there are none.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_models::{Degrees, LoadOptions, ModelSource, Parallel, Pipeline, Request};
    /// let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?;
    /// let degrees = Degrees { ring: 2, ulysses: 2, ..Degrees::default() };
    /// let request = Request::new("a red circle").height(64).width(64);
    /// let plan = Pipeline::plan(&ModelSource::demo(), &LoadOptions::default(), &request, &Parallel::threads(degrees))?;
    /// let ring = Degrees { ring: 2, ..Degrees::default() };
    /// let ulysses = Degrees { ulysses: 2, ..Degrees::default() };
    /// assert!([ring, ulysses].contains(&pipe.nearest_degrees(&plan, 2).unwrap()));
    /// assert_eq!(pipe.nearest_degrees(&plan, 1), Some(Degrees::default()));
    /// # }
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    #[must_use]
    pub fn nearest_degrees(&self, plan: &RunPlan, ranks: usize) -> Option<Degrees> {
        let parallel = &plan.call.parallel;
        let on = |degrees| parallel.clone().of_degrees(degrees);
        self.nearest_plan(plan, ranks, &on).map(|plan| plan.degrees)
    }

    fn nearest_plan(
        &self,
        before: &RunPlan,
        ranks: usize,
        on: &dyn Fn(Degrees) -> Parallel,
    ) -> Option<RunPlan> {
        let request = &before.call.request;
        before.nearest(ranks, &|degrees| self.model.plan(request, &on(degrees)))
    }

    /// Draws on the ranks of the plan, and as often as some are lost, on those that are left.
    fn draw_on_survivors(
        &self,
        mut plan: RunPlan,
        pool: &rayon::ThreadPool,
        checkpoint: &Checkpoint,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        loop {
            let drawn = self.draw_noting_loss(plan.clone(), pool, checkpoint, observer);
            let error = match drawn {
                Ok(output) => return Ok(output),
                Err(error) => error,
            };
            let lost = error.lost_ranks();
            let left = plan.ranks.len().saturating_sub(lost.len());
            let parallel = &plan.call.parallel;
            let on = |degrees| parallel.without(lost, degrees, self.model.device());
            let next = (!lost.is_empty()).then(|| self.nearest_plan(&plan, left, &on));
            let Some(next) = next.flatten() else {
                return Err(error);
            };
            if let Some(lost) = LostRank::of(&error) {
                let steps = (checkpoint.finished_steps(), plan.schedule.steps);
                observer.warning(&lost.in_words(steps, &next.degrees));
            }
            plan = next;
        }
    }

    /// Draws on the ranks of the plan, and records which rank was lost, if one was.
    fn draw_noting_loss(
        &self,
        plan: RunPlan,
        pool: &rayon::ThreadPool,
        checkpoint: &Checkpoint,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        let drawn = self.draw_on(plan, pool, Some(checkpoint), observer);
        if let Some(lost) = drawn.as_ref().err().and_then(LostRank::of) {
            checkpoint.end_part(lost);
        }
        drawn
    }
}
