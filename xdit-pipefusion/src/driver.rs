//! What a rank sets about a run, and what it learns of it.

use crate::{Kept, Placement, Schedule};
use xdit_comm::Group;

/// The denoising loop: every rank of an image runs it, one stage each. One stage and one patch is the plain loop.
///
/// Each turn ([`Schedule::parts`]) a stage waits for its input, posts the receives of later turns' input, computes, and starts
/// to send its output, which it never waits for: buffers are owned by the messages. The stage of the last leg steps the turn's
/// patches and sends their latents to the first, if that is another.
///
/// # Collective
/// Every rank of `pipe` (and of `replica`) calls [`run`](Self::run) with the same schedule.
#[derive(Debug, Clone)]
pub struct Driver {
    /// Which turns there are.
    pub schedule: Schedule,
    /// The stages of this rank's rows, in order; `None` for one stage.
    pub pipe: Option<Group>,
    /// How a pass goes through them.
    pub placement: Placement,
    /// All ranks that make the same image, for what they decide together; `None` if those of `pipe` are all.
    pub replica: Option<Group>,
    /// Runs a step whole when the newest drift that every rank knows, that of the step before the last, is above this (or
    /// is not a number).
    pub max_drift: Option<f32>,
    /// The handle of this rank's [`StaleKv`](crate::StaleKv)s.
    pub kept: Kept,
}

/// What a run has done.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// For each step how far the keys and values that may be used old are from those of the step before: relative L2 over
    /// sampled tokens of all layers and ranks. `None` where nothing was compared: in the first step, and with one patch.
    /// The same on every rank.
    pub drift: Vec<Option<f32>>,
    /// Every step that ran whole.
    pub whole: Vec<usize>,
    /// Those of them that did because of [`Driver::max_drift`].
    pub refreshed: Vec<usize>,
}

impl Driver {
    /// One stage that follows `schedule`, without a limit for the drift.
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            pipe: None,
            placement: Placement::Linear,
            replica: None,
            max_drift: None,
            kept: Kept::default(),
        }
    }

    /// Over the ranks of `pipe`, one stage each.
    #[must_use]
    pub fn pipe(self, pipe: Group) -> Self {
        Self {
            pipe: Some(pipe),
            ..self
        }
    }

    /// With the stages placed so.
    #[must_use]
    pub fn placement(self, placement: Placement) -> Self {
        Self { placement, ..self }
    }

    /// With all the ranks that make the same image, where they are more than those of `pipe`.
    #[must_use]
    pub fn replica(self, replica: Group) -> Self {
        Self {
            replica: Some(replica),
            ..self
        }
    }

    /// Runs a step whole when the drift is above `limit`; see the field [`max_drift`](Self::max_drift).
    #[must_use]
    pub fn max_drift(self, limit: f32) -> Self {
        Self {
            max_drift: Some(limit),
            ..self
        }
    }

    /// With the keys and values that this rank's [`StaleKv`](crate::StaleKv)s share.
    #[must_use]
    pub fn kept(self, kept: Kept) -> Self {
        Self { kept, ..self }
    }
}
