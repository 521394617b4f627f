//! The next turns of a stage.

use crate::drift_monitor::DriftMonitor;
use crate::inbox::Inbox;
use crate::links::{Links, Task};
use crate::lockstep::Lockstep;
use crate::{Error, Schedule, Stage};
use xdit_comm::Call;
use xdit_kernels::Tensor;

/// The turns of a stage in the order of their input: with receives posted ahead if the backend allows it, otherwise slot by
/// slot. Both produce the same values.
pub(crate) enum Work {
    Ahead(Inbox),
    Lockstep(Lockstep),
}

impl Work {
    pub(crate) fn new(schedule: Schedule, links: &Links<'_>) -> Self {
        match links.receives_ahead() {
            true => Self::Ahead(Inbox::new(schedule, links)),
            false => Self::Lockstep(Lockstep::new(schedule, links)),
        }
    }

    /// Posts the receives of later turns, if they may be posted ahead.
    pub(crate) fn post<S: Stage>(
        &mut self,
        monitor: &mut DriftMonitor<'_>,
        links: &Links<'_>,
        stage: &S,
        latents: &[Tensor],
    ) -> Result<(), Error> {
        match self {
            Self::Ahead(inbox) => inbox.post(monitor, links, stage, latents),
            Self::Lockstep(_) => Ok(()),
        }
    }

    /// Returns the next turn when its input has arrived, and `None` after the last turn. Calls `over` for a step that ends
    /// everywhere before that, if stages must know where it does.
    pub(crate) fn take<S: Stage>(
        &mut self,
        monitor: &mut DriftMonitor<'_>,
        links: &Links<'_>,
        stage: &S,
        latents: &[Tensor],
        over: &mut impl FnMut(usize) -> Result<(), S::Error>,
    ) -> Result<Option<Task>, S::Error> {
        match self {
            Self::Ahead(inbox) => Ok(inbox.take()?),
            Self::Lockstep(lockstep) => lockstep.take(monitor, links, stage, latents, over),
        }
    }

    /// Starts to send the output of the task.
    pub(crate) fn send<S: Stage>(
        &mut self,
        sends: Vec<Call>,
        links: &Links<'_>,
        stage: &S,
        latents: &[Tensor],
    ) -> Result<(), Error> {
        match self {
            // The messages own their tensors, so nothing needs to wait for them.
            Self::Ahead(_) => links.start(sends).map(drop),
            Self::Lockstep(lockstep) => lockstep.end_slot(sends, links, stage, latents),
        }
    }

    /// Returns the step about which stages without the sampler may now exchange messages with that stage, after a turn of `step`.
    pub(crate) fn ended(&self, links: &Links<'_>, step: usize) -> Option<usize> {
        match self {
            // Messages of another group need no order among those of the pipeline.
            Self::Ahead(inbox) => inbox.is_step_over(step).then_some(step),
            Self::Lockstep(lockstep) => lockstep.ended(links),
        }
    }

    /// Returns whether no turn of this step is left.
    pub(crate) fn is_step_over(&self, links: &Links<'_>, step: usize) -> bool {
        match self {
            Self::Ahead(inbox) => inbox.is_step_over(step),
            Self::Lockstep(lockstep) => lockstep.is_step_over(links.stage(), step),
        }
    }
}
