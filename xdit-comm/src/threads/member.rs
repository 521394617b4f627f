//! One rank's end of a group of threads.

use super::{
    agree::agree,
    state::{Activity, Failure, GroupId, Lane, Post, Round, State, Target, World},
};
use crate::{Backend, Call, Error, Op, ReduceOp, Result, Spec, Ticket, sync::MutexGuard};
use std::sync::{Arc, OnceLock};
use xdit_kernels::{Device, Tensor};

#[derive(Debug, Clone)]
pub(super) struct Member {
    world: Arc<World>,
    group: GroupId,
    rank: usize,
    /// World ranks, in group order.
    members: Arc<[usize]>,
}

impl Member {
    pub(super) fn of_world(world: Arc<World>, rank: usize) -> Self {
        let members = world.lock().boards[0].members.clone();
        Self {
            world,
            group: 0,
            rank,
            members,
        }
    }

    fn world_rank(&self) -> usize {
        self.members[self.rank]
    }

    /// The shared state, if nothing has failed; notes that this rank makes progress.
    fn enter(&self, what: &str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.world.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.seen_by(self.world_rank(), what));
        }
        state.computes(self.world_rank());
        Ok(state)
    }

    /// Puts this rank's part of the next collective on the board; its round.
    fn post(&self, post: Post, what: &str) -> Result<usize> {
        let mut state = self.enter(what)?;
        let board = &mut state.boards[self.group];
        let number = board.next_round[self.rank];
        board.next_round[self.rank] += 1;
        let index = number - board.first_round;
        while board.rounds.len() <= index {
            board.rounds.push_back(Round {
                posts: vec![None; self.members.len()],
                taken: 0,
                reduced: Arc::new(OnceLock::new()),
                subgroups: None,
            });
        }
        let posts = &mut board.rounds[index].posts;
        let differs = |(j, other): (usize, &Option<Post>)| {
            let fits = match (&post, other.as_ref()?) {
                (Post::Call(mine), Post::Call(theirs)) => agree(self.rank, mine, j, theirs),
                (Post::Split { .. }, Post::Split { .. }) => true,
                _ => false,
            };
            (!fits).then_some(j)
        };
        let disagreement = posts.iter().enumerate().find_map(differs);
        if let Some(j) = disagreement {
            let show = |p: &Post| match p {
                Post::Call(call) => call.to_string(),
                Post::Split { .. } => "split".into(),
            };
            let error = Error::Disagree {
                rank: self.world_rank(),
                other: self.members[j],
                mine: show(&post),
                theirs: posts[j].as_ref().map(show).unwrap_or_default(),
            };
            self.world.fail(state, Failure::Disagree(error.clone()));
            return Err(error);
        }
        posts[self.rank] = Some(post);
        state.wake_complete();
        drop(state);
        self.world.changed.notify_all();
        Ok(number)
    }

    /// Waits until nothing is missing; the state then, locked.
    fn wait_for(&self, target: &Target, what: &str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.world.lock();
        loop {
            let me = self.world_rank();
            if let Some(failure) = &state.failure {
                return Err(failure.seen_by(me, what));
            }
            if state.missing(self.group, target).is_empty() {
                state.computes(me);
                return Ok(state);
            }
            state.ranks[me] = Activity::Waiting {
                group: self.group,
                target: target.clone(),
                what: what.to_owned(),
            };
            state = match state.diagnose(me) {
                Ok(()) => self.world.wait(state),
                Err(failure) => {
                    self.world.fail(state, failure);
                    self.world.lock()
                }
            };
        }
    }

    /// This rank is done with a round: the last one clears it away.
    fn take_round(&self, state: &mut State, number: usize) {
        let count = self.members.len();
        let board = &mut state.boards[self.group];
        if let Some(round) = number
            .checked_sub(board.first_round)
            .and_then(|i| board.rounds.get_mut(i))
        {
            round.taken += 1;
        }
        while board.rounds.front().is_some_and(|r| r.taken == count) {
            board.rounds.pop_front();
            board.first_round += 1;
        }
    }

    fn ticket(&self, target: Target, call: Arc<Call>) -> Box<dyn Ticket> {
        Box::new(Started {
            member: self.clone(),
            target,
            call,
            open: true,
        })
    }
}

