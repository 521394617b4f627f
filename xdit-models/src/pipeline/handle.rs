//! Pipelines: from a prompt to an image, whatever the model.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::files::model_index::{ModelIndex, PipelineClass};
use crate::files::source::ModelSource;
use crate::observer::Observer;
use crate::pipeline::families;
use crate::pipeline::family::AnyPipeline;
use crate::pipeline::memory_limit::refused_thread;
use crate::pipeline::options::LoadOptions;
use crate::pipeline::output::Output;
use crate::pipeline::request::{Defaults, Request};
use crate::pipeline::run_plan::RunPlan;
use crate::ranks::idle::IdleRanks;
use crate::ranks::parallel::{Parallel, RankBackend};
use crate::ranks::pools::{pool, share};

/// A loaded pipeline of any supported class.
///
/// It owns a thread pool and computes on it alone; over several ranks that are threads, on the threads of these ranks, which the first
/// call starts and later calls find again. Several threads can make calls at the same time.
///
/// # Examples
/// ```
/// # #[cfg(feature = "demo")] {
/// use xdit_models::{LoadOptions, ModelSource, OutputType, Pipeline, Request};
/// let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?;
/// let request = Request::new(["a red circle on a blue background"])
///     .height(64)
///     .width(64)
///     .num_inference_steps(2);
/// let output = pipe.generate(&request, &mut ())?;
/// assert_eq!((output.images[0].width, output.images[0].height), (64, 64));
/// # }
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Debug)]
pub struct Pipeline {
    class: PipelineClass,
    model: Box<dyn AnyPipeline>,
    pool: rayon::ThreadPool,
    parallel: Parallel,
    ranks: IdleRanks,
    /// The compute threads of each replica that draws requests of its own.
    replica_pools: Mutex<Arc<[rayon::ThreadPool]>>,
}

impl Pipeline {
    /// The pipeline in `source`, ready to run.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::BadFile`], [`Error::BadConfig`], [`Error::BadTensor`] or
    /// [`Error::Unsupported`] for what is wrong with its files, [`Error::OutOfMemory`] when its weights do not fit,
    /// [`Error::InvalidRequest`] for no threads or too many.
    pub fn load(
        source: &ModelSource,
        options: &LoadOptions,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        Self::load_over(source, options, Parallel::default(), observer)
    }

    /// The pipeline in `source`, spread over ranks. A process that is one rank of several stages (a
    /// [`RankBackend::Group`]) reads its stage's tensors only, when its first call has told which they are.
    ///
    /// # Errors
    /// As [`load`](Self::load) and [`parallel`](Self::parallel).
    pub fn load_over(
        source: &ModelSource,
        options: &LoadOptions,
        parallel: Parallel,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        parallel.check()?;
        let pool = pool(options.threads, "xdit")?;
        let one_stage = parallel.degrees.pipe > 1 && parallel.stage_here().is_some();
        let loaded = pool.install(|| {
            let class = ModelIndex::read(source)?.pipeline;
            let load = families::of_class(class).load;
            Ok((class, load(source, options, one_stage, observer)?))
        });
        let (class, model) = loaded.map_err(named_memory)?;
        Ok(Self {
            class,
            model,
            pool,
            parallel,
            ranks: IdleRanks::default(),
            replica_pools: Mutex::default(),
        })
    }

    /// What the pipeline in `source` would do for `request` on these ranks: told from its configurations, before any weight
    /// is read.
    ///
    /// # Errors
    /// As [`Pipeline::load`] for configurations, as [`Pipeline::generate`] for the request.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_models::Degrees;
    /// use xdit_models::{LoadOptions, ModelSource, Parallel, Pipeline, Request};
    /// let parallel = Parallel::threads(Degrees { pipe: 2, ..Degrees::default() });
    /// let plan = |request| Pipeline::plan(&ModelSource::demo(), &LoadOptions::default(), &request, &parallel);
    /// let stages = plan(Request::new(["a red circle"]))?.stages;
    /// assert_eq!(stages[0].blocks.ranges()[0].end, stages[1].blocks.ranges()[0].start);
    /// let refused = plan(Request::new(["a red circle"]).height(8));
    /// assert!(refused.is_err_and(|error| error.to_string().starts_with("`height` = 8")));
    /// # }
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn plan(
        source: &ModelSource,
        options: &LoadOptions,
        request: &Request,
        parallel: &Parallel,
    ) -> Result<RunPlan> {
        parallel.check()?;
        let class = ModelIndex::read(source)?.pipeline;
        let plan = (families::of_class(class).plan)(source, options, request, parallel)?;
        plan.check_memory(options.memory_limit)?;
        Ok(plan)
    }

