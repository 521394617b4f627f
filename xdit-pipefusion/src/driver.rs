//! The driver of a rank, and the report of a run.

use crate::{Kept, Placement, Schedule};
use xdit_comm::Group;

/// The denoising loop. Every rank of an image runs it, as one stage. With one stage and one patch it is the plain loop.
///
/// In each turn ([`Schedule::parts`]) a stage waits for its input, posts the receives for later turns, computes, and starts to
/// send its output. It never waits for a send, because messages own their buffers. The stage of the last leg steps the patches
/// of the turn and sends their latents to the first stage, if that is another one.
///
/// # Collective
/// Every rank of `pipe` (and of `replica`) calls [`run`](Self::run) with the same schedule.
#[derive(Debug, Clone)]
pub struct Driver {
    /// The steps, warm-up steps and patches.
    pub schedule: Schedule,
    /// The stages of this rank's rows, in order. `None` for one stage.
    pub pipe: Option<Group>,
    /// How a pass goes through the stages.
    pub placement: Placement,
    /// All ranks of the same image, which decide together. `None` if these are the ranks of `pipe`.
    pub replica: Option<Group>,
    /// Runs a step whole if the drift two steps earlier, the newest that every rank knows, is above this value or is NaN.
    pub max_drift: Option<f32>,
    /// The handle that this rank shares with its [`StaleKv`](crate::StaleKv)s.
    pub kept: Kept,
    /// The first step that runs, whole. An earlier run, possibly on other ranks, has finished the steps before it.
    pub first_step: usize,
}

/// The report of a run.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The drift of each step, from step 0: how much the keys and values that queries may see old have changed since the previous step, as
    /// relative L2 over sampled tokens of all layers and ranks. `None` if nothing was compared, as in the first step that runs,
    /// in steps of an earlier run and with one patch. All ranks have the same values.
    pub drift: Vec<Option<f32>>,
    /// All steps of this run that ran whole.
    pub whole: Vec<usize>,
    /// The steps among them that ran whole because of [`Driver::max_drift`].
    pub refreshed: Vec<usize>,
}

impl Driver {
    /// Creates a driver with one stage that follows `schedule`, without a limit for the drift.
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            pipe: None,
            placement: Placement::Linear,
            replica: None,
            max_drift: None,
            kept: Kept::default(),
            first_step: 0,
        }
    }

    /// Distributes the stages over the ranks of `pipe`, one stage per rank.
    #[must_use]
    pub fn pipe(self, pipe: Group) -> Self {
        Self {
            pipe: Some(pipe),
            ..self
        }
    }

    /// Sets how a pass goes through the stages.
    #[must_use]
    pub fn placement(self, placement: Placement) -> Self {
        Self { placement, ..self }
    }

    /// Sets all the ranks of the same image, if these are more than the ranks of `pipe`.
    #[must_use]
    pub fn replica(self, replica: Group) -> Self {
        Self {
            replica: Some(replica),
            ..self
        }
    }

    /// Runs a step whole if the drift is above `limit`. See the field [`max_drift`](Self::max_drift).
    #[must_use]
    pub fn max_drift(self, limit: f32) -> Self {
        Self {
            max_drift: Some(limit),
            ..self
        }
    }

    /// Continues before this step: an earlier run has finished those before it. See [`Sampler::begin`](crate::Sampler::begin).
    #[must_use]
    pub fn first_step(self, step: usize) -> Self {
        Self {
            first_step: step,
            ..self
        }
    }

    /// Sets the handle that this rank shares with its [`StaleKv`](crate::StaleKv)s.
    #[must_use]
    pub fn kept(self, kept: Kept) -> Self {
        Self { kept, ..self }
    }
}