impl Backend for Member {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.members.len()
    }

    fn progress(&self) -> Result<()> {
        match self.world.progress(self.world_rank()) {
            true => self.enter("between two calls").map(drop),
            false => Ok(()),
        }
    }

    fn start(&self, mut call: Call) -> Result<Box<dyn Ticket>> {
        match call.op {
            Op::Send { dst } => {
                let mut state = self.enter(call.op.name())?;
                let lane = state.boards[self.group]
                    .lanes
                    .entry((self.rank, dst))
                    .or_default();
                let number = lane.next_send;
                lane.next_send += 1;
                if !lane.abandoned.remove(&number) {
                    lane.arrived.extend(call.gives.pop().map(|t| (number, t)));
                }
                state.wake_complete();
                drop(state);
                self.world.changed.notify_all();
                Ok(Box::new(Sent))
            }
            Op::Recv { src } => {
                let mut state = self.enter(call.op.name())?;
                let lane: &mut Lane = state.boards[self.group]
                    .lanes
                    .entry((src, self.rank))
                    .or_default();
                let number = lane.next_recv;
                lane.next_recv += 1;
                drop(state);
                let target = Target::Message {
                    src,
                    dst: self.rank,
                    number,
                };
                Ok(self.ticket(target, Arc::new(call)))
            }
            _ => {
                let call = Arc::new(call);
                let number = self.post(Post::Call(call.clone()), call.op.name())?;
                Ok(self.ticket(Target::Round(number), call))
            }
        }
    }

    fn split(&self, color: usize, key: usize) -> Result<Box<dyn Backend>> {
        let number = self.post(Post::Split { color, key }, "split")?;
        let mut state = self.wait_for(&Target::Round(number), "split")?;
        let index = number - state.boards[self.group].first_round;
        let round = &state.boards[self.group].rounds[index];
        let mut colors: Vec<(usize, usize, usize)> = Vec::new();
        for (rank, post) in round.posts.iter().enumerate() {
            if let Some(Post::Split { color, key }) = post {
                colors.push((*color, *key, rank));
            }
        }
        colors.sort_unstable();
        if round.subgroups.is_none() {
            let mut subgroups = std::collections::BTreeMap::new();
            for chunk in colors.chunk_by(|a, b| a.0 == b.0) {
                let members = chunk
                    .iter()
                    .map(|(_, _, rank)| self.members[*rank])
                    .collect();
                subgroups.insert(chunk[0].0, state.add_board(members));
            }
            state.boards[self.group].rounds[index].subgroups = Some(subgroups);
        }
        let subgroups = state.boards[self.group].rounds[index].subgroups.as_ref();
        let group = subgroups
            .and_then(|s| s.get(&color))
            .copied()
            .unwrap_or_default();
        let members = state.boards[group].members.clone();
        self.take_round(&mut state, number);
        drop(state);
        let me = self.world_rank();
        let rank = members.iter().position(|m| *m == me).unwrap_or_default();
        Ok(Box::new(Self {
            world: self.world.clone(),
            group,
            rank,
            members,
        }))
    }
}

/// A send is done when posted: the tensor is shared with the receiver.
#[derive(Debug)]
struct Sent;

impl Ticket for Sent {
    fn wait(self: Box<Self>) -> Result<Vec<Tensor>> {
        Ok(vec![])
    }
}

/// A receive or a collective under way.
#[derive(Debug)]
struct Started {
    member: Member,
    target: Target,
    call: Arc<Call>,
    open: bool,
}

