//! Shows the steps of a rank to the caller's observer.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;

use xdit_kernels::Tensor;

use crate::error::{Error, Result};
use crate::observer::{Observer, Phase, PhaseEvent, StepEnd};
use crate::ranks::compose::{RankContext, StreamLayout};

/// An observer that stage and sampler share.
pub(crate) struct RankObserver<'a> {
    observer: RefCell<&'a mut dyn Observer>,
    /// Whether any rank's observer needs predictions. Then all ranks of a stage gather them.
    shown: bool,
    /// Whether any rank's observer needs the latents after each step.
    followed: bool,
    /// Whether ranks keep the latents of each step.
    kept: bool,
    /// Whether this rank has all rows and all blocks, so that results inside the blocks can be shown.
    whole: bool,
    /// The predictions of this step under their names, part by part, in order.
    predictions: RefCell<Vec<(&'static str, Tensor)>>,
    steps: Cell<usize>,
    /// Converts tokens to the form of the observer ([`Dit::shown`](crate::models::dit::Dit::shown)).
    show: &'a dyn Fn(&Tensor) -> Result<Tensor>,
}

impl<'a> RankObserver<'a> {
    /// `kept`: ranks keep the latents of each step.
    ///
    /// # Collective
    /// Every rank of a replica calls it.
    pub(crate) fn new(
        observer: &'a mut dyn Observer,
        rank_context: &RankContext,
        kept: bool,
        show: &'a dyn Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let wishes = [observer.wants_tensors(), observer.wants_latents()];
        let [shown, followed] = rank_context.any(wishes)?;
        Ok(Self {
            shown,
            followed: shown || followed,
            kept,
            whole: !rank_context.shares_pictures(),
            observer: RefCell::new(observer),
            predictions: RefCell::default(),
            steps: Cell::new(0),
            show,
        })
    }

    pub(crate) fn sees_inside(&self) -> bool {
        self.whole
    }

    pub(crate) fn with<T>(&self, see: impl FnOnce(&mut dyn Observer) -> Result<T>) -> Result<T> {
        see(&mut **self.observer.borrow_mut())
    }

    pub(crate) fn begin(&self, steps: usize) {
        self.steps.set(steps);
        let total = steps as u64;
        self.phase(PhaseEvent::Start { total });
    }

    pub(crate) fn end(&self) {
        self.phase(PhaseEvent::End);
    }

    fn phase(&self, event: PhaseEvent) {
        self.observer.borrow_mut().phase(Phase::Denoise, event);
    }

    /// Shows the prediction `[b, l, c]` of a part, of which this rank has some rows.
    pub(crate) fn predicted(&self, name: &'static str, rows_blc: Tensor) {
        if self.shown {
            self.predictions.borrow_mut().push((name, rows_blc));
        }
    }

    /// Returns the whole latents after a step, of which `patches` are this rank's rows. They are gathered if someone needs them, as
    /// after the last step.
    ///
    /// # Collective
    /// Every rank of the last stage calls it.
    pub(crate) fn latents(
        &self,
        index: usize,
        patches: &[Tensor],
        rank_context: &RankContext,
        layout: &StreamLayout,
    ) -> Result<Option<Tensor>> {
        // Latents that nobody needs are gathered once, at the end.
        let needed = self.followed || self.kept || index + 1 == self.steps.get();
        needed
            .then(|| rank_context.gather(layout, patches))
            .transpose()
    }

    /// Ends a step, after which the whole latents are these, if they were gathered.
    ///
    /// # Collective
    /// Every rank of the last stage calls it.
    pub(crate) fn step_end(
        &self,
        index: usize,
        timestep: f32,
        latents: Option<&Tensor>,
        rank_context: &RankContext,
        layout: &StreamLayout,
    ) -> Result<()> {
        let predictions = self.predictions.take();
        for name in [
            "noise_pred_cond",
            "noise_pred_uncond",
            "noise_pred_skip_layers",
            "noise_pred",
        ] {
            let of_name = predictions.iter().filter(|(other, _)| *other == name);
            let parts: Vec<Tensor> = of_name.map(|(_, part)| part.clone()).collect();
            if !parts.is_empty() {
                let whole = (self.show)(&rank_context.gather(layout, &parts)?)?;
                self.with(|observer| observer.offer(&format!("step.{index}.{name}"), &whole))?;
            }
        }
        let (done, total) = (index + 1, self.steps.get());
        let seen = latents.filter(|_| self.followed);
        let shown = seen.map(|latents| (self.show)(latents)).transpose()?;
        self.with(|observer| {
            if let Some(shown) = &shown {
                observer.offer(&format!("step.{index}.latents"), shown)?;
            }
            let event = PhaseEvent::Advance {
                done: done as u64,
                total: total as u64,
            };
            observer.phase(Phase::Denoise, event);
            let event = StepEnd {
                index,
                total,
                timestep,
                latents: shown.as_ref().filter(|_| observer.wants_latents()),
            };
            match observer.step_end(&event) {
                ControlFlow::Break(()) => Err(Error::Stopped { step: done }),
                ControlFlow::Continue(()) => Ok(()),
            }
        })
    }
}
