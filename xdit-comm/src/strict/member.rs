//! One rank's end of a group.

use super::{
    dice::Dice,
    world::{Exchange, Host, Rank, Said, StrictState, StrictWorld, TICK, lost},
};
use crate::{Backend, Call, Error, Group, Loss, Result, Ticket, threads::state::WorldFailure};
use std::{
    sync::{Arc, MutexGuard},
    time::{Duration, Instant},
};
use xdit_kernels::Tensor;

#[derive(Debug, Clone)]
pub(super) struct StrictMember {
    world: Arc<StrictWorld>,
    group: usize,
    rank: usize,
    /// Ranks of the world, in group order.
    members: Arc<[Rank]>,
    dice: Arc<Dice>,
    /// The threads that run the ranks: who makes progress is theirs to know.
    ranks: Group,
}

impl StrictMember {
    pub(super) fn of_world(world: Arc<StrictWorld>, rank: Rank, ranks: Group) -> Self {
        let members = world.lock().groups[0].ranks.clone();
        let dice = Arc::new(world.dice(2 * rank));
        Self {
            world,
            group: 0,
            rank,
            members,
            dice,
            ranks,
        }
    }

    fn world_rank(&self) -> Rank {
        self.members[self.rank]
    }

    /// The shared state, if nothing had failed.
    fn enter(&self, what: &str) -> Result<MutexGuard<'_, StrictState>> {
        // First what this world knows: what the ranks' threads know follows from it.
        let failed = self.world.failure(self.world_rank(), what);
        failed.map_or(Ok(()), Err)?;
        self.ranks.progress()?;
        Ok(self.world.lock())
    }

    /// Waits for what `host` says until it is there, for up to `limit` if there is one; the state then.
    fn wait_for(
        &self,
        host: &Host,
        limit: Option<Duration>,
        there: impl Fn(&StrictState) -> bool,
        late: impl Fn(&StrictState) -> Option<Rank>,
    ) -> Result<MutexGuard<'_, StrictState>> {
        let (me, began) = (self.world_rank(), Instant::now());
        let mut state = self.world.lock();
        state.hosts[me] = host.clone();
        self.world.settle(state);
        state = self.world.lock();
        loop {
            let overdue = limit.filter(|limit| began.elapsed() >= *limit);
            if let (Some(limit), Some(rank)) = (overdue, late(&state)) {
                let reason = Loss::NoAnswer(limit);
                state.fail(WorldFailure::Lost { rank, reason });
                self.world.settle(state);
                state = self.world.lock();
            }
            if let Some(failure) = &state.failure {
                return Err(failure.seen_by(me, "wait"));
            }
            if there(&state) {
                state.hosts[me] = Host::Runs;
                return Ok(state);
            }
            let left = limit.map_or(TICK, |limit| {
                limit.saturating_sub(began.elapsed()).min(TICK)
            });
            state = self.world.wait(state, Some(left));
            if let Some(failure) = lost(&self.ranks) {
                state.fail(failure);
                self.world.settle(state);
                state = self.world.lock();
            }
        }
    }

    fn hear(&self, exchange: Exchange, limit: Option<Duration>) -> Result<Vec<Said>> {
        let silent = move |state: &StrictState| {
            let (said, _) = state.exchanges.get(&exchange)?;
            let silent = said.iter().position(Option::is_none)?;
            Some(state.groups[exchange.group].ranks[silent])
        };
        let there = |state: &StrictState| silent(state).is_none();
        let mut state = self.wait_for(&Host::Exchange(exchange), limit, there, silent)?;
        Ok(state.hear(exchange))
    }
}

