//! Draws an image again that several plans drew, one after another.

use std::ops::ControlFlow;

use xdit_kernels::Tensor;
use xdit_models::{
    CancelToken, Checkpoint, Error, Observer, Parallel, Phase, PhaseEvent, Result, RunPlan, StepEnd,
};

use crate::report::failure::Failure;
use crate::report::progress::RunObserver;
use crate::run::compute::Compute;
use crate::run::draw::{Drawn, load};
use crate::run::model::FoundModel;

/// Draws on the ranks of each part in turn, from its first step to that of the next part. `plan` plans the call on the ranks of a
/// computation.
///
/// # Errors
/// Errors of the library.
pub(crate) fn draw_parts(
    model: &FoundModel,
    parts: Vec<(usize, Parallel)>,
    plan: &dyn Fn(&Compute) -> Result<RunPlan>,
    compute: &Compute,
    watch: &mut RunObserver,
) -> std::result::Result<Drawn, Failure> {
    let mut pipeline = load(model, compute, watch)?;
    let checkpoint = Checkpoint::new();
    let ends: Vec<Option<usize>> = parts
        .iter()
        .skip(1)
        .map(|(first, _)| Some(*first))
        .collect();
    for ((_, parallel), end) in parts.into_iter().zip(ends.into_iter().chain([None])) {
        let parallel = compute.device.spread(parallel);
        pipeline = pipeline.parallel(parallel.clone())?;
        let mut planned = plan(&Compute {
            parallel,
            ..compute.clone()
        })?;
        planned.warnings.clear();
        let end = end.unwrap_or(usize::MAX);
        let drawn = pipeline.run_from(planned, &checkpoint, &mut Until { watch, end });
        match drawn {
            Err(Error::Stopped { step }) if step == end => {}
            Err(error) => return Err(error.into()),
            Ok(output) => return Ok(Drawn::new(model, compute, output)),
        }
    }
    // The last part has no end.
    Err(Failure::usage("the record has no ranks"))
}

/// Ends a call after `end` steps.
struct Until<'a> {
    watch: &'a mut RunObserver,
    end: usize,
}

impl Observer for Until<'_> {
    fn phase(&mut self, phase: Phase, event: PhaseEvent) {
        self.watch.phase(phase, event);
    }

    fn step_end(&mut self, step: &StepEnd<'_>) -> ControlFlow<()> {
        self.watch.step_end(step)?;
        match step.index + 1 < self.end {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    fn wants_tensors(&self) -> bool {
        self.watch.wants_tensors()
    }

    fn wants_latents(&self) -> bool {
        self.watch.wants_latents()
    }

    fn tensor(&mut self, name: &str, make: &dyn Fn() -> Result<Tensor>) -> Result<()> {
        self.watch.tensor(name, make)
    }

    fn ids(&mut self, name: &str, ids: &[Vec<u32>]) {
        self.watch.ids(name, ids);
    }

    fn cancel_token(&self) -> CancelToken {
        self.watch.cancel_token()
    }

    fn warning(&mut self, text: &str) {
        self.watch.warning(text);
    }
}
