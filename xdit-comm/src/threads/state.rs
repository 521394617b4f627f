//! What all ranks of a world share: what was posted, who does what, what failed.

use crate::{
    Call, Error, Result,
    sync::{Condvar, Mutex, MutexGuard},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, OnceLock, PoisonError},
    time::{Duration, Instant},
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
    /// Between operations, since its last one began or ended.
    Computing {
        since: Instant,
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
    pub(super) ranks: Vec<Activity>,
    pub(super) boards: Vec<Board>,
}

/// Why the world cannot go on. Ranks are world ranks.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    Lost { rank: usize, reason: String },
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

#[derive(Debug)]
pub(super) struct World {
    state: Mutex<State>,
    pub(super) changed: Condvar,
    pub(super) deadline: Duration,
}

impl World {
    pub(super) fn new(world_size: usize, deadline: Duration) -> Arc<Self> {
        let now = Instant::now();
        let mut state = State {
            failure: None,
            ranks: vec![Activity::Computing { since: now }; world_size],
            boards: Vec::new(),
        };
        state.add_board((0..world_size).collect());
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            deadline,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No code below panics while it holds the lock; if it did, the failure is what the others must see.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        limit: Duration,
    ) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, limit)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// A rank is done: with its result (`None`) or with a reason why not.
    pub(super) fn leave(&self, rank: usize, reason: Option<&str>) {
        let mut state = self.lock();
        state.ranks[rank] = Activity::Left;
        if let Some(reason) = reason {
            state.fail(Failure::Lost {
                rank,
                reason: reason.to_owned(),
            });
        }
        drop(state);
        self.changed.notify_all();
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
                self.ranks[rank] = Activity::Computing {
                    since: Instant::now(),
                };
            }
        }
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

    /// Looks from a waiting rank along who waits for whom: a rank that has left, a circle, a rank that has made no
    /// progress for `deadline`. Otherwise how long until the next such moment.
    pub(super) fn diagnose(
        &self,
        me: usize,
        deadline: Duration,
    ) -> std::result::Result<Duration, Failure> {
        let mut next = deadline;
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
                    let reason = format!(
                        "it has returned, while others still call {}",
                        self.describe(me)
                    );
                    return Err(Failure::Lost { rank, reason });
                }
                Activity::Computing { since } => match deadline.checked_sub(since.elapsed()) {
                    Some(left) if !left.is_zero() => next = next.min(left),
                    _ => {
                        let reason =
                            format!("no progress for {:.1} s", since.elapsed().as_secs_f64());
                        return Err(Failure::Lost { rank, reason });
                    }
                },
                Activity::Waiting { .. } => path.push((rank, self.waits_on(rank))),
            }
        }
        Ok(next)
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
