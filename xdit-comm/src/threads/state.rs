//! What all ranks of a world share: what was posted, who does what, what failed.

use crate::{
    Call, Error, Loss, Result,
    sync::{Condvar, Mutex, MutexGuard},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{
        Arc, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use xdit_kernels::Tensor;

/// A group's place in the shared state.
pub(super) type GroupId = usize;

/// What one rank puts on the board in one round.
#[derive(Debug, Clone)]
pub(super) enum Post {
    Call(Arc<Call>),
    Split { color: usize, key: usize },
}

/// One collective of a group: complete when every member has posted, forgotten when every member has taken.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) posts: Vec<Option<Post>>,
    pub(super) taken: usize,
    /// A reduction's result, made by the first rank that takes it.
    pub(super) reduced: Arc<OnceLock<Result<Tensor>>>,
    /// The subgroups of a split, by color, made by the first rank that takes it.
    pub(super) subgroups: Option<BTreeMap<usize, GroupId>>,
}

/// Messages of one sender to one receiver, numbered in the order sent.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) arrived: BTreeMap<usize, Tensor>,
    /// Numbers that the receiver has given up on.
    pub(super) abandoned: HashSet<usize>,
    pub(super) next_send: usize,
    pub(super) next_recv: usize,
}

#[derive(Debug)]
pub(super) struct Board {
    /// World ranks, in group order.
    pub(super) members: Arc<[usize]>,
    pub(super) rounds: VecDeque<Round>,
    /// Number of the first round still kept.
    pub(super) first_round: usize,
    /// The round that each member posts next.
    pub(super) next_round: Vec<usize>,
    pub(super) lanes: HashMap<(usize, usize), Lane>,
}

/// What a waiting rank waits for.
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
    /// Between calls, since something was last finished, by the world's clock.
    Computing {
        since: Duration,
    },
    Waiting {
        group: GroupId,
        target: Target,
        what: String,
    },
    Left,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) failure: Option<Failure>,
    /// How long the world has run. It moves by the caller's ticks alone, so that time in which the process is stopped, or the
    /// caller busy, is not in it.
    clock: Duration,
    pub(super) ranks: Vec<Activity>,
    /// Of each rank, how many operations of its own the last tick knew of.
    known: Vec<u64>,
    pub(super) boards: Vec<Board>,
}

/// Why the world cannot go on. Ranks are world ranks.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    Lost { rank: usize, reason: Loss },
    Disagree(Error),
}

impl Failure {
    pub(super) fn seen_by(&self, rank: usize, op: &str) -> Error {
        match self {
            Self::Lost { rank: lost, reason } => Error::PeerLost {
                op: op.to_owned(),
                rank,
                lost: *lost,
                reason: reason.clone(),
            },
            Self::Disagree(e) => e.clone(),
        }
    }
}

/// What came of a moment.
#[derive(Debug)]
pub(super) enum Tick {
    Passed,
    Failed(Failure),
    /// Somebody else holds the state.
    Held,
}

#[derive(Debug)]
pub(super) struct World {
    state: Mutex<State>,
    pub(super) changed: Condvar,
    /// Of each rank, how many operations of its own it has finished.
    finished: Box<[AtomicU64]>,
    /// Whether there is a failure, for who does not hold the lock.
    failed: AtomicBool,
}

