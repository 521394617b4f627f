//! A process's end of the control plane.

use super::{
    hello::RankPlace,
    options::ProcessOptions,
    transport::Transport,
    wire::{Awaited, Frame, Peer},
};
use crate::{Error, Loss, Result, threads::state::WorldFailure};
use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Something that a rank gets from rank 0: the parts of an exchange, or a subgroup.
#[derive(Debug)]
pub(super) enum PlaneAnswer {
    Parts(Vec<Vec<u8>>),
    Subgroup { number: usize, members: Vec<usize> },
}

/// An answer is for a target in a group.
pub(super) type AnswerKey = (usize, bool, usize);

fn key(group: usize, what: Awaited) -> AnswerKey {
    match what {
        Awaited::Exchange(number) => (group, true, number),
        Awaited::Round(number)
        | Awaited::Message { number, .. }
        | Awaited::Receipt { number, .. } => (group, false, number),
    }
}

#[derive(Debug, Default)]
pub(super) struct PlaneState {
    failure: Option<WorldFailure>,
    /// Whether rank 0 may still say that another failure came first.
    is_provisional: bool,
    answers: HashMap<AnswerKey, PlaneAnswer>,
    /// Answers that nobody waits for any more.
    unwanted: HashSet<AnswerKey>,
    /// Whether this rank has left.
    pub(super) closed: bool,
}