impl Backend for StrictMember {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.members.len()
    }

    fn receives_ahead(&self) -> bool {
        false
    }

    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Ticket>> {
        self.dice.pause();
        for call in &batch {
            let foreign = call.gives.iter().find(|t| *t.device() != self.world.device);
            if let Some(foreign) = foreign {
                return Err(Error::Argument {
                    op: call.op.name(),
                    rank: self.rank,
                    world_size: self.world_size(),
                    expected: format!("tensors of {}", self.world.device),
                    got: format!("one of {}", foreign.device()),
                });
            }
        }
        let mut state = self.enter("start")?;
        let number = state.enqueue(self.group, self.rank, batch);
        self.world.settle(state);
        Ok(Box::new(BatchUnderWay {
            member: self.clone(),
            number,
            open: true,
        }))
    }

    fn start_control(
        &self,
        bytes: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<Box<dyn Ticket<Vec<Vec<u8>>>>> {
        self.dice.pause();
        let mut state = self.enter("control exchange")?;
        let exchange = state.say(self.group, self.rank, Said::Bytes(bytes));
        self.world.settle(state);
        Ok(Box::new(ExchangeUnderWay {
            member: self.clone(),
            exchange: exchange?,
            deadline,
            open: true,
        }))
    }

    fn fail(&self, reason: &str) {
        self.world.fail(self.world_rank(), reason);
    }

    fn split(&self, color: usize, key: usize) -> Result<Box<dyn Backend>> {
        let mut state = self.enter("split")?;
        let split = state.say(self.group, self.rank, Said::Split { color, key });
        self.world.settle(state);
        let split = split?;
        let said = self.hear(split, None)?;
        let mut of_color: Vec<(usize, Rank)> = said
            .iter()
            .zip(&*self.members)
            .filter_map(|(said, rank)| match said {
                Said::Split { color: theirs, key } if *theirs == color => Some((*key, *rank)),
                _ => None,
            })
            .collect();
        // Stable: ranks of one key stay in order.
        of_color.sort_by_key(|(key, _)| *key);
        let members: Vec<Rank> = of_color.into_iter().map(|(_, rank)| rank).collect();
        let me = self.world_rank();
        let rank = members.iter().position(|m| *m == me).unwrap_or_default();
        let group = self.world.lock().subgroup(split, color, members.clone());
        Ok(Box::new(Self {
            group,
            rank,
            members: members.into(),
            ..self.clone()
        }))
    }

    fn progress(&self) -> Result<()> {
        self.enter("between two calls").map(drop)
    }
}

/// A batch under way.
#[derive(Debug)]
struct BatchUnderWay {
    member: StrictMember,
    number: usize,
    open: bool,
}

impl Ticket for BatchUnderWay {
    fn wait(mut self: Box<Self>) -> Result<Vec<Tensor>> {
        let member = self.member.clone();
        member.dice.pause();
        let (number, rank) = (self.number, member.world_rank());
        let ran = move |state: &StrictState| number < state.queues[rank].ran;
        let mut state = member.wait_for(&Host::Batch(number), None, ran, |_| None)?;
        self.open = false;
        let brought = state.queues[rank].brought.remove(&number);
        Ok(brought.flatten().unwrap_or_default())
    }
}

impl Drop for BatchUnderWay {
    /// What it brings will not be asked for; it runs on.
    fn drop(&mut self) {
        if self.open {
            let mut state = self.member.world.lock();
            let queue = &mut state.queues[self.member.world_rank()];
            if queue.brought.remove(&self.number).is_none() {
                queue.brought.insert(self.number, None);
            }
        }
    }
}

/// An exchange of the control plane under way.
#[derive(Debug)]
struct ExchangeUnderWay {
    member: StrictMember,
    exchange: Exchange,
    deadline: Option<Duration>,
    open: bool,
}

impl Ticket<Vec<Vec<u8>>> for ExchangeUnderWay {
    fn wait(mut self: Box<Self>) -> Result<Vec<Vec<u8>>> {
        self.member.dice.pause();
        let said = self.member.hear(self.exchange, self.deadline)?;
        self.open = false;
        let bytes = said.into_iter().map(|said| match said {
            Said::Bytes(bytes) => bytes,
            Said::Split { .. } => Vec::new(),
        });
        Ok(bytes.collect())
    }
}

impl Drop for ExchangeUnderWay {
    fn drop(&mut self) {
        if self.open {
            self.member.world.lock().hear(self.exchange);
        }
    }
}