    /// The same pipeline, spread over ranks. Idle ranks of earlier calls stay, up to 64 in all.
    ///
    /// # Errors
    /// [`Error::Comm`] for degrees that make no mesh (the message names the nearest that do),
    /// [`Error::InvalidRequest`] for an axis that this version does not use.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_models::Degrees;
    /// use xdit_models::{LoadOptions, ModelSource, Parallel, Pipeline, Request};
    /// let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?;
    /// let pipe = pipe.parallel(Parallel::threads(Degrees { ulysses: 2, ..Degrees::default() }))?;
    /// let request = Request::new(["a red circle"]).height(64).width(80).num_inference_steps(1);
    /// let output = pipe.generate(&request, &mut ())?;
    /// assert_eq!((output.images.len(), output.communication.len()), (1, 2));
    /// # }
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn parallel(mut self, parallel: Parallel) -> Result<Self> {
        parallel.check()?;
        self.parallel = parallel;
        Ok(self)
    }

    /// The class of the pipeline.
    #[must_use]
    pub fn class(&self) -> PipelineClass {
        self.class
    }

    /// What a call uses where its request says nothing.
    #[must_use]
    pub fn defaults(&self) -> &Defaults {
        self.model.defaults()
    }

    /// How many threads it computes with.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// An error if a file of weights on disk has another size or time than when it was loaded, or is gone. Every call that
    /// draws asks this first; files that are cut while a call runs end the process (SIGBUS), see the crate's documentation.
    ///
    /// # Errors
    /// [`Error::BadFile`], which names the file.
    pub fn check_files(&self) -> Result<()> {
        self.model.check_files()
    }

    /// Draws what `request` asks for.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for arguments out of range, [`Error::OutOfMemory`] when the call would not fit,
    /// [`Error::Stopped`] when the observer ended it, [`Error::BadFile`] when the weights' files changed since they were
    /// loaded.
    pub fn generate(&self, request: &Request, observer: &mut dyn Observer) -> Result<Output> {
        self.generate_over(request, &self.parallel, observer)
    }

    /// Draws what `request` asks for on other ranks than the pipeline's own, for this call. Plans may change from call to call: ranks
    /// of each number stay, up to 64 in all.
    ///
    /// # Errors
    /// As [`generate`](Self::generate) and [`parallel`](Self::parallel).
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_models::{Degrees, LoadOptions, ModelSource, Parallel, Pipeline, Request};
    /// let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?;
    /// let request = Request::new(["a red circle"]).height(64).width(80).num_inference_steps(1);
    /// for ulysses in [1, 2, 3, 2] {
    ///     let parallel = Parallel::threads(Degrees { ulysses, ..Degrees::default() });
    ///     let output = pipe.generate_over(&request, &parallel, &mut ())?;
    ///     assert_eq!(output.images.len(), 1);
    /// }
    /// # }
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn generate_over(
        &self,
        request: &Request,
        parallel: &Parallel,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        let _span = tracing::info_span!("generate").entered();
        parallel.check()?;
        self.draw(self.model.plan(request, parallel)?, &self.pool, observer)
    }

    /// Draws what [`plan`](Self::plan) made of a request for this pipeline and its ranks; nothing is resolved again.
    ///
    /// # Errors
    /// As [`generate`](Self::generate); [`Error::InvalidRequest`] for a plan for other configurations, another dtype or other
    /// ranks.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_models::{LoadOptions, ModelSource, Parallel, Pipeline, Request};
    /// let (source, options) = (ModelSource::demo(), LoadOptions::default());
    /// let request = Request::new(["a red circle"]).height(70).width(64).num_inference_steps(1);
    /// let plan = Pipeline::plan(&source, &options, &request, &Parallel::default())?;
    /// assert_eq!((plan.height, plan.warnings.len()), (64, 1));
    /// let output = Pipeline::load(&source, &options, &mut ())?.run(plan, &mut ())?;
    /// assert_eq!(output.plan.request.height, Some(64));
    /// # }
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn run(&self, plan: RunPlan, observer: &mut dyn Observer) -> Result<Output> {
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
        let _span = tracing::info_span!("generate").entered();
        self.draw(plan, &self.pool, observer)
    }