/// The sending end, and frames that can wait a while.
#[derive(Debug)]
struct Sending {
    stream: TcpStream,
    later: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct ControlPlane {
    pub(super) rank: usize,
    /// The numbers of the ranks in errors, if they are others.
    numbers: Vec<usize>,
    pub(super) peers: Vec<Peer>,
    pub(super) options: ProcessOptions,
    state: Mutex<PlaneState>,
    changed: Condvar,
    sending: Mutex<Sending>,
    /// The connection, to break it while another thread sends.
    stream: TcpStream,
    /// For threads without the lock: whether there is a failure, or this rank has left.
    is_over: AtomicBool,
    pub(super) finished: AtomicU64,
    /// How many threads of this process wait for other ranks, or have nothing to do.
    pub(super) waiting: AtomicUsize,
    transports: Mutex<Vec<Weak<dyn Transport>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ControlPlane {
    pub(super) fn new(
        place: &RankPlace,
        peers: Vec<Peer>,
        options: ProcessOptions,
        stream: TcpStream,
    ) -> io::Result<Self> {
        stream.set_write_timeout(Some(options.silence))?;
        let to_send = stream.try_clone()?;
        Ok(Self {
            rank: place.rank,
            numbers: place.numbers.clone(),
            peers,
            options,
            state: Mutex::default(),
            changed: Condvar::new(),
            sending: Mutex::new(Sending {
                stream: to_send,
                later: vec![],
            }),
            stream,
            is_over: AtomicBool::new(false),
            finished: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            transports: Mutex::default(),
        })
    }

    /// The error of a failure, as this rank reports it.
    fn error(&self, failure: &WorldFailure, op: &str) -> Error {
        match failure.seen_by(self.rank, op) {
            Error::PeerLost {
                op,
                rank,
                lost,
                reason,
                ..
            } => Error::PeerLost {
                op,
                rank: self.number(rank),
                host: self.peers.get(lost).map(|peer| peer.host.clone()),
                lost: self.number(lost),
                reason,
            },
            other => other,
        }
    }

    /// A rank as its user counts.
    fn number(&self, rank: usize) -> usize {
        self.numbers.get(rank).copied().unwrap_or(rank)
    }

    /// Returns the error of the failure, if there is one.
    pub(super) fn check(&self, op: &str) -> Result<()> {
        if !self.is_over.load(Ordering::Acquire) {
            return Ok(());
        }
        let state = lock(&self.state);
        match &state.failure {
            Some(failure) => Err(self.error(failure, op)),
            None => Err(self.error(&self.left(), op)),
        }
    }

    fn left(&self) -> WorldFailure {
        WorldFailure::Lost {
            rank: self.rank,
            reason: Loss::Failed("it has left the world".to_owned()),
        }
    }

    /// This rank has finished an operation of its own.
    pub(super) fn progress(&self) {
        // Only compared; needs no ordering.
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    /// While the returned value lives, this rank's deadline does not run.
    pub(super) fn rest(&self) -> Rest<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Rest(self)
    }

    /// Sends a frame, after those that wait. Blocks only if rank 0 does not read, and then until it counts as lost.
    pub(super) fn send(&self, frame: &Frame) {
        let mut sending = lock(&self.sending);
        sending.later.extend(frame.encode());
        self.send_rest(sending);
    }

    /// Sends a frame some time soon.
    pub(super) fn send_later(&self, frame: &Frame) {
        let mut sending = lock(&self.sending);
        sending.later.extend(frame.encode());
        if sending.later.len() > 64 << 10 {
            self.send_rest(sending);
        }
    }

    /// Sends the frames that wait.
    pub(super) fn flush(&self) {
        self.send_rest(lock(&self.sending));
    }

    pub(super) fn state(&self) -> MutexGuard<'_, PlaneState> {
        lock(&self.state)
    }

    fn send_rest(&self, mut sending: MutexGuard<'_, Sending>) {
        let bytes = std::mem::take(&mut sending.later);
        if !bytes.is_empty() && sending.stream.write_all(&bytes).is_err() {
            // The reader sees the end, and says why.
            sending.stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// Notes the first failure, wakes everyone, and ends what the transports have under way.
    pub(super) fn fail(&self, failure: WorldFailure) {
        let mut state = lock(&self.state);
        if state.failure.is_some() && !std::mem::take(&mut state.is_provisional) {
            return;
        }
        state.failure = Some(failure);
        state.answers.clear();
        self.is_over.store(true, Ordering::Release);
        drop(state);
        self.changed.notify_all();
        self.abort();
    }

    /// This rank has failed. It makes no call any more, and rank 0 tells the others, if it is the first.
    pub(super) fn fail_here(&self, reason: Loss) {
        // First here: no call may pass that others end with this failure.
        let mut state = lock(&self.state);
        let is_first = state.failure.is_none();
        if is_first {
            let (rank, reason) = (self.rank, reason.clone());
            state.failure = Some(WorldFailure::Lost { rank, reason });
            state.is_provisional = true;
            self.is_over.store(true, Ordering::Release);
        }
        drop(state);
        self.send(&Frame::Fail(reason));
        if is_first {
            self.changed.notify_all();
            self.abort();
        }
    }

    fn abort(&self) {
        let transports = lock(&self.transports).clone();
        for transport in transports.iter().filter_map(Weak::upgrade) {
            transport.abort();
        }
    }

    /// Takes note of a transport, which is aborted after a failure.
    pub(super) fn watch(&self, transport: &Arc<dyn Transport>) {
        let mut transports = lock(&self.transports);
        transports.retain(|other| other.strong_count() > 0);
        transports.push(Arc::downgrade(transport));
        drop(transports);
        if self.is_over.load(Ordering::Acquire) {
            transport.abort();
        }
    }

    /// The transport of this rank has failed in this call. Waits until all ranks have said what is wrong with them, and returns the
    /// cause.
    pub(super) fn suspect(&self, op: &str, error: &Error) -> Error {
        let _rest = self.rest();
        let reason = error.to_string();
        self.send(&Frame::Suspect(reason.clone()));
        let began = Instant::now();
        let mut state = lock(&self.state);
        loop {
            if let Some(failure) = &state.failure {
                return self.error(failure, op);
            }
            let left = (self.options.silence * 2).saturating_sub(began.elapsed());
            if left.is_zero() || state.closed {
                drop(state);
                let failure = WorldFailure::Lost {
                    rank: self.rank,
                    reason: Loss::Failed(reason),
                };
                let error = self.error(&failure, op);
                self.fail(failure);
                return error;
            }
            state = self.wait(state, left);
        }
    }

    pub(super) fn wait<'a>(
        &self,
        state: MutexGuard<'a, PlaneState>,
        limit: Duration,
    ) -> MutexGuard<'a, PlaneState> {
        let waited = self.changed.wait_timeout(state, limit);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits for an answer of rank 0 until it is there. Other ranks have `limit` for their parts, if there is one.
    pub(super) fn answer(
        &self,
        group: usize,
        what: Awaited,
        op: &str,
        limit: Option<Duration>,
    ) -> Result<PlaneAnswer> {
        let _rest = self.rest();
        let began = Instant::now();
        let mut told = false;
        let mut overdue = limit.unwrap_or(Duration::MAX);
        let mut state = lock(&self.state);
        loop {
            if let Some(failure) = &state.failure {
                return Err(self.error(failure, op));
            }
            if state.closed {
                return Err(self.error(&self.left(), op));
            }
            if let Some(answer) = state.answers.remove(&key(group, what)) {
                self.progress();
                return Ok(answer);
            }
            let elapsed = began.elapsed();
            let next = if told { overdue } else { TELL.min(overdue) };
            if elapsed < next {
                state = self.wait(state, (next - elapsed).min(Duration::from_secs(3600)));
                continue;
            }
            drop(state);
            if !told {
                self.tell(group, vec![(what, op.to_owned())]);
                told = true;
            }
            if elapsed >= overdue {
                let limit = limit.unwrap_or_default();
                let is_exchange = true;
                self.send(&Frame::Overdue { is_exchange, limit });
                overdue = overdue.saturating_add(limit.max(TELL));
            }
            state = lock(&self.state);
        }
    }

    /// Tells rank 0 what this rank waits for.
    pub(super) fn tell(&self, group: usize, targets: Vec<(Awaited, String)>) {
        self.send(&Frame::Wait { group, targets });
    }

    /// Nobody waits for an answer any more.
    pub(super) fn forget(&self, group: usize, what: Awaited) {
        let mut state = lock(&self.state);
        let key = key(group, what);
        if state.answers.remove(&key).is_none() && state.failure.is_none() {
            state.unwanted.insert(key);
        }
    }

    pub(super) fn arrive(&self, key: AnswerKey, answer: PlaneAnswer) {
        let mut state = lock(&self.state);
        if !state.unwanted.remove(&key) && state.failure.is_none() {
            state.answers.insert(key, answer);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// This rank leaves, with a reason if it has failed. Later calls fail.
    pub(super) fn leave(&self, reason: Option<&str>) {
        if lock(&self.state).closed {
            return;
        }
        if let Some(reason) = reason {
            self.send(&Frame::Fail(Loss::Failed(reason.to_owned())));
        }
        // First this: the connection may end at any time from now on.
        lock(&self.state).closed = true;
        self.is_over.store(true, Ordering::Release);
        self.send(&Frame::Bye);
        self.stream.shutdown(Shutdown::Write).ok();
        self.changed.notify_all();
        if reason.is_some() {
            // Nobody waits for what a rank sends that has failed.
            self.abort();
        }
    }

    /// Breaks the connection.
    pub(super) fn disconnect(&self) {
        self.stream.shutdown(Shutdown::Both).ok();
    }
}

/// How long a rank waits before it tells rank 0 what it waits for.
pub(super) const TELL: Duration = Duration::from_millis(20);

/// Time in which a rank need not make progress.
#[derive(Debug)]
pub(super) struct Rest<'a>(&'a ControlPlane);

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.0.progress();
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
