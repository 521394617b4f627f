//! The state that all ranks of a world share: posted messages, the activity of each rank, and the first failure.

use super::board::{Board, BoardId, Post};
use crate::{
    Error, Loss,
    sync::{Condvar, Mutex, MutexGuard},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// The target of a waiting rank.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Round(usize),
    Message {
        src: usize,
        dst: usize,
        number: usize,
    },
}

#[derive(Debug, Clone)]
pub(super) enum Activity {
    /// The rank computes. The time is the end of its last operation, by the world's clock.
    Computing {
        since: Duration,
    },
    Waiting {
        board: BoardId,
        target: Target,
        what: String,
        /// By the world's clock, and how long it has waited then: the deadline of an exchange.
        until: Option<(Duration, Duration)>,
    },
    Left,
}

#[derive(Debug)]
pub(super) struct WorldState {
    pub(super) failure: Option<WorldFailure>,
    /// How long the world has run. Only the caller's ticks advance it, so it does not count time in which the process is stopped or
    /// the caller is busy.
    clock: Duration,
    pub(super) ranks: Vec<Activity>,
    /// Of each rank, how many operations of its own the last tick knew of.
    known: Vec<u64>,
    pub(super) boards: Vec<Board>,
}

/// Why the world cannot go on. Ranks are world ranks.
#[derive(Debug)]
pub(crate) enum WorldFailure {
    Lost { rank: usize, reason: Loss },
    Disagree(Error),
}

impl Clone for WorldFailure {
    fn clone(&self) -> Self {
        match self {
            Self::Lost { rank, reason } => Self::Lost {
                rank: *rank,
                reason: reason.clone(),
            },
            Self::Disagree(error) => Self::of(error),
        }
    }
}

/// Returns the same error for another rank. Errors of other kinds than these two are a rank's own: others get their text.
fn for_another_rank(error: &Error) -> Error {
    match error {
        Error::Disagree {
            rank,
            other,
            mine,
            theirs,
        } => Error::Disagree {
            rank: *rank,
            other: *other,
            mine: mine.clone(),
            theirs: theirs.clone(),
        },
        Error::Deadlock(circle) => Error::Deadlock(circle.clone()),
        other => Error::Kernel(other.to_string()),
    }
}

impl WorldFailure {
    /// The failure that every rank sees as this error.
    pub(crate) fn of(error: &Error) -> Self {
        Self::Disagree(for_another_rank(error))
    }

    pub(crate) fn seen_by(&self, rank: usize, op: &str) -> Error {
        match self {
            Self::Lost { rank: lost, reason } => Error::PeerLost {
                op: op.to_owned(),
                rank,
                lost: *lost,
                host: None,
                reason: reason.clone(),
            },
            Self::Disagree(error) => for_another_rank(error),
        }
    }
}

/// The result of one tick.
#[derive(Debug)]
pub(super) enum Tick {
    Passed,
    Failed(WorldFailure),
    /// Another thread holds the lock.
    Held,
}

#[derive(Debug)]
pub(super) struct World {
    state: Mutex<WorldState>,
    pub(super) changed: Condvar,
    /// Of each rank, how many operations of its own it has finished.
    finished: Box<[AtomicU64]>,
    /// Whether there is a failure, for threads without the lock.
    failed: AtomicBool,
}

