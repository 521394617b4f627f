//! One rank's end of a group of threads.

use super::{
    agree::{CallSpecs, agree},
    board::{BoardId, Message, Post, PostedCall},
    circle::Waits,
    finish::finish,
    queues::RankQueues,
    state::{Activity, Target, World, WorldFailure, WorldState},
};
use crate::{Backend, Call, Error, Loss, Op, Result, Spec, Ticket, sync::MutexGuard};
use std::{sync::Arc, time::Duration};
use xdit_kernels::{Device, Event, Tensor};

#[derive(Debug, Clone)]
pub(super) struct Member {
    world: Arc<World>,
    /// The board of the data plane; that of the control plane follows it.
    data: BoardId,
    rank: usize,
    /// World ranks, in group order.
    members: Arc<[usize]>,
    /// None for a rank that takes tensors as they come.
    queues: Option<Arc<RankQueues>>,
}

impl Member {
    /// A rank of a whole world. Received tensors are of its `device`, or of their senders' without one.
    pub(super) fn of_world(world: Arc<World>, rank: usize, device: Option<Device>) -> Self {
        let members = world.lock().boards[0].members.clone();
        Self {
            world,
            data: 0,
            rank,
            members,
            queues: device.map(RankQueues::new),
        }
    }

    fn control(&self) -> BoardId {
        self.data + 1
    }

    fn world_rank(&self) -> usize {
        self.members[self.rank]
    }

