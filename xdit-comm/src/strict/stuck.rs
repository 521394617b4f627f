//! Finds deadlocks: ranks and queues that wait for each other for ever.

use super::world::{Host, QueuedCall, Rank, StrictState};
use crate::{Error, Loss, Op, threads::state::WorldFailure};

/// What can wait: the thread of a rank, or its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Host(Rank),
    Queue(Rank),
}

/// What something waits for, and in which words.
struct Wait {
    on: Node,
    why: String,
}

fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(" and ")
}

impl StrictState {
    /// Looks for a circle of ranks and queues that wait for each other, and for what waits for a rank that has returned. Each waits
    /// for all that it needs, so that a circle never opens.
    pub(super) fn find_stuck(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let ranks = self.hosts.len();
        let nodes = (0..ranks).flat_map(|rank| [Node::Host(rank), Node::Queue(rank)]);
        let found = nodes.into_iter().find_map(|node| self.stuck_from(node));
        if let Some(failure) = found {
            self.fail(failure);
        }
    }

    fn stuck_from(&self, start: Node) -> Option<WorldFailure> {
        let mut seen = vec![start];
        let mut path: Vec<(Node, Vec<Wait>, String)> =
            vec![(start, self.waits(start), String::new())];
        while let Some((_, left, _)) = path.last_mut() {
            let Some(Wait { on, why }) = left.pop() else {
                path.pop();
                continue;
            };
            if let Some(from) = path.iter().position(|(node, ..)| *node == on) {
                // The words stand with what they lead to.
                let mut words: Vec<&str> =
                    path[from + 1..].iter().map(|(.., why)| &**why).collect();
                words.push(&why);
                return Some(WorldFailure::Disagree(Error::Deadlock(words.join("; "))));
            }
            if let Node::Host(rank) = on
                && self.hosts[rank] == Host::Left
            {
                let reason = Loss::Failed(format!("it has returned, and {why}"));
                return Some(WorldFailure::Lost { rank, reason });
            }
            if !seen.contains(&on) {
                seen.push(on);
                path.push((on, self.waits(on), why));
            }
        }
        None
    }

    fn waits(&self, node: Node) -> Vec<Wait> {
        match node {
            Node::Host(rank) => self.waits_of_host(rank),
            Node::Queue(rank) => self.waits_of_queue(rank),
        }
    }

    fn waits_of_host(&self, rank: Rank) -> Vec<Wait> {
        match &self.hosts[rank] {
            Host::Runs | Host::Left => vec![],
            Host::Batch(number) => {
                let why = format!("rank {rank} waits for its queue");
                let on = Node::Queue(rank);
                match *number < self.queues[rank].ran {
                    true => vec![],
                    false => vec![Wait { on, why }],
                }
            }
            Host::Exchange(exchange) => {
                let Some((said, _)) = self.exchanges.get(exchange) else {
                    return vec![];
                };
                let members = self.groups[exchange.group].ranks.iter().zip(said);
                let silent = members.filter(|(_, said)| said.is_none());
                let wait = |(other, _): (&Rank, _)| Wait {
                    on: Node::Host(*other),
                    why: format!(
                        "rank {rank} waits in an exchange of the control plane, which rank {other} has not joined"
                    ),
                };
                silent.map(wait).collect()
            }
        }
    }

    fn waits_of_queue(&self, rank: Rank) -> Vec<Wait> {
        let Some(front) = self.queues[rank].batches.front().filter(|front| front.runs) else {
            return vec![];
        };
        let open = front.parts.iter().filter(|part| part.done.is_none());
        open.flat_map(|part| self.waits_of_part(rank, part))
            .collect()
    }

    fn waits_of_part(&self, rank: Rank, part: &QueuedCall) -> Vec<Wait> {
        let ranks = &self.groups[part.group].ranks;
        let me = ranks
            .iter()
            .position(|other| *other == rank)
            .unwrap_or_default();
        let (peers, wanted) = match part.call.op {
            Op::Send { dst } => (vec![ranks[dst]], Op::Recv { src: me }),
            Op::Recv { src } => (vec![ranks[src]], Op::Send { dst: me }),
            op => (ranks.to_vec(), op),
        };
        let fits = |other: &QueuedCall| {
            let same = match wanted {
                Op::Send { .. } | Op::Recv { .. } => other.call.op == wanted,
                _ => other.call.op.is_collective(),
            };
            same && (other.group, other.number) == (part.group, part.number)
        };
        let wait = |peer: Rank| {
            let needs = format!("rank {rank}'s queue runs {}", part.call.op);
            let needs = format!("{needs} and needs rank {peer}'s {wanted}");
            match self.find(peer, fits) {
                // It runs, or will.
                Some((batch, _)) if batch.runs => None,
                Some(_) => {
                    let front = self.queues[peer].batches.front()?;
                    front.runs.then(|| Wait {
                        on: Node::Queue(peer),
                        why: format!(
                            "{needs}, which is queued behind {}",
                            list(
                                front
                                    .parts
                                    .iter()
                                    .filter(|p| p.done.is_none())
                                    .map(|p| p.call.op.to_string())
                            )
                        ),
                    })
                }
                None => Some(Wait {
                    on: Node::Host(peer),
                    why: format!("{needs}, which rank {peer} has not started"),
                }),
            }
        };
        let others = peers
            .into_iter()
            .filter(|peer| *peer != rank || !part.call.op.is_collective());
        others.filter_map(wait).collect()
    }
}
