//! Finds ranks that wait for each other in a circle.

use super::state::{Activity, WorldFailure, WorldState};
use crate::{Error, Loss};

impl WorldState {
    fn waits_on(&self, rank: usize) -> Vec<usize> {
        match &self.ranks[rank] {
            Activity::Waiting { board, target, .. } => self.missing(*board, target),
            _ => vec![],
        }
    }

    fn describe(&self, rank: usize) -> String {
        match &self.ranks[rank] {
            Activity::Waiting { what, .. } => what.clone(),
            Activity::Computing { .. } => "nothing (it computes)".into(),
            Activity::Left => "nothing (it has returned)".into(),
        }
    }

    /// Follows the waits from one waiting rank and looks for a rank that has left, or for a circle.
    pub(super) fn diagnose(&self, me: usize) -> std::result::Result<(), WorldFailure> {
        let mut seen = vec![false; self.ranks.len()];
        // Depth first, with the path, so that a circle can be shown.
        let mut path: Vec<(usize, Vec<usize>)> = vec![(me, self.waits_on(me))];
        seen[me] = true;
        while let Some((_, pending)) = path.last_mut() {
            let Some(rank) = pending.pop() else {
                path.pop();
                continue;
            };
            if let Some(start) = path.iter().position(|(r, _)| *r == rank) {
                let circle: Vec<usize> = path[start..].iter().map(|(r, _)| *r).collect();
                return Err(WorldFailure::Disagree(self.circle(&circle)));
            }
            if std::mem::replace(&mut seen[rank], true) {
                continue;
            }
            match &self.ranks[rank] {
                Activity::Left => {
                    let calls = self.describe(me);
                    let reason = format!("it has returned, while others still call {calls}");
                    let reason = Loss::Failed(reason);
                    return Err(WorldFailure::Lost { rank, reason });
                }
                Activity::Computing { .. } => {}
                Activity::Waiting { .. } => path.push((rank, self.waits_on(rank))),
            }
        }
        Ok(())
    }

    fn circle(&self, ranks: &[usize]) -> Error {
        if let [a, b] = ranks {
            return Error::Disagree {
                rank: *a,
                other: *b,
                mine: self.describe(*a),
                theirs: self.describe(*b),
            };
        }
        let each: Vec<String> = ranks
            .iter()
            .map(|r| format!("rank {r} in {}", self.describe(*r)))
            .collect();
        Error::Deadlock(format!("each waits for the next: {}", each.join(", ")))
    }
}
