//! What rank 0 knows of the world, and what it tells whom.

use super::{
    hello::{Hello, HelloRefusal},
    matching::{Ledger, Letters, Rejected},
    outbox::Outbox,
    wire::{Frame, Peer},
};
use crate::{Loss, threads::state::WorldFailure};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// A rank that has come.
#[derive(Debug)]
struct Seat {
    peer: Peer,
    /// None when its connection has ended.
    outbox: Option<Outbox>,
    has_left: bool,
    is_silent: bool,
    /// How often it was asked to send everything, and how often it has answered.
    flushes: (usize, usize),
}

/// An error of a transport, until everybody has said what is wrong with them.
#[derive(Debug)]
struct Suspicion {
    rank: usize,
    reason: String,
    /// Of each rank, the answer that is waited for.
    answers: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Switch {
    own: Hello,
    seats: Vec<Option<Seat>>,
    ledger: Ledger,
    failure: Option<WorldFailure>,
    suspicions: Vec<Suspicion>,
    /// Why the world cannot begin.
    refusal: Option<String>,
    /// Ranks that have not come yet, and should hear of the refusal.
    untold: BTreeSet<usize>,
    /// Why processes were refused, the last one.
    last_refused: Option<String>,
    complete: bool,
}

/// The reason of a rank that does not follow the protocol.
pub(super) fn nonsense(what: &str) -> Loss {
    Loss::Failed(format!(
        "it sent what no rank sends on the control plane: {what}"
    ))
}

impl Switch {
    /// The world of rank 0, whose hello this is.
    pub(super) fn new(own: Hello) -> Self {
        Self {
            seats: (0..own.world_size).map(|_| None).collect(),
            ledger: Ledger::new(own.world_size),
            own,
            failure: None,
            suspicions: vec![],
            refusal: None,
            untold: BTreeSet::new(),
            last_refused: None,
            complete: false,
        }
    }

    /// Whether a process is of a later attempt of the job.
    pub(super) fn is_before(&self, hello: &Hello) -> bool {
        self.own.is_before(hello)
    }

    /// A process has come. Returns the answer to it, if it is refused.
    pub(super) fn enter(&mut self, hello: &Hello, outbox: &Outbox) -> Result<(), Box<Frame>> {
        let admitted = self.own.admits(hello).and_then(|()| self.has_room(hello));
        if let Err(refusal) = admitted {
            self.last_refused = Some(refusal.reason.clone());
            if refusal.ends_the_job && !self.complete {
                self.refuse_job(&refusal.reason, hello.rank);
            }
            let is_of_all = self.refusal.as_ref() == Some(&refusal.reason);
            // Of this answer all versions know the bytes.
            let is_of_another_version = hello.version != self.own.version;
            return Err(Box::new(match is_of_all || is_of_another_version {
                true => Frame::Refused(refusal.reason),
                false => Frame::TurnedAway(refusal.reason),
            }));
        }
        self.seats[hello.rank] = Some(Seat {
            peer: Peer {
                host: hello.host.clone(),
                pid: hello.pid,
            },
            outbox: Some(outbox.clone()),
            has_left: false,
            is_silent: false,
            flushes: (0, 0),
        });
        if self.seats.iter().all(Option::is_some) {
            self.complete = true;
            let peers = self.seats.iter().flatten().map(|seat| seat.peer.clone());
            let welcome = Frame::Welcome(peers.collect());
            self.send((0..self.seats.len()).collect(), &welcome);
        }
        Ok(())
    }

    fn has_room(&mut self, hello: &Hello) -> Result<(), HelloRefusal> {
        let rank = hello.rank;
        let refuse = |reason| {
            Err(HelloRefusal {
                reason,
                ends_the_job: false,
            })
        };
        if let Some(reason) = &self.refusal {
            self.untold.remove(&rank);
            return refuse(reason.clone());
        }
        match &self.seats[rank] {
            None => Ok(()),
            Some(seat) => {
                let Peer { host, pid } = &seat.peer;
                refuse(format!(
                    "rank {rank} ({}, process {}) comes twice: rank {rank} is process {pid} on {host} already",
                    hello.host, hello.pid
                ))
            }
        }
    }

