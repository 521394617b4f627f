//! The state that all ranks of a strict world share: queues, groups, exchanges of the control plane, and the first failure.

use super::{dice::Dice, options::StrictOptions};
use crate::{Call, Error, Group, Loss, Op, Result, threads::state::WorldFailure};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use xdit_kernels::{Device, Tensor};

/// A rank's place in the world.
pub(super) type Rank = usize;

/// How often a rank that waits looks whether the ranks' threads know of a loss.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// Notes that a rank which waits is alive; why the ranks' threads cannot go on, if they cannot.
pub(super) fn lost(ranks: &Group) -> Option<WorldFailure> {
    match ranks.progress() {
        Ok(()) => None,
        Err(Error::PeerLost {
            lost: rank, reason, ..
        }) => Some(WorldFailure::Lost { rank, reason }),
        Err(error) => Some(WorldFailure::Disagree(error)),
    }
}

/// A call of a batch. Its number is that among the messages from one rank to another, or among the collectives of its group.
#[derive(Debug)]
pub(super) struct QueuedCall {
    pub(super) group: usize,
    pub(super) number: usize,
    pub(super) call: Arc<Call>,
    /// What it brought.
    pub(super) done: Option<Vec<Tensor>>,
}

/// A batch on a queue.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) parts: Vec<QueuedCall>,
    /// Whether the queue runs it; only the first can be.
    pub(super) runs: bool,
}

impl Queued {
    pub(super) fn is_done(&self) -> bool {
        self.parts.iter().all(|part| part.done.is_some())
    }
}

#[derive(Debug, Default)]
pub(super) struct RankQueue {
    pub(super) batches: VecDeque<Queued>,
    /// How many have run.
    pub(super) ran: usize,
    /// What those that have run brought, until it is asked for; `None` for a batch that nobody will ask for.
    pub(super) brought: HashMap<usize, Option<Vec<Tensor>>>,
}

/// What the thread of a rank does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Runs,
    /// For a batch of its queue.
    Batch(usize),
    Exchange(Exchange),
    Left,
}

/// An exchange of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Exchange {
    pub(super) group: usize,
    pub(super) number: usize,
}

/// What a rank gives to an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Bytes(Vec<u8>),
    Split { color: usize, key: usize },
}

#[derive(Debug)]
pub(super) struct Members {
    /// Ranks of the world, in group order.
    pub(super) ranks: Arc<[Rank]>,
    /// Of each member, how many exchanges and collectives it has begun.
    exchanges: Vec<usize>,
    collectives: Vec<usize>,
    /// Of each sender and receiver, how many messages were sent and received.
    messages: HashMap<(usize, usize), [usize; 2]>,
}

#[derive(Debug)]
pub(super) struct StrictState {
    pub(super) failure: Option<WorldFailure>,
    pub(super) hosts: Vec<Host>,
    pub(super) queues: Vec<RankQueue>,
    pub(super) groups: Vec<Members>,
    /// What was said in exchanges that not all have heard, and by how many it was heard.
    pub(super) exchanges: HashMap<Exchange, (Vec<Option<Said>>, usize)>,
    /// The groups that came of a split, by color.
    subgroups: HashMap<(Exchange, usize), usize>,
    pub(super) dice: Dice,
}

#[derive(Debug)]
pub(super) struct StrictWorld {
    state: Mutex<StrictState>,
    changed: Condvar,
    seed: u64,
    delay: Duration,
    pub(super) device: Device,
}

