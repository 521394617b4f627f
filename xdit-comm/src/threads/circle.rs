//! Finds ranks that wait for each other in a circle.

use super::state::{Activity, WorldFailure, WorldState};
use crate::{Error, Loss};

/// What a rank does, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Computes,
    Waits,
    HasReturned,
}

/// Knows which ranks wait for which.
pub(crate) trait Waits {
    /// The number of ranks.
    fn ranks(&self) -> usize;
    fn doing(&self, rank: usize) -> Doing;
    /// The ranks whose part is missing for what this rank waits for.
    fn waits_on(&self, rank: usize) -> Vec<usize>;
    /// The call in which this rank waits.
    fn waits_in(&self, rank: usize) -> &str;

    /// Follows the waits from one waiting rank and looks for a rank that has left, or for a circle.
    fn diagnose(&self, me: usize) -> std::result::Result<(), WorldFailure> {
        let mut seen = vec![false; self.ranks()];
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
                return Err(WorldFailure::Disagree(circle_of(self, &circle)));
            }
            if std::mem::replace(&mut seen[rank], true) {
                continue;
            }
            match self.doing(rank) {
                Doing::HasReturned => {
                    let calls = describe(self, me);
                    let reason = format!("it has returned, while others still call {calls}");
                    let reason = Loss::Failed(reason);
                    return Err(WorldFailure::Lost { rank, reason });
                }
                Doing::Computes => {}
                Doing::Waits => path.push((rank, self.waits_on(rank))),
            }
        }
        Ok(())
    }
}

fn describe(ranks: &(impl Waits + ?Sized), rank: usize) -> String {
    match ranks.doing(rank) {
        Doing::Waits => ranks.waits_in(rank).to_owned(),
        Doing::Computes => "nothing (it computes)".into(),
        Doing::HasReturned => "nothing (it has returned)".into(),
    }
}

fn circle_of(all: &(impl Waits + ?Sized), ranks: &[usize]) -> Error {
    if let [a, b] = ranks {
        return Error::Disagree {
            rank: *a,
            other: *b,
            mine: describe(all, *a),
            theirs: describe(all, *b),
        };
    }
    let each: Vec<String> = ranks
        .iter()
        .map(|r| format!("rank {r} in {}", describe(all, *r)))
        .collect();
    Error::Deadlock(format!("each waits for the next: {}", each.join(", ")))
}

impl Waits for WorldState {
    fn ranks(&self) -> usize {
        self.ranks.len()
    }

    fn doing(&self, rank: usize) -> Doing {
        match &self.ranks[rank] {
            Activity::Computing { .. } => Doing::Computes,
            Activity::Waiting { .. } => Doing::Waits,
            Activity::Left => Doing::HasReturned,
        }
    }

    fn waits_on(&self, rank: usize) -> Vec<usize> {
        match &self.ranks[rank] {
            Activity::Waiting { board, target, .. } => self.missing(*board, target),
            _ => vec![],
        }
    }

    fn waits_in(&self, rank: usize) -> &str {
        match &self.ranks[rank] {
            Activity::Waiting { what, .. } => what,
            _ => "",
        }
    }
}