    /// A process says that its rank cannot come, and why. Then the world will not begin.
    pub(super) fn cannot_come(&mut self, hello: &Hello, reason: &str) {
        let is_awaited =
            |seats: &[Option<Seat>]| seats.get(hello.rank).is_some_and(Option::is_none);
        if self.own.is_of_job(hello) && is_awaited(&self.seats) {
            let text = format!("rank {} ({}): {reason}", hello.rank, hello.host);
            self.refuse_job(&text, hello.rank);
        }
    }

    /// The world will not begin, because of a rank. Those that come later hear of it too.
    fn refuse_job(&mut self, reason: &str, because_of: usize) {
        if self.refusal.is_some() {
            // Whoever says so has gone, and need not be told.
            self.untold.remove(&because_of);
            return;
        }
        self.refuse_all(reason);
        let seats = self.seats.iter().enumerate();
        let absent = seats.filter(|(rank, seat)| seat.is_none() && *rank != because_of);
        self.untold = absent.map(|(rank, _)| rank).collect();
    }

    /// The world will not begin.
    pub(super) fn refuse_all(&mut self, reason: &str) {
        self.refusal.get_or_insert_with(|| reason.to_owned());
        let all = (0..self.seats.len()).collect();
        self.send(all, &Frame::Refused(reason.to_owned()));
    }

    /// The ranks that have not come within `limit`, for a message.
    pub(super) fn missing(&self, limit: Duration) -> String {
        let seats = self.seats.iter().enumerate();
        let missing: Vec<String> = seats
            .filter(|(_, seat)| seat.is_none())
            .map(|(rank, _)| rank.to_string())
            .collect();
        let ranks = match &missing[..] {
            [] => return format!("the last rank came after {:.1} s", limit.as_secs_f64()),
            [one] => format!("rank {one} has"),
            [first @ .., last] if first.len() < 16 => {
                format!("ranks {} and {last} have", first.join(", "))
            }
            [first @ .., _] => format!(
                "ranks {} and {} more have",
                first[..16].join(", "),
                missing.len() - 16
            ),
        };
        let refused = self.last_refused.as_ref();
        let refused = refused.map_or_else(String::new, |why| format!(". Refused: {why}"));
        let (limit, all) = (limit.as_secs_f64(), self.seats.len());
        format!("{ranks} not come within {limit:.1} s, of {all} ranks{refused}")
    }

    pub(super) fn failure(&self) -> Option<&WorldFailure> {
        self.failure.as_ref()
    }

    /// Whether all ranks that have come are done or gone.
    pub(super) fn is_over(&self) -> bool {
        let mut seats = self.seats.iter().flatten();
        self.untold.is_empty() && seats.all(|seat| seat.outbox.is_none() || seat.is_silent)
    }

    /// Whether a rank has not left.
    pub(super) fn is_needed(&self) -> bool {
        self.complete && self.seats.iter().flatten().any(|seat| !seat.has_left)
    }

    /// Forgets all connections, which then close.
    pub(super) fn close(&mut self) {
        self.seats
            .iter_mut()
            .flatten()
            .for_each(|seat| seat.outbox = None);
    }

    /// The first failure stays. All ranks are told.
    pub(super) fn fail(&mut self, failure: WorldFailure) {
        if self.failure.is_some() {
            return;
        }
        let all = (0..self.seats.len()).collect();
        self.failure = Some(failure.clone());
        self.suspicions.clear();
        if self.complete {
            return self.send(all, &Frame::Failed(failure));
        }
        let text = match failure {
            WorldFailure::Lost { rank, reason } => {
                let host = self.seats[rank].as_ref().map_or("", |seat| &seat.peer.host);
                format!("rank {rank} ({host}) is lost before all ranks have come: {reason}")
            }
            WorldFailure::Disagree(error) => error.to_string(),
        };
        self.refuse_all(&text);
    }

    pub(super) fn lose(&mut self, rank: usize, reason: Loss) {
        self.fail(WorldFailure::Lost { rank, reason });
    }

    /// A rank has shown no sign of life for this time.
    pub(super) fn silence(&mut self, rank: usize, time: Duration) {
        if let Some(seat) = &mut self.seats[rank] {
            seat.is_silent = true;
        }
        self.lose(rank, Loss::Silent(time));
    }

    /// The connection of a rank has ended, for this reason if it has not left.
    pub(super) fn end(&mut self, rank: usize, reason: Loss) {
        if let Some(seat) = &mut self.seats[rank] {
            seat.outbox = None;
            if !seat.has_left {
                self.lose(rank, reason);
            }
        }
    }