impl StrictWorld {
    pub(super) fn new(world_size: usize, options: &StrictOptions) -> Arc<Self> {
        let mut state = StrictState {
            failure: None,
            hosts: vec![Host::Runs; world_size],
            queues: (0..world_size).map(|_| RankQueue::default()).collect(),
            groups: Vec::new(),
            exchanges: HashMap::new(),
            subgroups: HashMap::new(),
            dice: Dice::new(options.seed, usize::MAX - 1, options.delay),
        };
        state.add_group((0..world_size).collect());
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            seed: options.seed,
            delay: options.delay,
            device: options.device.clone(),
        })
    }

    pub(super) fn dice(&self, stream: usize) -> Dice {
        Dice::new(self.seed, stream, self.delay)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, StrictState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until something has changed, or for so long.
    pub(super) fn wait<'a>(
        &self,
        state: MutexGuard<'a, StrictState>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, StrictState> {
        match limit {
            None => self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                let waited = self.changed.wait_timeout(state, limit);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// The state has changed: what can go on does, and what never can is found.
    pub(super) fn settle(&self, mut state: MutexGuard<'_, StrictState>) {
        state.advance();
        state.find_stuck();
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn fail(&self, rank: Rank, reason: &str) {
        let mut state = self.lock();
        let reason = Loss::Failed(reason.to_owned());
        state.fail(WorldFailure::Lost { rank, reason });
        self.settle(state);
    }

    /// A rank has returned; its queue runs on until it is empty.
    pub(super) fn leave(&self, rank: Rank) {
        let mut state = self.lock();
        state.hosts[rank] = Host::Left;
        self.settle(state);
    }

    /// Why the world cannot go on, as a rank sees it.
    pub(super) fn failure(&self, rank: Rank, what: &str) -> Option<Error> {
        let state = self.lock();
        let failure = state.failure.as_ref();
        failure.map(|failure| failure.seen_by(rank, what))
    }
}

impl StrictState {
    pub(super) fn has_left(&self, rank: Rank) -> bool {
        self.hosts[rank] == Host::Left
    }

    /// The first failure stays.
    pub(super) fn fail(&mut self, failure: WorldFailure) {
        self.failure.get_or_insert(failure);
    }

    pub(super) fn add_group(&mut self, ranks: Vec<Rank>) -> usize {
        self.groups.push(Members {
            exchanges: vec![0; ranks.len()],
            collectives: vec![0; ranks.len()],
            messages: HashMap::new(),
            ranks: ranks.into(),
        });
        self.groups.len() - 1
    }

    /// Puts a batch of a member on its queue; which of the queue's batches it is.
    pub(super) fn enqueue(&mut self, group: usize, member: usize, batch: Vec<Call>) -> usize {
        let of = &mut self.groups[group];
        let rank = of.ranks[member];
        let parts = batch.into_iter().map(|call| {
            let count = match call.op {
                Op::Send { dst } => &mut of.messages.entry((member, dst)).or_default()[0],
                Op::Recv { src } => &mut of.messages.entry((src, member)).or_default()[1],
                _ => &mut of.collectives[member],
            };
            *count += 1;
            QueuedCall {
                group,
                number: *count,
                call: Arc::new(call),
                done: None,
            }
        });
        let parts = parts.collect();
        let queue = &mut self.queues[rank];
        queue.batches.push_back(Queued { parts, runs: false });
        queue.ran + queue.batches.len() - 1
    }

    /// Begins a member's next exchange.
    pub(super) fn say(&mut self, group: usize, member: usize, said: Said) -> Result<Exchange> {
        let of = &mut self.groups[group];
        let number = of.exchanges[member];
        of.exchanges[member] += 1;
        let (ranks, exchange) = (of.ranks.clone(), Exchange { group, number });
        let (all, _) = (self.exchanges.entry(exchange)).or_insert((vec![None; ranks.len()], 0));
        let name = |said: &Said| match said {
            Said::Bytes(_) => "control exchange",
            Said::Split { .. } => "split",
        };
        let others = all.iter().enumerate();
        let other = others.filter_map(|(i, other)| Some((i, name(other.as_ref()?))));
        let differs = other.clone().find(|(_, other)| *other != name(&said));
        if let Some((other, theirs)) = differs {
            let error = Error::Disagree {
                rank: ranks[member],
                other: ranks[other],
                mine: name(&said).into(),
                theirs: theirs.into(),
            };
            self.fail(WorldFailure::of(&error));
            return Err(error);
        }
        all[member] = Some(said);
        Ok(exchange)
    }

    /// What was said in an exchange that all have joined; the last to hear it clears it away.
    pub(super) fn hear(&mut self, exchange: Exchange) -> Vec<Said> {
        let Some((said, heard)) = self.exchanges.get_mut(&exchange) else {
            return Vec::new();
        };
        *heard += 1;
        let all = said.iter().flatten().cloned().collect();
        if *heard == said.len() {
            self.exchanges.remove(&exchange);
        }
        all
    }

    /// The group of a color after a split, whose members are these.
    pub(super) fn subgroup(&mut self, split: Exchange, color: usize, ranks: Vec<Rank>) -> usize {
        match self.subgroups.get(&(split, color)) {
            Some(group) => *group,
            None => {
                let group = self.add_group(ranks);
                self.subgroups.insert((split, color), group);
                group
            }
        }
    }

    /// The part of a rank's queue that answers to another's, and whether its queue runs it.
    pub(super) fn find(
        &self,
        rank: Rank,
        fits: impl Fn(&QueuedCall) -> bool,
    ) -> Option<(&Queued, &QueuedCall)> {
        let mut batches = self.queues[rank].batches.iter();
        batches.find_map(|batch| Some((batch, batch.parts.iter().find(|part| fits(part))?)))
    }
}