    /// The shared state, if nothing has failed; notes that this rank makes progress.
    fn enter(&self, what: &str) -> Result<MutexGuard<'_, WorldState>> {
        let mut state = self.world.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.seen_by(self.world_rank(), what));
        }
        state.computes(self.world_rank());
        Ok(state)
    }

    /// Puts this rank's part of the next collective on a board; its round.
    fn post(&self, board: BoardId, post: Post, what: &str) -> Result<usize> {
        let mut state = self.enter(what)?;
        let board = &mut state.boards[board];
        let number = board.begin_round(self.rank);
        let posts = &mut board.round(number).posts;
        let differs = |(j, other): (usize, &Option<Post>)| {
            let fits = match (&post, other.as_ref()?) {
                (Post::Call(mine), Post::Call(theirs)) => {
                    agree(self.rank, &mine.specs, j, &theirs.specs)
                }
                (Post::Split { .. }, Post::Split { .. }) | (Post::Bytes(_), Post::Bytes(_)) => true,
                _ => false,
            };
            (!fits).then_some(j)
        };
        let disagreement = posts.iter().enumerate().find_map(differs);
        if let Some(j) = disagreement {
            let show = |p: &Post| match p {
                Post::Call(posted) => posted.specs.to_string(),
                Post::Split { .. } => "split".into(),
                Post::Bytes(_) => CONTROL.into(),
            };
            let error = Error::Disagree {
                rank: self.world_rank(),
                other: self.members[j],
                mine: show(&post),
                theirs: posts[j].as_ref().map(show).unwrap_or_default(),
            };
            self.world.fail(state, WorldFailure::of(&error));
            return Err(error);
        }
        posts[self.rank] = Some(post);
        state.wake_complete();
        drop(state);
        self.world.changed.notify_all();
        Ok(number)
    }

    /// Waits until nothing is missing, for up to `limit` if there is one; the state then, locked.
    fn wait_for(
        &self,
        board: BoardId,
        target: &Target,
        what: &str,
        limit: Option<Duration>,
    ) -> Result<MutexGuard<'_, WorldState>> {
        let mut state = self.world.lock();
        let until = limit.map(|limit| state.until(limit));
        loop {
            let me = self.world_rank();
            if let Some(failure) = &state.failure {
                return Err(failure.seen_by(me, what));
            }
            if state.missing(board, target).is_empty() {
                state.computes(me);
                return Ok(state);
            }
            state.ranks[me] = Activity::Waiting {
                board,
                target: target.clone(),
                what: what.to_owned(),
                until,
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

    fn ticket(&self, target: Target, call: Arc<Call>) -> Started {
        Started {
            member: self.clone(),
            target,
            call,
            open: true,
        }
    }

    /// Tensors that ranks sent, in the order of this rank's queue.
    fn receive(&self, sent: Vec<Event>, tensors: Vec<Tensor>) -> Result<Vec<Tensor>> {
        match &self.queues {
            Some(queues) => queues.receive(&sent, &tensors),
            None => Ok(tensors),
        }
    }

    /// A call's ticket; none for a send, which is done when posted: the tensor is shared with the receiver.
    fn start_one(&self, mut call: Call, sent: Option<Event>) -> Result<Option<Started>> {
        match call.op {
            Op::Send { dst } => {
                let mut state = self.enter(call.op.name())?;
                let lane = state.boards[self.data].lane(self.rank, dst);
                lane.send(call.gives.pop().map(|tensor| Message { tensor, sent }));
                state.wake_complete();
                drop(state);
                self.world.changed.notify_all();
                Ok(None)
            }
            Op::Recv { src } => {
                let mut state = self.enter(call.op.name())?;
                let number = state.boards[self.data].lane(src, self.rank).begin_recv();
                drop(state);
                let target = Target::Message {
                    src,
                    dst: self.rank,
                    number,
                };
                Ok(Some(self.ticket(target, Arc::new(call))))
            }
            _ => {
                let call = Arc::new(call);
                let post = Post::Call(PostedCall {
                    specs: CallSpecs::of(&call),
                    call: call.clone(),
                    sent,
                });
                let number = self.post(self.data, post, call.op.name())?;
                Ok(Some(self.ticket(Target::Round(number), call)))
            }
        }
    }
}

/// An exchange of the control plane, as errors name it.
const CONTROL: &str = "control exchange";

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

    fn device(&self) -> Option<&Device> {
        self.queues.as_deref().map(RankQueues::compute)
    }

    /// Messages are numbered when they are started, so that their order is that of the starts.
    fn receives_ahead(&self) -> bool {
        true
    }

    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Ticket>> {
        // One event for all that the batch gives: this rank's queue made it.
        let gives = batch.iter().any(|call| !call.gives.is_empty());
        let sent = self.device().filter(|_| gives).map(Device::record);
        let started = batch
            .into_iter()
            .filter_map(|call| self.start_one(call, sent.clone()).transpose());
        Ok(Box::new(Batch(started.collect::<Result<_>>()?)))
    }

    fn start_control(
        &self,
        bytes: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<Box<dyn Ticket<Vec<Vec<u8>>>>> {
        let number = self.post(self.control(), Post::Bytes(bytes), CONTROL)?;
        Ok(Box::new(PendingExchange {
            member: self.clone(),
            number,
            deadline,
            open: true,
        }))
    }

    fn fail(&self, reason: &str) {
        let rank = self.world_rank();
        let reason = Loss::Failed(reason.to_owned());
        let state = self.world.lock();
        self.world.fail(state, WorldFailure::Lost { rank, reason });
    }

    fn split(&self, color: usize, key: usize) -> Result<Box<dyn Backend>> {
        let data = self.data;
        let number = self.post(data, Post::Split { color, key }, "split")?;
        let mut state = self.wait_for(data, &Target::Round(number), "split", None)?;
        let own = state.subgroup(data, number, color);
        let members = state.boards[own].members.clone();
        state.boards[data].take_round(number);
        drop(state);
        let me = self.world_rank();
        let rank = members.iter().position(|m| *m == me).unwrap_or_default();
        Ok(Box::new(Self {
            world: self.world.clone(),
            data: own,
            rank,
            members,
            queues: self.queues.clone(),
        }))
    }
}

/// What a batch waits for.
#[derive(Debug)]
struct Batch(Vec<Started>);

impl Ticket for Batch {
    fn wait(self: Box<Self>) -> Result<Vec<Tensor>> {
        let arrived = self.0.into_iter().map(Started::wait);
        Ok(arrived.collect::<Result<Vec<_>>>()?.concat())
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
    /// A dropped ticket: the result is discarded, so that no message stays behind.
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let mut state = self.member.world.lock();
        match self.target {
            Target::Round(number) => state.boards[self.member.data].take_round(number),
            Target::Message { src, dst, number } => {
                state.boards[self.member.data]
                    .lane(src, dst)
                    .abandon(number);
            }
        }
    }
}

impl Started {
    fn wait(mut self) -> Result<Vec<Tensor>> {
        let what = self.call.to_string();
        let member = self.member.clone();
        let mut state = member.wait_for(member.data, &self.target, &what, None)?;
        self.open = false;
        match self.target {
            Target::Message { src, dst, number } => {
                let lane = state.boards[member.data].lane(src, dst);
                let message = lane.arrived.remove(&number);
                let matches = message
                    .as_ref()
                    .is_some_and(|message| self.call.expects == [Spec::of(&message.tensor)]);
                match message {
                    Some(Message { tensor, sent }) if matches => {
                        drop(state);
                        let others = (src != dst).then_some(sent).flatten();
                        member.receive(others.into_iter().collect(), vec![tensor])
                    }
                    other => {
                        let error = Error::Disagree {
                            rank: member.world_rank(),
                            other: member.members[src],
                            mine: what,
                            theirs: format!(
                                "send to {dst}, gives {:?}",
                                other
                                    .iter()
                                    .map(|message| Spec::of(&message.tensor))
                                    .collect::<Vec<_>>()
                            ),
                        };
                        member.world.fail(state, WorldFailure::of(&error));
                        Err(error)
                    }
                }
            }
            Target::Round(number) => {
                let round = state.boards[member.data].round(number);
                let posted = round.posts.iter().filter_map(|post| match post {
                    Some(Post::Call(posted)) => Some((posted.call.clone(), posted.sent.clone())),
                    _ => None,
                });
                let (calls, mut sent): (Vec<Arc<Call>>, Vec<Option<Event>>) = posted.unzip();
                let reduced = round.reduced.clone();
                state.boards[member.data].take_round(number);
                drop(state);
                let tensors = finish(self.call.op, member.rank, &calls, &reduced)?;
                // Its own work is in order.
                sent[member.rank] = None;
                member.receive(sent.into_iter().flatten().collect(), tensors)
            }
        }
    }
}

/// An exchange of the control plane under way.
#[derive(Debug)]
struct PendingExchange {
    member: Member,
    number: usize,
    deadline: Option<Duration>,
    open: bool,
}

impl Drop for PendingExchange {
    fn drop(&mut self) {
        if self.open {
            let mut state = self.member.world.lock();
            // After a failure nothing is kept.
            state.boards[self.member.control()].take_round(self.number);
        }
    }
}

impl Ticket<Vec<Vec<u8>>> for PendingExchange {
    fn wait(mut self: Box<Self>) -> Result<Vec<Vec<u8>>> {
        let (member, number) = (self.member.clone(), self.number);
        let (board, target) = (member.control(), Target::Round(self.number));
        let mut state = member.wait_for(board, &target, CONTROL, self.deadline)?;
        self.open = false;
        let posts = &state.boards[board].round(number).posts;
        let bytes = posts.iter().map(|post| match post {
            Some(Post::Bytes(bytes)) => bytes.clone(),
            _ => Vec::new(),
        });
        let bytes = bytes.collect();
        state.boards[board].take_round(number);
        Ok(bytes)
    }
}
