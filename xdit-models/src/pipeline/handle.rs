//! The pipeline that users call, for all models.

mod drawing;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::files::model_index::{ModelIndex, PipelineClass};
use crate::files::source::ModelSource;
use crate::observer::Observer;
use crate::pipeline::device_memory;
use crate::pipeline::families;
use crate::pipeline::family::AnyPipeline;
use crate::pipeline::options::LoadOptions;
use crate::pipeline::output::Output;
use crate::pipeline::request::{Defaults, Request};
use crate::pipeline::run_plan::RunPlan;
use crate::pipeline::store::Later;
use crate::pipeline::ways_out;
use crate::ranks::idle::IdleRanks;
use crate::ranks::parallel::{Parallel, RankBackend};
use crate::ranks::pools::{on_each, pool, share};

/// A loaded pipeline of any supported class.
///
/// A pipeline computes in its own thread pool. With several ranks that are threads, it computes in the pools of these ranks.
/// The first call starts the ranks, and later calls reuse them. Several threads can make calls at the same time.
///
/// # Examples
/// ```
/// # #[cfg(feature = "demo")] {
/// use xdit_models::{LoadOptions, ModelSource, OutputType, Pipeline, Request};
/// let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?;
/// let request = Request::new("a red circle on a blue background")
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
    /// The compute threads of each replica of `generate_each`.
    replica_pools: Mutex<Arc<[rayon::ThreadPool]>>,
}

impl Pipeline {
    /// Loads the pipeline in `source`.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::BadFile`], [`Error::BadConfig`], [`Error::BadTensor`] or [`Error::Unsupported`] for
    /// problems of its files, [`Error::OutOfMemory`] if its weights do not fit into memory, [`Error::InvalidRequest`] for an
    /// invalid number of threads.
    pub fn load(
        source: &ModelSource,
        options: &LoadOptions,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        Self::load_over(source, options, Parallel::default(), observer)
    }

    /// Loads the pipeline in `source` for several ranks. A process that is one rank of a group ([`RankBackend::Group`]) reads only
    /// what it needs: the tensors of its stage, if there are several, and on the first rank of each replica the text encoders.
    /// It reads these in its first call.
    ///
    /// # Errors
    /// As [`load`](Self::load) and [`parallel`](Self::parallel).
    pub fn load_over(
        source: &ModelSource,
        options: &LoadOptions,
        parallel: Parallel,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        parallel.check_on(&options.device)?;
        observer.cancel_token().check()?;
        let pool = pool(options.threads, "xdit")?;
        // Where ranks are spread over processes or devices, each holds its stages only.
        let spread = parallel.stage_here().is_some() || parallel.devices().len() > 1;
        let later = Later {
            transformer: parallel.degrees.pipe > 1 && spread,
            encoders: parallel.stage_here().is_some() && parallel.degrees.ranks_of_replica() > 1,
        };
        let load = || {
            let class = ModelIndex::read(source)?.pipeline;
            let load = families::of_class(class).load;
            Ok((class, load(source, options, later, observer)?))
        };
        let loaded = pool.install(|| parallel.attended(load)?);
        let cancel = observer.cancel_token();
        let (class, model) = loaded.map_err(|error| {
            parallel.tell_group(&error);
            let ways = ways_out::on_gpu(options.dtype, options.low_memory, None);
            cancel.named(device_memory::explained(error, &|_| Vec::new(), &ways))
        })?;
        Ok(Self {
            class,
            model,
            pool,
            parallel,
            ranks: IdleRanks::default(),
            replica_pools: Mutex::default(),
        })
    }

