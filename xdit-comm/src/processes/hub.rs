//! Rank 0's side of the control plane: it lets processes in, and has a connection to each.

use super::{
    hello::Hello,
    link::{Heard, Link},
    options::ProcessOptions,
    outbox::Outbox,
    switch::{Switch, nonsense},
    wire::{Frame, FrameDecoder},
};
use crate::{Error, Loss, Result, threads::state::WorldFailure};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How many connections may be open that have not said who they are, beside one for each rank.
const MAX_STRANGERS: usize = 64;
/// How long rank 0 waits for the others after a failure: they know of it.
const AFTER_A_FAILURE: Duration = Duration::from_millis(500);
/// How often the thread that accepts connections looks for one.
const LOOK: Duration = Duration::from_millis(5);
/// How long a connection has for its hello.
pub(super) const HELLO: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct HubShared {
    options: ProcessOptions,
    switch: Mutex<Switch>,
    closing: AtomicBool,
    connections: AtomicUsize,
    max_strangers: usize,
    strangers: AtomicUsize,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Connections that have something to send, to break those whose other side does not read.
    streams: Mutex<HashMap<usize, TcpStream>>,
}

/// The control plane's centre, in the process of rank 0. Dropping it ends its threads in bounded time.
#[derive(Debug)]
pub(super) struct ControlHub {
    shared: Arc<HubShared>,
    addresses: Vec<SocketAddr>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ControlHub {
    /// Begins to let in the processes that fit `own`, the hello of rank 0.
    pub(super) fn start(
        listener: TcpListener,
        own: Hello,
        options: ProcessOptions,
    ) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::Rendezvous(format!("rank 0 cannot let the others in: {error}"))
        };
        let address = listener.local_addr().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let ips = match address.ip() {
            ip if !ip.is_unspecified() => vec![ip],
            IpAddr::V4(_) => vec![v4],
            // The interfaces of IPv6 may be without addresses.
            IpAddr::V6(_) => vec![Ipv6Addr::LOCALHOST.into(), v4],
        };
        let with_port = |ip| SocketAddr::new(ip, address.port());
        let shared = Arc::new(HubShared {
            options,
            closing: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            max_strangers: MAX_STRANGERS + own.world_size,
            switch: Mutex::new(Switch::new(own)),
            strangers: AtomicUsize::new(0),
            threads: Mutex::new(vec![]),
            streams: Mutex::default(),
        });
        let hub = Self {
            shared: shared.clone(),
            addresses: ips.into_iter().map(with_port).collect(),
        };
        let accept = move |shared: Arc<HubShared>| accept_all(&shared, &listener);
        spawn(&shared, "control: rendezvous", accept).map_err(failed)?;
        Ok(hub)
    }

    /// Where this process reaches it: at one of these.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Which ranks have not come within `limit`.
    pub(super) fn missing(&self, limit: Duration) -> String {
        lock(&self.shared.switch).missing(limit)
    }

    /// Ends the rendezvous.
    pub(super) fn refuse_all(&self, reason: &str) {
        lock(&self.shared.switch).refuse_all(reason);
    }
}

impl Drop for ControlHub {
    /// Waits for ranks that have not left, at most for the grace, and tells those that remain.
    fn drop(&mut self) {
        let shared = &self.shared;
        let began = Instant::now();
        loop {
            let switch = lock(&shared.switch);
            let grace = match switch.failure() {
                Some(_) => shared.options.grace.min(AFTER_A_FAILURE),
                None => shared.options.grace,
            };
            if switch.is_over() || began.elapsed() >= grace {
                break;
            }
            drop(switch);
            std::thread::sleep(Duration::from_millis(2));
        }
        shared.closing.store(true, Ordering::Release);
        let mut switch = lock(&shared.switch);
        if switch.is_needed() && switch.failure().is_none() {
            let reason = "it has left, and the control plane with it".to_owned();
            switch.fail(WorldFailure::Lost {
                rank: 0,
                reason: Loss::Failed(reason),
            });
        }
        switch.close();
        drop(switch);
        let ends = Instant::now() + shared.options.tick() * 2 + Duration::from_millis(200);
        loop {
            let threads = std::mem::take(&mut *lock(&shared.threads));
            if threads.is_empty() {
                return;
            }
            while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < ends {
                std::thread::sleep(Duration::from_micros(500));
            }
            for stream in lock(&shared.streams).values() {
                stream.shutdown(Shutdown::Both).ok();
            }
            for thread in threads {
                thread.join().ok();
            }
        }
    }
}