impl World {
    pub(super) fn new(world_size: usize) -> Arc<Self> {
        let since = Duration::ZERO;
        let mut state = WorldState {
            failure: None,
            clock: since,
            ranks: vec![Activity::Computing { since }; world_size],
            known: vec![0; world_size],
            boards: Vec::new(),
        };
        state.add_boards((0..world_size).collect());
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            finished: (0..world_size).map(|_| AtomicU64::new(0)).collect(),
            failed: AtomicBool::new(false),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, WorldState> {
        // No code below panics while it holds the lock. If it did, the other ranks must still see the failure.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change of the state. The caller advances the time, so waiting ranks never wake without a change.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, WorldState>) -> MutexGuard<'a, WorldState> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A rank has finished an operation of its own; whether the world has failed.
    pub(super) fn progress(&self, rank: usize) -> bool {
        // The next tick compares the count, and the flag may arrive early or late. Neither needs an ordering.
        self.finished[rank].fetch_add(1, Ordering::Relaxed);
        self.failed.load(Ordering::Relaxed)
    }

    /// Notes a failure, and wakes everyone.
    pub(super) fn fail(&self, mut state: MutexGuard<'_, WorldState>, failure: WorldFailure) {
        state.fail(failure);
        drop(state);
        self.failed.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Advances the time by `passed`. A rank that has finished nothing for `deadline` is lost, even if no rank waits for it.
    pub(super) fn tick(&self, passed: Duration, deadline: Duration) -> Tick {
        // This must not wait for the lock: a rank may have been stopped for ever while it held it.
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Tick::Held,
        };
        if let Some(failure) = &state.failure {
            return Tick::Failed(failure.clone());
        }
        state.clock += passed;
        state.count(&self.finished);
        match state.stalled(deadline).or_else(|| state.overdue()) {
            Some(lost) => {
                self.fail(state, lost.clone());
                Tick::Failed(lost)
            }
            None => Tick::Passed,
        }
    }

    /// Begins another call of the same ranks, after all have left. Returns false, without a change, if the last call left something
    /// behind: a failure, a rank at work, a message, or a started operation.
    pub(super) fn begin_again(&self) -> bool {
        // Never waits, as a tick.
        let Ok(mut state) = self.state.try_lock() else {
            return false;
        };
        let over = state.ranks.iter().all(|at| matches!(at, Activity::Left));
        let quiet = state.boards.iter().all(Board::is_quiet);
        if state.failure.is_some() || !over || !quiet {
            return false;
        }
        (0..state.ranks.len()).for_each(|rank| state.computes(rank));
        true
    }

    /// A rank is done: with its result (`None`) or with a reason why not.
    pub(super) fn leave(&self, rank: usize, reason: Option<&str>) {
        let mut state = self.lock();
        state.ranks[rank] = Activity::Left;
        match reason {
            Some(reason) => {
                let reason = Loss::Failed(reason.to_owned());
                self.fail(state, WorldFailure::Lost { rank, reason });
            }
            None => {
                drop(state);
                self.changed.notify_all();
            }
        }
    }
}

impl WorldState {
    /// The first failure stays: what follows is its consequence. Tensors still on the boards are dropped.
    pub(super) fn fail(&mut self, failure: WorldFailure) {
        if self.failure.is_none() {
            self.failure = Some(failure);
            for board in &mut self.boards {
                board.rounds.clear();
                board.lanes.clear();
            }
        }
    }

    /// The board of a new group's data plane; that of its control plane follows it.
    pub(super) fn add_boards(&mut self, members: Vec<usize>) -> BoardId {
        let data = self.boards.len();
        self.boards.extend(Board::of_group(members));
        data
    }

    /// The subgroup of a color, out of a split that all have posted.
    pub(super) fn subgroup(&mut self, board: BoardId, number: usize, color: usize) -> BoardId {
        let members = self.boards[board].members.clone();
        let round = self.boards[board].round(number);
        if let Some(subgroups) = &round.subgroups {
            return subgroups.get(&color).copied().unwrap_or_default();
        }
        let mut colors: Vec<(usize, usize, usize)> = Vec::new();
        for (rank, post) in round.posts.iter().enumerate() {
            if let Some(Post::Split { color, key }) = post {
                colors.push((*color, *key, rank));
            }
        }
        colors.sort_unstable();
        let mut subgroups = BTreeMap::new();
        for chunk in colors.chunk_by(|a, b| a.0 == b.0) {
            let of_color = chunk.iter().map(|(_, _, rank)| members[*rank]).collect();
            subgroups.insert(chunk[0].0, self.add_boards(of_color));
        }
        let own = subgroups.get(&color).copied().unwrap_or_default();
        self.boards[board].round(number).subgroups = Some(subgroups);
        own
    }

    /// World ranks whose part is missing for what this rank waits for.
    pub(super) fn missing(&self, board: BoardId, target: &Target) -> Vec<usize> {
        let board = &self.boards[board];
        match target {
            Target::Message { src, dst, number } => {
                let here = board
                    .lanes
                    .get(&(*src, *dst))
                    .is_some_and(|l| l.arrived.contains_key(number));
                if here {
                    vec![]
                } else {
                    vec![board.members[*src]]
                }
            }
            Target::Round(number) => {
                let round = number
                    .checked_sub(board.first_round)
                    .and_then(|i| board.rounds.get(i));
                let posts = round.map(|r| r.posts.iter().map(Option::is_some).collect::<Vec<_>>());
                let posted = posts.unwrap_or_else(|| vec![false; board.members.len()]);
                board
                    .members
                    .iter()
                    .zip(posted)
                    .filter(|(_, here)| !here)
                    .map(|(m, _)| *m)
                    .collect()
            }
        }
    }

    /// Marks waiting ranks whose target is complete as running again, from now on.
    pub(super) fn wake_complete(&mut self) {
        for rank in 0..self.ranks.len() {
            if let Activity::Waiting { board, target, .. } = &self.ranks[rank]
                && self.missing(*board, target).is_empty()
            {
                self.computes(rank);
            }
        }
    }

    /// Ranks that compute and have finished something since the last tick were at work until now.
    fn count(&mut self, finished: &[AtomicU64]) {
        for (rank, finished) in finished.iter().enumerate() {
            let now = finished.load(Ordering::Relaxed);
            let before = std::mem::replace(&mut self.known[rank], now);
            if now != before && matches!(self.ranks[rank], Activity::Computing { .. }) {
                self.computes(rank);
            }
        }
    }

    /// When a wait that begins now, and may take so long, is overdue.
    pub(super) fn until(&self, limit: Duration) -> (Duration, Duration) {
        (self.clock.saturating_add(limit), limit)
    }

    /// A rank that others have waited for longer than they wait in an exchange of the control plane.
    fn overdue(&self) -> Option<WorldFailure> {
        self.ranks.iter().find_map(|at| match at {
            Activity::Waiting {
                board,
                target,
                until: Some((until, limit)),
                ..
            } if self.clock >= *until => {
                let rank = *self.missing(*board, target).first()?;
                let reason = Loss::NoAnswer(*limit);
                Some(WorldFailure::Lost { rank, reason })
            }
            _ => None,
        })
    }

    /// Returns the rank that has computed longest without finishing an operation, if that is `deadline` or longer.
    fn stalled(&self, deadline: Duration) -> Option<WorldFailure> {
        let idle = self
            .ranks
            .iter()
            .enumerate()
            .filter_map(|(rank, at)| match at {
                Activity::Computing { since } => Some((self.clock - *since, rank)),
                _ => None,
            });
        let (idle, rank) = idle.max_by_key(|(idle, rank)| (*idle, std::cmp::Reverse(*rank)))?;
        let reason = Loss::NoProgress(idle);
        (idle >= deadline).then_some(WorldFailure::Lost { rank, reason })
    }

    /// A rank has finished something and goes on by itself.
    pub(super) fn computes(&mut self, rank: usize) {
        self.ranks[rank] = Activity::Computing { since: self.clock };
    }
}
