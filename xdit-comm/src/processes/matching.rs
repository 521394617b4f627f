//! What the ranks have started and what they wait for, as rank 0 knows it. No tensor is here, only what calls say of theirs.

use super::wire::{Awaited, Frame, MAX_EXCHANGE, Posted};
use crate::{
    Error, Op, Spec,
    threads::{
        agree::{CallSpecs, agree},
        circle::{Doing, Waits},
        state::WorldFailure,
    },
};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// The most calls that a rank may have started before others have, in the mean over all ranks.
const MAX_AHEAD: usize = 1 << 16;

/// Why a frame of a rank is not accepted.
#[derive(Debug)]
pub(super) enum Rejected {
    /// No rank sends this.
    Nonsense(String),
    /// The world has failed.
    Failure(WorldFailure),
}

impl Rejected {
    fn nonsense<T>(what: impl Into<String>) -> Result<T, Self> {
        Err(Self::Nonsense(what.into()))
    }
}

/// Frames to world ranks.
pub(super) type Letters = Vec<(Vec<usize>, Frame)>;

/// Messages from one rank to another that only one side has started, in order.
#[derive(Debug, Default)]
struct LaneLedger {
    sent: usize,
    received: usize,
    sends: VecDeque<Spec>,
    receives: VecDeque<CallSpecs>,
}

/// A queue of collectives or exchanges that not all ranks have started.
#[derive(Debug)]
struct OpenRounds<T> {
    rounds: VecDeque<Vec<Option<T>>>,
    first: usize,
    /// Of each rank, its next round.
    next: Vec<usize>,
}

impl<T> OpenRounds<T> {
    fn new(members: usize) -> Self {
        Self {
            rounds: VecDeque::new(),
            first: 0,
            next: vec![0; members],
        }
    }

    /// The next round of a rank, and where its part belongs there.
    fn begin(&mut self, rank: usize) -> &mut Vec<Option<T>> {
        let index = self.next[rank] - self.first;
        self.next[rank] += 1;
        while self.rounds.len() <= index {
            let nobody = self.next.iter().map(|_| None);
            self.rounds.push_back(nobody.collect());
        }
        &mut self.rounds[index]
    }

    /// The first round and its number, if all have their part in it.
    fn complete(&mut self) -> Option<(usize, Vec<T>)> {
        let is_complete = |round: &Vec<Option<T>>| round.iter().all(Option::is_some);
        if !self.rounds.front().is_some_and(is_complete) {
            return None;
        }
        let round = self.rounds.pop_front()?;
        self.first += 1;
        Some((self.first - 1, round.into_iter().flatten().collect()))
    }
}

#[derive(Debug)]
struct GroupLedger {
    /// World ranks, in group order.
    members: Vec<usize>,
    collectives: OpenRounds<Posted>,
    exchanges: OpenRounds<Vec<u8>>,
    lanes: HashMap<(usize, usize), LaneLedger>,
}

impl GroupLedger {
    fn new(members: Vec<usize>) -> Self {
        Self {
            collectives: OpenRounds::new(members.len()),
            exchanges: OpenRounds::new(members.len()),
            lanes: HashMap::new(),
            members,
        }
    }

    /// World ranks whose part is missing for what the rank of this number in the group waits for.
    fn missing(&self, me: usize, what: Awaited) -> Vec<usize> {
        let not_yet = |next: &[usize], number: usize| {
            let ranks = self.members.iter().zip(next);
            let late = ranks.filter(|(_, next)| **next <= number);
            late.map(|(rank, _)| *rank).collect()
        };
        match what {
            Awaited::Round(number) => not_yet(&self.collectives.next, number),
            Awaited::Exchange(number) => not_yet(&self.exchanges.next, number),
            Awaited::Message { src, number } => {
                let sent = self.lanes.get(&(src, me)).map_or(0, |lane| lane.sent);
                let sender = self.members.get(src).filter(|_| sent <= number);
                sender.copied().into_iter().collect()
            }
            Awaited::Receipt { dst, number } => {
                let received = self.lanes.get(&(me, dst)).map_or(0, |lane| lane.received);
                let receiver = self.members.get(dst).filter(|_| received <= number);
                receiver.copied().into_iter().collect()
            }
        }
    }
}

/// A rank that waits.
#[derive(Debug)]
struct Waiting {
    group: usize,
    me: usize,
    targets: Vec<(Awaited, String)>,
    /// Whether it has said for long that it waits, although nothing was missing.
    overdue: bool,
}