/// Starts a thread that the hub waits for when it ends.
fn spawn(
    shared: &Arc<HubShared>,
    name: &str,
    work: impl FnOnce(Arc<HubShared>) + Send + 'static,
) -> std::io::Result<()> {
    let own = shared.clone();
    let thread = std::thread::Builder::new().name(name.to_owned());
    let thread = thread.spawn(move || work(own))?;
    let mut threads = lock(&shared.threads);
    // Those of strangers come and go.
    threads.retain(|thread| !thread.is_finished());
    threads.push(thread);
    Ok(())
}

fn accept_all(shared: &Arc<HubShared>, listener: &TcpListener) {
    while !shared.closing.load(Ordering::Acquire) {
        let Ok((stream, _)) = listener.accept() else {
            // None has come, or it is gone again, or too many files are open.
            std::thread::sleep(LOOK);
            continue;
        };
        // On some systems it is like its listener.
        if stream.set_nonblocking(false).is_err() {
            continue;
        }
        if shared.strangers.fetch_add(1, Ordering::Relaxed) >= shared.max_strangers {
            shared.strangers.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let serve = move |shared: Arc<HubShared>| {
            let entered = enter(&shared, stream);
            shared.strangers.fetch_sub(1, Ordering::Relaxed);
            if let Some((rank, link, outbox)) = entered {
                serve_rank(&shared, rank, link, &outbox);
            }
        };
        if spawn(shared, "control: a rank", serve).is_err() {
            shared.strangers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Waits for the hello of a connection, and answers it if it is refused.
fn enter(shared: &Arc<HubShared>, stream: TcpStream) -> Option<(usize, Link, Outbox)> {
    let options = shared.options;
    let (to_write, to_break) = (stream.try_clone().ok()?, stream.try_clone().ok()?);
    let decoder = FrameDecoder::of_rank();
    let mut link = Link::new(stream, decoder, options.tick(), options.silence).ok()?;
    let began = Instant::now();
    let hello = loop {
        if shared.closing.load(Ordering::Acquire) || began.elapsed() >= HELLO {
            return None;
        }
        match link.hear() {
            Heard::Frame(Frame::Hello(hello)) => break hello,
            Heard::Frame(Frame::CannotCome { hello, reason }) => {
                lock(&shared.switch).cannot_come(&hello, &reason);
                return None;
            }
            Heard::Nothing => {}
            _ => return None,
        }
    };
    if lock(&shared.switch).is_before(&hello) {
        // Without an answer, it tries again.
        return None;
    }
    let (outbox, send_all) = Outbox::new(to_write, options.silence);
    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
    lock(&shared.streams).insert(number, to_break);
    let send = move |shared: Arc<HubShared>| {
        send_all();
        lock(&shared.streams).remove(&number);
    };
    if spawn(shared, "control: to a rank", send).is_err() {
        lock(&shared.streams).remove(&number);
        return None;
    }
    let entered = lock(&shared.switch).enter(&hello, &outbox);
    match entered {
        Ok(()) => Some((hello.rank, link, outbox)),
        Err(answer) => {
            // What ends the job is an error of all ranks.
            if let Frame::TurnedAway(reason) = &*answer {
                tracing::warn!("{reason}");
            }
            outbox.send(&answer);
            drop(outbox);
            // The other side closes the connection when it has read this. It must not be broken before.
            let began = Instant::now();
            while began.elapsed() < options.silence
                && !shared.closing.load(Ordering::Acquire)
                && link.discard()
            {}
            None
        }
    }
}

/// Hears a rank until it leaves or its connection ends.
fn serve_rank(shared: &HubShared, rank: usize, mut link: Link, outbox: &Outbox) {
    let mut last_beat = Instant::now();
    loop {
        let heard = link.hear();
        if shared.closing.load(Ordering::Acquire) {
            return;
        }
        let mut switch = lock(&shared.switch);
        match heard {
            Heard::Frame(frame) => {
                if !switch.hear(rank, frame) {
                    return;
                }
            }
            Heard::Nothing => {}
            // If it goes on later, it hears that it was lost.
            Heard::Silence => switch.silence(rank, shared.options.silence),
            Heard::End => return switch.end(rank, Loss::Ended),
            Heard::Nonsense(what) => return switch.end(rank, nonsense(&what)),
        }
        drop(switch);
        if last_beat.elapsed() >= shared.options.beat {
            last_beat = Instant::now();
            outbox.send(&Frame::Beat);
        }
    }
}