    fn draw(
        &self,
        plan: RunPlan,
        pool: &rayon::ThreadPool,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        self.check_files()?;
        let (threads, idle) = (pool.current_num_threads(), &self.ranks);
        let output = pool.install(|| self.model.run(plan, threads, idle, observer));
        output.map_err(named_memory)
    }
}

impl Pipeline {
    /// Draws requests of any prompts and sizes, one after another on each replica of the data axis, and hands each result
    /// to `done` when it is there: the request's index, what came of it, and its observer. A request that fails does not
    /// keep the others from being drawn; `Break` starts no more.
    ///
    /// Images do not depend on the number of replicas.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for several replicas over a group of the caller's, who can call
    /// [`generate`](Self::generate) on each; errors of requests go to `done`.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use std::ops::ControlFlow;
    /// use xdit_models::{LoadOptions, ModelSource, Pipeline, Request};
    /// let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?;
    /// let small = |text| Request::new([text]).width(64).num_inference_steps(1);
    /// let requests = [small("a red circle").height(64), small("a green star").height(0), small("a ring").height(32)];
    /// let mut heights = [0; 3];
    /// pipe.generate_each(requests.map(|request| (request, ())), |index, result, ()| {
    ///     heights[index] = result.map_or(0, |output| output.plan.height);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(heights, [64, 0, 32]);
    /// # }
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn generate_each<O: Observer>(
        &self,
        requests: impl IntoIterator<Item = (Request, O), IntoIter: Send>,
        done: impl FnMut(usize, Result<Output>, O) -> ControlFlow<()> + Send,
    ) -> Result<()> {
        let replicas = self.parallel.degrees.data;
        if replicas > 1 && matches!(self.parallel.backend, RankBackend::Group(_)) {
            return Err(Error::invalid(
                "data_parallel_degree",
                replicas,
                "1 over a group",
            ));
        }
        let parallel = self.parallel.one_replica();
        let waiting = Mutex::new(Some(requests.into_iter().enumerate()));
        let done = Mutex::new(done);
        // Whole values are swapped under these locks: a panic elsewhere leaves nothing half done.
        let next = || {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.as_mut().and_then(Iterator::next)
        };
        let work = |pool: &rayon::ThreadPool| {
            while let Some((index, (request, mut observer))) = next() {
                let result = self
                    .model
                    .plan(&request, &parallel)
                    .and_then(|plan| self.draw(plan, pool, &mut observer));
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                if done(index, result, observer).is_break() {
                    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
            }
        };
        if replicas == 1 {
            work(&self.pool);
            return Ok(());
        }
        let pools = self.replica_pools(replicas)?;
        let work = &work;
        // Ranks and compute threads stay. The threads that hand out requests do not: they borrow from the caller.
        std::thread::scope(|scope| {
            for (replica, pool) in pools.iter().enumerate() {
                let what = format!("replica {replica}");
                let started = std::thread::Builder::new()
                    .name(what.clone())
                    .spawn_scoped(scope, move || work(pool));
                if let Err(error) = started {
                    // Those that run finish what they draw.
                    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    return Err(refused_thread(&what, &error));
                }
            }
            Ok(())
        })
    }
}

impl Pipeline {
    /// The compute threads of each of so many replicas, made anew only for another number than last.
    fn replica_pools(&self, replicas: usize) -> Result<Arc<[rayon::ThreadPool]>> {
        let kept = self.replica_pools.lock();
        let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
        if kept.len() != replicas {
            let pools = (0..replicas).map(|replica| {
                let share = share(self.threads(), replicas, replica);
                pool(Some(share), &format!("replica {replica}"))
            });
            *kept = pools.collect::<Result<_>>()?;
        }
        Ok(kept.clone())
    }
}

/// An allocation that a kernel was refused, as this crate's own kind of error.
fn named_memory(error: Error) -> Error {
    match error {
        Error::Kernel(xdit_kernels::Error::OutOfMemory { op, bytes }) => Error::OutOfMemory {
            what: op.into(),
            bytes: bytes as u64,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests;