#[derive(Debug)]
pub(super) struct Ledger {
    groups: Vec<GroupLedger>,
    /// A wait stays here when it is over, until the next one. This does no harm: nothing is missing for it then.
    waits: Vec<Option<Waiting>>,
    left: Vec<bool>,
    /// Calls that only some have started.
    open: usize,
}

impl Ledger {
    pub(super) fn new(world_size: usize) -> Self {
        Self {
            groups: vec![GroupLedger::new((0..world_size).collect())],
            waits: (0..world_size).map(|_| None).collect(),
            left: vec![false; world_size],
            open: 0,
        }
    }

    /// The ledger of a group, and the place of a world rank in it.
    fn group(&mut self, group: usize, rank: usize) -> Result<(&mut GroupLedger, usize), Rejected> {
        let found = self.groups.get_mut(group).and_then(|ledger| {
            let me = ledger.members.iter().position(|member| *member == rank)?;
            Some((ledger, me))
        });
        found.ok_or_else(|| Rejected::Nonsense(format!("it is not in a group of number {group}")))
    }

    /// A rank has started something.
    pub(super) fn post(
        &mut self,
        rank: usize,
        group: usize,
        post: Posted,
    ) -> Result<Letters, Rejected> {
        if self.open >= MAX_AHEAD.saturating_mul(self.left.len()) {
            return Rejected::nonsense("too many calls that no other rank has started");
        }
        let (ledger, me) = self.group(group, rank)?;
        match post {
            Posted::Call(call) if !call.op.is_collective() => {
                let opened = ledger.message(me, call)?;
                self.open = self.open.saturating_add_signed(opened);
                Ok(vec![])
            }
            post => self.collective(rank, group, me, post),
        }
    }

    fn collective(
        &mut self,
        rank: usize,
        group: usize,
        me: usize,
        post: Posted,
    ) -> Result<Letters, Rejected> {
        let first_new = self.groups.len();
        let ledger = &mut self.groups[group];
        let posts = ledger.collectives.begin(me);
        let fits = |(j, other): (usize, &Option<Posted>)| match (&post, other.as_ref()?) {
            (Posted::Call(mine), Posted::Call(theirs)) => {
                (!agree(me, mine, j, theirs)).then_some(j)
            }
            (Posted::Split { .. }, Posted::Split { .. }) => None,
            _ => Some(j),
        };
        if let Some(j) = posts.iter().enumerate().find_map(fits) {
            let show = |post: &Posted| match post {
                Posted::Call(call) => call.to_string(),
                Posted::Split { .. } => "split".to_owned(),
            };
            return Err(Rejected::Failure(WorldFailure::Disagree(Error::Disagree {
                rank,
                other: ledger.members[j],
                mine: show(&post),
                theirs: posts[j].as_ref().map(show).unwrap_or_default(),
            })));
        }
        posts[me] = Some(post);
        self.open += 1;
        let Some((number, all)) = ledger.collectives.complete() else {
            return Ok(vec![]);
        };
        self.open = self.open.saturating_sub(all.len());
        let mut colors = BTreeMap::<usize, Vec<(usize, usize)>>::new();
        for (member, post) in all.iter().enumerate() {
            if let Posted::Split { color, key } = post {
                colors.entry(*color).or_default().push((*key, member));
            }
        }
        let mut letters = vec![];
        for (i, mut members) in colors.into_values().enumerate() {
            members.sort_unstable();
            let members: Vec<usize> = members.into_iter().map(|(_, member)| member).collect();
            let of_world = members
                .iter()
                .map(|member| self.groups[group].members[*member]);
            let of_world: Vec<usize> = of_world.collect();
            let frame = Frame::Subgroup {
                group,
                number,
                subgroup: first_new + i,
                members,
            };
            letters.push((of_world.clone(), frame));
            self.groups.push(GroupLedger::new(of_world));
        }
        Ok(letters)
    }

