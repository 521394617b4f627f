//! The messages and the parts of collectives that the ranks of a group have posted.

use super::agree::CallSpecs;
use super::finish::Reduced;
use crate::Call;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, OnceLock},
};
use xdit_kernels::{Event, Tensor};

/// The index of a board in the shared state. A group has two boards, one for its data plane and the next for its control plane.
pub(super) type BoardId = usize;

/// A rank's call of a collective.
#[derive(Debug, Clone)]
pub(super) struct PostedCall {
    pub(super) call: Arc<Call>,
    /// What other ranks compare.
    pub(super) specs: CallSpecs,
    /// Happens when the queue of the rank has made what it gives; none where it gives nothing.
    pub(super) sent: Option<Event>,
}

/// The part that one rank posts in one round.
#[derive(Debug, Clone)]
pub(super) enum Post {
    Call(PostedCall),
    Split {
        color: usize,
        key: usize,
    },
    /// On the control plane.
    Bytes(Vec<u8>),
}

/// One collective of a group: complete when every member has posted, forgotten when every member has taken.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) posts: Vec<Option<Post>>,
    pub(super) taken: usize,
    /// A reduction's result, made by the first rank that takes it.
    pub(super) reduced: Arc<OnceLock<Reduced>>,
    /// The subgroups of a split, by color, made by the first rank that takes it.
    pub(super) subgroups: Option<BTreeMap<usize, BoardId>>,
}

/// A tensor on its way, and the event that happens when its sender's queue has made it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) tensor: Tensor,
    pub(super) sent: Option<Event>,
}

/// Messages of one sender to one receiver, numbered in the order sent.
#[derive(Debug, Default)]
pub(super) struct MessageLane {
    pub(super) arrived: BTreeMap<usize, Message>,
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
    pub(super) lanes: HashMap<(usize, usize), MessageLane>,
}

impl Board {
    fn new(members: Arc<[usize]>) -> Self {
        Self {
            next_round: vec![0; members.len()],
            members,
            rounds: VecDeque::new(),
            first_round: 0,
            lanes: HashMap::new(),
        }
    }

    /// The boards of a new group: of its data plane, then of its control plane.
    pub(super) fn of_group(members: Vec<usize>) -> [Self; 2] {
        let members: Arc<[usize]> = members.into();
        [Self::new(members.clone()), Self::new(members)]
    }

    /// The number of a member's next round.
    pub(super) fn begin_round(&mut self, rank: usize) -> usize {
        let number = self.next_round[rank];
        self.next_round[rank] += 1;
        while self.rounds.len() <= number - self.first_round {
            self.rounds.push_back(Round {
                posts: vec![None; self.members.len()],
                taken: 0,
                reduced: Arc::new(OnceLock::new()),
                subgroups: None,
            });
        }
        number
    }

    /// A round that is still kept.
    pub(super) fn round(&mut self, number: usize) -> &mut Round {
        &mut self.rounds[number - self.first_round]
    }

    /// A member is done with a round: the last one clears it away.
    pub(super) fn take_round(&mut self, number: usize) {
        let count = self.members.len();
        let index = number.checked_sub(self.first_round);
        if let Some(round) = index.and_then(|i| self.rounds.get_mut(i)) {
            round.taken += 1;
        }
        while self.rounds.front().is_some_and(|r| r.taken == count) {
            self.rounds.pop_front();
            self.first_round += 1;
        }
    }

    /// Whether nothing that was started is left.
    pub(super) fn is_quiet(&self) -> bool {
        let open =
            |lane: &MessageLane| lane.next_send != lane.next_recv || !lane.arrived.is_empty();
        self.rounds.is_empty() && !self.lanes.values().any(open)
    }

    pub(super) fn lane(&mut self, src: usize, dst: usize) -> &mut MessageLane {
        self.lanes.entry((src, dst)).or_default()
    }
}

impl MessageLane {
    /// The next message, unless nobody wants it any more.
    pub(super) fn send(&mut self, message: Option<Message>) {
        let number = self.next_send;
        self.next_send += 1;
        if !self.abandoned.remove(&number) {
            self.arrived
                .extend(message.map(|message| (number, message)));
        }
    }

    /// The number of the message that is received next.
    pub(super) fn begin_recv(&mut self) -> usize {
        self.next_recv += 1;
        self.next_recv - 1
    }

    /// A message is not wanted any more.
    pub(super) fn abandon(&mut self, number: usize) {
        if self.arrived.remove(&number).is_none() {
            self.abandoned.insert(number);
        }
    }
}