impl Drop for Started {
    /// Not waited for: what arrives for it is thrown away, so that nothing stays behind.
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let mut state = self.member.world.lock();
        match self.target {
            Target::Round(number) => self.member.take_round(&mut state, number),
            Target::Message { src, dst, number } => {
                let lane = state.boards[self.member.group]
                    .lanes
                    .entry((src, dst))
                    .or_default();
                if lane.arrived.remove(&number).is_none() {
                    lane.abandoned.insert(number);
                }
            }
        }
    }
}

impl Ticket for Started {
    fn wait(mut self: Box<Self>) -> Result<Vec<Tensor>> {
        let what = self.call.to_string();
        let member = self.member.clone();
        let mut state = member.wait_for(&self.target, &what)?;
        self.open = false;
        match self.target {
            Target::Message { src, dst, number } => {
                let lane = state.boards[member.group]
                    .lanes
                    .entry((src, dst))
                    .or_default();
                let tensor = lane.arrived.remove(&number);
                let matches = tensor
                    .as_ref()
                    .is_some_and(|t| self.call.expects == [Spec::of(t)]);
                match tensor {
                    Some(tensor) if matches => Ok(vec![tensor]),
                    other => {
                        let error = Error::Disagree {
                            rank: member.world_rank(),
                            other: member.members[src],
                            mine: what,
                            theirs: format!(
                                "send to {dst}, gives {:?}",
                                other.iter().map(Spec::of).collect::<Vec<_>>()
                            ),
                        };
                        member.world.fail(state, Failure::Disagree(error.clone()));
                        Err(error)
                    }
                }
            }
            Target::Round(number) => {
                let board = &state.boards[member.group];
                let round = &board.rounds[number - board.first_round];
                let calls: Vec<Arc<Call>> = round
                    .posts
                    .iter()
                    .filter_map(|p| match p {
                        Some(Post::Call(call)) => Some(call.clone()),
                        _ => None,
                    })
                    .collect();
                let reduced = round.reduced.clone();
                member.take_round(&mut state, number);
                drop(state);
                finish(self.call.op, member.rank, &calls, &reduced)
            }
        }
    }
}

/// What rank `me` gets from everyone's part.
fn finish(
    op: Op,
    me: usize,
    calls: &[Arc<Call>],
    reduced: &OnceLock<Result<Tensor>>,
) -> Result<Vec<Tensor>> {
    let of = |rank: usize, part: usize| calls[rank].gives[part].clone();
    let all = 0..calls.len();
    Ok(match op {
        Op::Send { .. } | Op::Recv { .. } | Op::Barrier => vec![],
        Op::Broadcast { root } => vec![of(root, 0)],
        Op::Scatter { root } => vec![of(root, me)],
        Op::Gather { root } if me != root => vec![],
        Op::Gather { .. } | Op::AllGather => all.map(|r| of(r, 0)).collect(),
        Op::AllToAll => all.map(|r| of(r, me)).collect(),
        Op::AllReduce(how) => {
            let make = || reduce(how, &all.map(|r| of(r, 0)).collect::<Vec<_>>());
            vec![reduced.get_or_init(make).clone()?]
        }
        Op::ReduceScatter(how) => vec![reduce(how, &all.map(|r| of(r, me)).collect::<Vec<_>>())?],
    })
}

/// In rank order and f32, rounded once.
fn reduce(how: ReduceOp, parts: &[Tensor]) -> Result<Tensor> {
    let mut total = parts[0].to_f32_vec();
    for part in &parts[1..] {
        for (sum, x) in total.iter_mut().zip(part.to_f32_vec()) {
            *sum = match how {
                ReduceOp::Sum => *sum + x,
                // NaN stays: a maximum that hides it would hide a fault.
                ReduceOp::Max => {
                    if x > *sum || x.is_nan() {
                        x
                    } else {
                        *sum
                    }
                }
            };
        }
    }
    let device: Device = parts[0].device();
    let view = xdit_kernels::View::from_slice(&total, parts[0].shape())?.on(device);
    Ok(xdit_kernels::layout::cast(view, parts[0].dtype())?)
}
