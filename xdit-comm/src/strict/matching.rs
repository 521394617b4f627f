//! Matches the calls that run with each other, and completes them.

use super::world::{QueuedCall, Rank, StrictState};
use crate::{
    Call, Error, Op, Spec,
    threads::{
        agree::{CallSpecs, agree},
        finish::finish,
        state::WorldFailure,
    },
};
use std::sync::OnceLock;

impl StrictState {
    fn running(&self, rank: Rank, fits: impl Fn(&QueuedCall) -> bool) -> Option<&QueuedCall> {
        let (batch, part) = self.find(rank, fits)?;
        batch.runs.then_some(part)
    }

    fn part_mut(
        &mut self,
        rank: Rank,
        fits: impl Fn(&QueuedCall) -> bool,
    ) -> Option<&mut QueuedCall> {
        let front = self.queues[rank].batches.front_mut()?;
        front.parts.iter_mut().find(|part| fits(part))
    }

    /// Ends every call whose counterparts run too.
    pub(super) fn advance(&mut self) {
        while self.failure.is_none() {
            let calls = self.queues.iter().enumerate().flat_map(|(rank, queue)| {
                let front = queue.batches.front().filter(|front| front.runs);
                let parts = front.into_iter().flat_map(|front| &front.parts);
                let open = parts.filter(|part| part.done.is_none());
                open.map(move |part| (rank, part.group, part.number, part.call.clone()))
            });
            let calls: Vec<_> = calls.collect();
            let went_on = calls.into_iter().any(|(rank, group, number, call)| {
                let ranks = self.groups[group].ranks.clone();
                match call.op {
                    // Seen from the receiver.
                    Op::Send { .. } => false,
                    Op::Recv { src } => self.pass(rank, &ranks, group, number, src, &call),
                    _ => self.collect(&ranks, group, number),
                }
            });
            if !went_on {
                return;
            }
        }
    }

    /// Hands over a message, if its send runs too.
    fn pass(
        &mut self,
        rank: Rank,
        ranks: &[Rank],
        group: usize,
        number: usize,
        src: usize,
        call: &Call,
    ) -> bool {
        let me = ranks.iter().position(|other| *other == rank);
        let sent = |part: &QueuedCall| {
            let to_me = matches!(part.call.op, Op::Send { dst } if Some(dst) == me);
            part.group == group && part.number == number && to_me
        };
        let Some(send) = self.running(ranks[src], sent).map(|part| part.call.clone()) else {
            return false;
        };
        let given: Vec<Spec> = send.gives.iter().map(Spec::of).collect();
        if given != call.expects {
            self.fail(WorldFailure::Disagree(Error::Disagree {
                rank,
                other: ranks[src],
                mine: call.to_string(),
                theirs: send.to_string(),
            }));
            return false;
        }
        if let Some(part) = self.part_mut(ranks[src], sent) {
            part.done = Some(vec![]);
        }
        let receives = |part: &QueuedCall| {
            part.group == group && part.number == number && part.call.op == Op::Recv { src }
        };
        if let Some(part) = self.part_mut(rank, receives) {
            part.done = Some(send.gives.clone());
        }
        true
    }

    /// Ends a collective, if all run it.
    fn collect(&mut self, ranks: &[Rank], group: usize, number: usize) -> bool {
        let here = |part: &QueuedCall| {
            part.group == group && part.number == number && part.call.op.is_collective()
        };
        let calls = ranks.iter().map(|rank| self.running(*rank, here));
        let calls: Vec<_> = calls
            .map(|part| part.map(|part| part.call.clone()))
            .collect();
        let known = || {
            calls
                .iter()
                .enumerate()
                .filter_map(|(i, c)| Some((i, c.as_ref()?)))
        };
        for ((i, a), (j, b)) in known().flat_map(|a| known().map(move |b| (a, b))) {
            if i < j && !agree(i, &CallSpecs::of(a), j, &CallSpecs::of(b)) {
                self.fail(WorldFailure::Disagree(Error::Disagree {
                    rank: ranks[i],
                    other: ranks[j],
                    mine: a.to_string(),
                    theirs: b.to_string(),
                }));
                return false;
            }
        }
        let Some(mut calls) = calls.into_iter().collect::<Option<Vec<_>>>() else {
            return false;
        };
        let op = calls[0].op;
        if matches!(op, Op::AllReduce(_) | Op::ReduceScatter(_)) {
            // In some order.
            let order = self.dice.order(calls.len());
            calls = order.into_iter().map(|i| calls[i].clone()).collect();
        }
        let reduced = OnceLock::new();
        for (me, rank) in ranks.iter().enumerate() {
            match finish(op, me, &calls, &reduced) {
                Ok(tensors) => {
                    if let Some(part) = self.part_mut(*rank, here) {
                        part.done = Some(tensors);
                    }
                }
                Err(error) => self.fail(WorldFailure::Disagree(error)),
            }
        }
        true
    }
}
