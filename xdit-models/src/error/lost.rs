//! Which errors mean that ranks are lost.

use xdit_comm::Error::{Deadlock, Disagree, PeerLost};
use xdit_comm::Loss;

use super::Error;

impl Error {
    /// Returns whether a rank is lost because it finished nothing within the deadline. With a longer deadline it might have
    /// continued.
    pub fn is_stall(&self) -> bool {
        match self {
            Self::Rank { source, .. } => source.is_stall(),
            Self::Comm(error) => error.is_stall(),
            Self::Lost { loss, .. } => loss.is_stall(),
            _ => false,
        }
    }

    /// Returns the numbers of the ranks that are lost, if that is the reason: they panicked, ended, or stopped answering. Empty if
    /// another error ended the call, such as one that a rank reported, because it would end the call again on other ranks.
    ///
    /// # Examples
    /// ```
    /// use xdit_models::Error;
    /// use xdit_models::xdit_comm::Loss;
    /// let source = Error::Lost { loss: Loss::Ended, ranks: vec![3] };
    /// let error = Error::Rank { rank: "rank 3 (ring 1, ulysses 1)".into(), source: Box::new(source) };
    /// assert_eq!(error.lost_ranks(), [3]);
    /// assert!(Error::Cancelled.lost_ranks().is_empty());
    /// ```
    pub fn lost_ranks(&self) -> &[usize] {
        match self {
            Self::Rank { source, .. } => source.lost_ranks(),
            Self::Lost { ranks, .. } => ranks,
            Self::Comm(PeerLost { lost, reason, .. }) if !matches!(reason, Loss::Failed(_)) => {
                std::slice::from_ref(lost)
            }
            _ => &[],
        }
    }

    /// Returns whether this error only reports the failure of another rank.
    pub(crate) fn is_of_another_rank(&self) -> bool {
        let Self::Comm(error) = self else {
            return false;
        };
        matches!(error, PeerLost { .. } | Disagree { .. } | Deadlock(_))
    }
}