    /// A rank has given its part of an exchange.
    pub(super) fn exchange(
        &mut self,
        rank: usize,
        group: usize,
        bytes: Vec<u8>,
    ) -> Result<Letters, Rejected> {
        if self.open >= MAX_AHEAD.saturating_mul(self.left.len()) {
            return Rejected::nonsense("too many exchanges in which no other rank takes part");
        }
        let (ledger, me) = self.group(group, rank)?;
        let waiting = ledger.exchanges.rounds.iter().flatten().flatten();
        let waiting: usize = waiting.map(Vec::len).sum();
        let sum = waiting.saturating_add(bytes.len());
        if sum > MAX_EXCHANGE {
            // Of all exchanges of the group that are not complete. No rank alone is at fault.
            let text = format!(
                "control exchange: the exchanges of a group that are not complete have {sum} bytes or more; at most {MAX_EXCHANGE} are allowed"
            );
            return Err(Rejected::Failure(WorldFailure::of(&Error::Kernel(text))));
        }
        ledger.exchanges.begin(me)[me] = Some(bytes);
        let complete = ledger.exchanges.complete();
        let members = ledger.members.clone();
        self.open += 1;
        let Some((number, parts)) = complete else {
            return Ok(vec![]);
        };
        self.open = self.open.saturating_sub(parts.len());
        let frame = Frame::Exchanged {
            group,
            number,
            parts,
        };
        Ok(vec![(members, frame)])
    }

    /// A rank waits in these calls. The failure, if it waits for ever.
    pub(super) fn wait(
        &mut self,
        rank: usize,
        group: usize,
        targets: Vec<(Awaited, String)>,
    ) -> Result<(), Rejected> {
        let (_, me) = self.group(group, rank)?;
        self.waits[rank] = Some(Waiting {
            group,
            me,
            targets,
            overdue: false,
        });
        self.diagnose(rank).map_err(Rejected::Failure)
    }

    /// A rank has waited too long. Returns the rank that is missing, or that rank itself if nothing has been missing for twice that
    /// time.
    pub(super) fn overdue(&mut self, rank: usize) -> Option<usize> {
        if let Some(missing) = self.waits_on(rank).first() {
            return Some(*missing);
        }
        let wait = self.waits[rank].as_mut()?;
        std::mem::replace(&mut wait.overdue, true).then_some(rank)
    }

    /// A rank is done. The failure, if others wait for it.
    pub(super) fn leave(&mut self, rank: usize) -> Result<(), WorldFailure> {
        self.left[rank] = true;
        (0..self.left.len())
            .filter(|other| !self.left[*other] && self.waits[*other].is_some())
            .try_for_each(|other| self.diagnose(other))
    }
}

impl GroupLedger {
    /// Notes a send or a receive. How many more messages only one side has started.
    fn message(&mut self, me: usize, call: CallSpecs) -> Result<isize, Rejected> {
        let (src, dst) = match call.op {
            Op::Send { dst } => (me, dst),
            Op::Recv { src } => (src, me),
            _ => return Rejected::nonsense("a collective between two ranks"),
        };
        if src.max(dst) >= self.members.len() {
            return Rejected::nonsense(format!("a message to a rank outside its group: {call}"));
        }
        let lane = self.lanes.entry((src, dst)).or_default();
        if matches!(call.op, Op::Send { .. }) {
            let [given] = call.gives[..] else {
                return Rejected::nonsense(format!("a send without its tensor: {call}"));
            };
            lane.sent += 1;
            lane.sends.push_back(given);
        } else {
            lane.received += 1;
            lane.receives.push_back(call);
        }
        if lane.sends.is_empty() || lane.receives.is_empty() {
            return Ok(1);
        }
        let (Some(given), Some(receive)) = (lane.sends.pop_front(), lane.receives.pop_front())
        else {
            return Ok(0);
        };
        if receive.expects == [given] {
            return Ok(-1);
        }
        Err(Rejected::Failure(WorldFailure::Disagree(Error::Disagree {
            rank: self.members[dst],
            other: self.members[src],
            mine: receive.to_string(),
            theirs: format!("send to {dst}, gives {:?}", [given]),
        })))
    }
}

impl Waits for Ledger {
    fn ranks(&self) -> usize {
        self.left.len()
    }

    fn doing(&self, rank: usize) -> Doing {
        if self.left[rank] {
            Doing::HasReturned
        } else if self.waits_on(rank).is_empty() {
            Doing::Computes
        } else {
            Doing::Waits
        }
    }

    fn waits_on(&self, rank: usize) -> Vec<usize> {
        let wait = self.waits[rank].iter();
        let targets = wait.flat_map(|wait| wait.targets.iter().map(move |(what, _)| (wait, what)));
        targets
            .flat_map(|(wait, what)| self.groups[wait.group].missing(wait.me, *what))
            .collect()
    }

    fn waits_in(&self, rank: usize) -> &str {
        let Some(wait) = &self.waits[rank] else {
            return "";
        };
        let group = &self.groups[wait.group];
        let open = |(what, _): &&(Awaited, String)| !group.missing(wait.me, *what).is_empty();
        let call = wait.targets.iter().find(open).or(wait.targets.first());
        call.map_or("", |(_, call)| call)
    }
}
