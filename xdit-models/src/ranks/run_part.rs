//! The parts of a call that lost ranks.

use crate::error::Error;
use crate::pipeline::run_plan::RunPlan;
use crate::quote;
use crate::ranks::degrees::Degrees;

/// A part of a call: what ran on the same ranks.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunPart {
    /// The plan of these ranks.
    pub plan: RunPlan,
    /// For each image the number of steps that were finished before this part. They may differ between replicas.
    pub first_steps: Vec<usize>,
    /// Why the part ended early.
    pub lost: Option<LostRank>,
}

/// A rank that was lost, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostRank {
    /// The rank: `rank 3 (ring 1, ulysses 1)`.
    pub rank: String,
    /// Why it is lost: `no progress for 60.0 s`.
    pub reason: String,
}

impl RunPart {
    /// The only part of a call that lost no rank.
    pub(crate) fn whole(plan: &RunPlan) -> Self {
        Self {
            plan: plan.clone(),
            first_steps: vec![0; plan.images],
            lost: None,
        }
    }

    /// Returns the number of steps that were finished for every image before this part.
    #[must_use]
    pub fn first_step(&self) -> usize {
        self.first_steps.iter().min().copied().unwrap_or(0)
    }
}

impl LostRank {
    /// Creates the words about a rank: `rank` names it, `reason` says why it is lost.
    #[must_use]
    pub fn new(rank: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            rank: rank.into(),
            reason: reason.into(),
        }
    }

    /// Returns a sentence about the loss, after so many `finished` of `steps` steps, and about the ranks that continue.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::{Degrees, LostRank};
    /// let lost = LostRank::new("rank 1", "no progress for 60.0 s");
    /// let text = "rank 1 was lost at step 3 of 6: no progress for 60.0 s; continuing with 1 rank";
    /// assert_eq!(lost.in_words((2, 6), &Degrees::default()), text);
    /// ```
    #[must_use]
    pub fn in_words(&self, (finished, steps): (usize, usize), next: &Degrees) -> String {
        let when = match finished < steps {
            true => format!("at step {} of {steps}", finished + 1),
            false => format!("after step {finished} of {steps}"),
        };
        let (rank, reason) = (&self.rank, quote::reason(&self.reason));
        let next = next.in_words();
        format!("{rank} was lost {when}: {reason}; continuing with {next}")
    }

    /// Returns the rank that this error is about, if it reports a lost one.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        if error.lost_ranks().is_empty() {
            return None;
        }
        match error {
            Error::Rank { rank, source } => Some(Self::new(rank, source.to_string())),
            Error::Comm(xdit_comm::Error::PeerLost {
                lost, host, reason, ..
            }) => {
                let rank = match host {
                    Some(host) => format!("rank {lost} (host {host})"),
                    None => format!("rank {lost}"),
                };
                Some(Self::new(rank, reason.to_string()))
            }
            _ => None,
        }
    }
}