impl World {
    pub(super) fn new(world_size: usize) -> Arc<Self> {
        let since = Duration::ZERO;
        let mut state = State {
            failure: None,
            clock: since,
            ranks: vec![Activity::Computing { since }; world_size],
            known: vec![0; world_size],
            boards: Vec::new(),
        };
        state.add_board((0..world_size).collect());
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            finished: (0..world_size).map(|_| AtomicU64::new(0)).collect(),
            failed: AtomicBool::new(false),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No code below panics while it holds the lock; if it did, the failure is what the others must see.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until something has changed. Time is the caller's affair, so that ranks that wait never wake for nothing.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A rank has finished an operation of its own; whether the world has failed.
    pub(super) fn progress(&self, rank: usize) -> bool {
        // A count that the next tick compares, and a flag that only comes early or late: neither orders anything else.
        self.finished[rank].fetch_add(1, Ordering::Relaxed);
        self.failed.load(Ordering::Relaxed)
    }

    /// Notes a failure, and wakes everyone.
    pub(super) fn fail(&self, mut state: MutexGuard<'_, State>, failure: Failure) {
        state.fail(failure);
        drop(state);
        self.failed.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Time goes on by `passed`, and a rank that has finished nothing for `deadline` is lost, whether others wait for it or not.
    pub(super) fn tick(&self, passed: Duration, deadline: Duration) -> Tick {
        // Never waits: a rank may have been stopped for ever while it held the lock.
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
        match state.stalled(deadline) {
            Some(lost) => {
                self.fail(state, lost.clone());
                Tick::Failed(lost)
            }
            None => Tick::Passed,
        }
    }

    /// Begins another call of the same ranks, all of which have left. False, and nothing done, if the last call left something behind:
    /// a failure, a rank at work, a message, an operation that was started.
    pub(super) fn begin_again(&self) -> bool {
        // Never waits, as a tick.
        let Ok(mut state) = self.state.try_lock() else {
            return false;
        };
        let over = state.ranks.iter().all(|at| matches!(at, Activity::Left));
        let quiet = state.boards.iter().all(|board| {
            let open = |lane: &Lane| lane.next_send != lane.next_recv || !lane.arrived.is_empty();
            board.rounds.is_empty() && !board.lanes.values().any(open)
        });
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
                self.fail(state, Failure::Lost { rank, reason });
            }
            None => {
                drop(state);
                self.changed.notify_all();
            }
        }
    }
}

impl State {
    /// The first failure stays: what follows is its consequence. Tensors still on the boards are dropped.
    pub(super) fn fail(&mut self, failure: Failure) {
        if self.failure.is_none() {
            self.failure = Some(failure);
            for board in &mut self.boards {
                board.rounds.clear();
                board.lanes.clear();
            }
        }
    }

    pub(super) fn add_board(&mut self, members: Vec<usize>) -> GroupId {
        self.boards.push(Board {
            next_round: vec![0; members.len()],
            members: members.into(),
            rounds: VecDeque::new(),
            first_round: 0,
            lanes: HashMap::new(),
        });
        self.boards.len() - 1
    }

    /// World ranks whose part is missing for what this rank waits for.
    pub(super) fn missing(&self, group: GroupId, target: &Target) -> Vec<usize> {
        let board = &self.boards[group];
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
            if let Activity::Waiting { group, target, .. } = &self.ranks[rank]
                && self.missing(*group, target).is_empty()
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

    /// The rank that has computed longest without finishing anything, if that is `deadline` or longer.
    fn stalled(&self, deadline: Duration) -> Option<Failure> {
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
        (idle >= deadline).then_some(Failure::Lost { rank, reason })
    }

    /// A rank has finished something and goes on by itself.
    pub(super) fn computes(&mut self, rank: usize) {
        self.ranks[rank] = Activity::Computing { since: self.clock };
    }

    fn waits_on(&self, rank: usize) -> Vec<usize> {
        match &self.ranks[rank] {
            Activity::Waiting { group, target, .. } => self.missing(*group, target),
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

    /// Looks from a waiting rank along who waits for whom: for a rank that has left, or a circle.
    pub(super) fn diagnose(&self, me: usize) -> std::result::Result<(), Failure> {
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
                return Err(Failure::Disagree(self.circle(&circle)));
            }
            if std::mem::replace(&mut seen[rank], true) {
                continue;
            }
            match &self.ranks[rank] {
                Activity::Left => {
                    let calls = self.describe(me);
                    let reason = format!("it has returned, while others still call {calls}");
                    let reason = Loss::Failed(reason);
                    return Err(Failure::Lost { rank, reason });
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