    /// Plans `request` on these ranks from the configurations in `source`, before any weight is read.
    ///
    /// # Errors
    /// As [`Pipeline::load`] for the configurations, and as [`Pipeline::generate`] for the request.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_models::Degrees;
    /// use xdit_models::{LoadOptions, ModelSource, Parallel, Pipeline, Request};
    /// let parallel = Parallel::threads(Degrees { pipe: 2, ..Degrees::default() });
    /// let plan = |request| Pipeline::plan(&ModelSource::demo(), &LoadOptions::default(), &request, &parallel);
    /// let stages = plan(Request::new("a red circle"))?.stages;
    /// assert_eq!(stages[0].blocks.ranges()[0].end, stages[1].blocks.ranges()[0].start);
    /// let refused = plan(Request::new("a red circle").height(8));
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
        parallel.check_on(&options.device)?;
        let class = ModelIndex::read(source)?.pipeline;
        let plan = (families::of_class(class).plan)(source, options, request, parallel)?;
        plan.check_memory(options.memory_limit)?;
        Ok(plan)
    }

    /// Returns the same pipeline with other ranks. Idle ranks of earlier calls stay, up to 64 in all.
    ///
    /// # Errors
    /// [`Error::Comm`] for degrees that do not form a mesh (the message names the nearest valid ones),
    /// [`Error::InvalidRequest`] for an axis that this version does not use.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_models::Degrees;
    /// use xdit_models::{LoadOptions, ModelSource, Parallel, Pipeline, Request};
    /// let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?;
    /// let pipe = pipe.parallel(Parallel::threads(Degrees { ulysses: 2, ..Degrees::default() }))?;
    /// let request = Request::new("a red circle").height(64).width(80).num_inference_steps(1);
    /// let output = pipe.generate(&request, &mut ())?;
    /// assert_eq!((output.images.len(), output.communication.len()), (1, 2));
    /// # }
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn parallel(mut self, parallel: Parallel) -> Result<Self> {
        parallel.check_on(self.model.device())?;
        self.parallel = parallel;
        Ok(self)
    }

    /// Returns the class of the pipeline.
    #[must_use]
    pub fn class(&self) -> PipelineClass {
        self.class
    }

    /// Returns the defaults for missing arguments of a request.
    #[must_use]
    pub fn defaults(&self) -> &Defaults {
        self.model.defaults()
    }

    /// Returns the number of compute threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Returns an error if a weights file on disk is missing, or its size or time has changed since it was loaded. Every call
    /// that draws checks this first. If another process shortens a file during a call, the system ends the process (SIGBUS);
    /// see the crate's documentation.
    ///
    /// # Errors
    /// [`Error::BadFile`], which names the file.
    pub fn check_files(&self) -> Result<()> {
        self.model.check_files()
    }

    /// Draws the images of `request`.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for arguments out of range, [`Error::OutOfMemory`] if the call does not fit into memory,
    /// [`Error::Stopped`] or [`Error::Cancelled`] if the observer or its token ended it, [`Error::BadFile`] if the weights' files
    /// have changed since they were loaded.
    pub fn generate(&self, request: &Request, observer: &mut dyn Observer) -> Result<Output> {
        self.generate_over(request, &self.parallel, observer)
    }

    /// Draws the images of `request` on other ranks than those of the pipeline, for this call only. Each call may use another
    /// plan. Ranks stay for later calls on the same devices, up to 64 in all.
    ///
    /// # Errors
    /// As [`generate`](Self::generate) and [`parallel`](Self::parallel).
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_models::{Degrees, LoadOptions, ModelSource, Parallel, Pipeline, Request};
    /// let pipe = Pipeline::load(&ModelSource::demo(), &LoadOptions::default(), &mut ())?;
    /// let request = Request::new("a red circle").height(64).width(80).num_inference_steps(1);
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
        parallel.check_on(self.model.device())?;
        self.draw(self.model.plan(request, parallel)?, &self.pool, observer)
    }

    /// Executes a plan that [`plan`](Self::plan) made for this pipeline and its ranks. The request is not resolved again.
    ///
    /// # Errors
    /// As [`generate`](Self::generate); [`Error::InvalidRequest`] for a plan with other configurations, another dtype or other
    /// ranks.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_models::{LoadOptions, ModelSource, Parallel, Pipeline, Request};
    /// let (source, options) = (ModelSource::demo(), LoadOptions::default());
    /// let request = Request::new("a red circle").height(70).width(64).num_inference_steps(1);
    /// let plan = Pipeline::plan(&source, &options, &request, &Parallel::default())?;
    /// // One warning for the rounded height, one for a size that the demo was not trained with.
    /// assert_eq!((plan.height, plan.warnings.len()), (64, 2));
    /// let output = Pipeline::load(&source, &options, &mut ())?.run(plan, &mut ())?;
    /// assert_eq!(output.plan.request.height, Some(64));
    /// # }
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn run(&self, plan: RunPlan, observer: &mut dyn Observer) -> Result<Output> {
        self.check_ranks(&plan)?;
        let _span = tracing::info_span!("generate").entered();
        self.draw(plan, &self.pool, observer)
    }
}

impl Pipeline {
    /// Draws requests of any prompts and sizes. Each replica of the data axis draws one request after another. When a result is
    /// finished, `done` receives the index of the request, its result and its observer. After a failed request, the others are
    /// still drawn. If `done` returns `Break`, no further request starts.
    ///
    /// Images do not depend on the number of replicas. Over a group of the caller, an error while drawing ends the group
    /// ([`RankBackend::Group`]), and the requests after it fail too.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for several replicas over a group of the caller, who can call [`generate`](Self::generate) on
    /// each replica instead. `done` receives the errors of requests.
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
        let waiting = Mutex::new(Some(requests.into_iter().enumerate()));
        let done = Mutex::new(done);
        // Only whole values are swapped under these locks, so a panic leaves no partial change.
        let next = || {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.as_mut().and_then(Iterator::next)
        };
        let work = |replica: usize, pool: &rayon::ThreadPool| {
            let parallel = self.parallel.one_replica(replica);
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
            work(0, &self.pool);
            return Ok(());
        }
        on_each(0, &self.replica_pools(replicas)?, &work);
        Ok(())
    }
}

impl Pipeline {
    /// Returns the compute threads of each replica. Creates them again only if the number of replicas changes.
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

#[cfg(test)]
mod tests;