    fn send(&mut self, ranks: Vec<usize>, frame: &Frame) {
        let bytes: Arc<[u8]> = frame.encode().into();
        for rank in ranks {
            let seat = self.seats.get(rank).and_then(Option::as_ref);
            let Some(outbox) = seat.and_then(|seat| seat.outbox.as_ref()) else {
                continue;
            };
            if !outbox.send_bytes(bytes.clone()) {
                let reason = "it does not read what the control plane sends";
                self.lose(rank, Loss::Failed(reason.to_owned()));
            }
        }
    }

    /// A rank has sent a frame. Returns false when it is done.
    pub(super) fn hear(&mut self, rank: usize, frame: Frame) -> bool {
        let done = matches!(frame, Frame::Bye);
        match self.handle(rank, frame) {
            Ok(letters) => letters
                .into_iter()
                .for_each(|(ranks, frame)| self.send(ranks, &frame)),
            Err(Rejected::Failure(failure)) => self.fail(failure),
            Err(Rejected::Nonsense(what)) => {
                self.lose(rank, nonsense(&what));
            }
        }
        if done && let Some(seat) = &mut self.seats[rank] {
            seat.outbox = None;
        }
        !done
    }

    fn handle(&mut self, rank: usize, frame: Frame) -> Result<Letters, Rejected> {
        if self.failure.is_some() {
            if matches!(frame, Frame::Bye)
                && let Some(seat) = &mut self.seats[rank]
            {
                seat.has_left = true;
            }
            return Ok(vec![]);
        }
        match frame {
            Frame::Beat => {}
            Frame::Post { group, what } => return self.ledger.post(rank, group, what),
            Frame::Exchange { group, bytes } => return self.ledger.exchange(rank, group, bytes),
            Frame::Wait { group, targets } => self.ledger.wait(rank, group, targets)?,
            Frame::Overdue { is_exchange, limit } => match self.ledger.overdue(rank) {
                Some(own) if own == rank && !is_exchange => {
                    let reason = format!(
                        "its transport did not finish a call within {:.1} s, though every rank has started it",
                        limit.as_secs_f64()
                    );
                    self.lose(rank, Loss::Failed(reason));
                }
                Some(late) if is_exchange && late != rank => {
                    self.lose(late, Loss::NoAnswer(limit));
                }
                _ => {}
            },
            Frame::Fail(loss) => self.lose(rank, loss),
            Frame::Suspect(reason) => self.suspect(rank, reason),
            Frame::Flushed => {
                if let Some(seat) = &mut self.seats[rank] {
                    seat.flushes.1 += 1;
                }
                self.judge();
            }
            Frame::Bye => {
                if let Some(seat) = &mut self.seats[rank] {
                    seat.has_left = true;
                }
                self.ledger.leave(rank).map_err(Rejected::Failure)?;
                self.judge();
            }
            Frame::Hello(_)
            | Frame::CannotCome { .. }
            | Frame::Welcome(_)
            | Frame::Refused(_)
            | Frame::TurnedAway(_)
            | Frame::Exchanged { .. }
            | Frame::Subgroup { .. }
            | Frame::Flush
            | Frame::Failed(_) => {
                return Err(Rejected::Nonsense("a frame of another direction".into()));
            }
        }
        Ok(vec![])
    }

    /// The transport of a rank has failed. Whoever caused it may be about to say so, or to be missed.
    fn suspect(&mut self, rank: usize, reason: String) {
        let mut answers = vec![];
        for seat in self.seats.iter_mut().flatten() {
            seat.flushes.0 += 1;
            answers.push(seat.flushes.0);
        }
        self.suspicions.push(Suspicion {
            rank,
            reason,
            answers,
        });
        self.send((0..self.seats.len()).collect(), &Frame::Flush);
        self.judge();
    }

    /// If everybody has answered and nothing else is wrong, the first rank whose transport failed is the cause.
    fn judge(&mut self) {
        let Some(first) = self.suspicions.first() else {
            return;
        };
        let has_answered =
            |(seat, answer): (&Seat, &usize)| seat.has_left || seat.flushes.1 >= *answer;
        if self
            .seats
            .iter()
            .flatten()
            .zip(&first.answers)
            .all(has_answered)
        {
            let (rank, reason) = (first.rank, first.reason.clone());
            self.lose(rank, Loss::Failed(reason));
        }
    }
}
