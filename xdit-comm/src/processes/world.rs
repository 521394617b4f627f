//! How processes come together, and how one leaves.

use super::{
    hello::{Hello, RankPlace},
    hub::ControlHub,
    link::{Heard, Link, check_address, connect, listen},
    member::{GroupSeat, ProcessMember},
    options::ProcessOptions,
    plane::ControlPlane,
    transport::Transport,
    wire::{Frame, FrameDecoder, Peer},
};
use crate::{Error, Group, Result};
use std::{
    fmt,
    io::Write,
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Joins the world of the processes that are started with the same [`RankPlace::rendezvous`], and returns when all have come.
///
/// `transport` makes the transport of the whole world. All ranks call it at the same time, and it may exchange bytes with the others
/// ([`Peers::all_gather`]).
///
/// # Errors
/// [`Error::CannotListen`] if rank 0 cannot use the address, for example because the port is in use. [`Error::Rendezvous`] if rank 0
/// cannot be reached or turns this process away, or ranks are missing after [`ProcessOptions::rendezvous`]. [`Error::NotBegun`] if rank
/// 0 has told all ranks why the world does not begin. An error of `transport`; the others learn the reason.
pub fn join(
    place: &RankPlace,
    options: ProcessOptions,
    transport: impl FnOnce(&Peers) -> Result<Box<dyn Transport>>,
) -> Result<ProcessWorld> {
    check_address(&place.rendezvous)?;
    Hello::of(place)?;
    let listener = match place.rank {
        0 => Some(listen(&place.rendezvous)?),
        _ => None,
    };
    join_on(listener, place, options, transport)
}

/// Joins a world, of which rank 0 listens here.
pub(super) fn join_on(
    listener: Option<TcpListener>,
    place: &RankPlace,
    options: ProcessOptions,
    transport: impl FnOnce(&Peers) -> Result<Box<dyn Transport>>,
) -> Result<ProcessWorld> {
    let own = Hello::of(place)?;
    let hub = match listener {
        Some(listener) => Some(ControlHub::start(listener, own.clone(), options)?),
        None => None,
    };
    let (stream, link, peers) = enter(place, own, options, hub.as_ref())?;
    let thread = |error: std::io::Error| {
        Error::Rendezvous(format!("rank {} has no control plane: {error}", place.rank))
    };
    let plane = ControlPlane::new(place, peers, options, stream).map_err(thread)?;
    let plane = Arc::new(plane);
    let mut presence = Presence {
        plane: plane.clone(),
        threads: vec![],
        hub,
    };
    let own = plane.clone();
    presence
        .start("control: hears", move || own.listen(link))
        .map_err(thread)?;
    let own = plane.clone();
    presence
        .start("control: beats", move || own.beat())
        .map_err(thread)?;
    let seat = GroupSeat::of_world(plane);
    let peers = Peers(seat.clone());
    match transport(&peers) {
        Ok(transport) => Ok(ProcessWorld {
            group: Group::new(Box::new(ProcessMember::new(seat, transport))),
            presence,
        }),
        Err(error) => {
            let caused_by_another = matches!(
                error,
                Error::PeerLost { .. } | Error::Disagree { .. } | Error::Deadlock(_)
            );
            match caused_by_another {
                true => Err(error),
                // Another rank may be the cause: then its failure is known by now, or soon.
                false => Err(presence.plane.suspect("start of the transport", &error)),
            }
        }
    }
}

/// Connects to rank 0, says who this is, and waits until all have come.
fn enter(
    place: &RankPlace,
    own: Hello,
    options: ProcessOptions,
    hub: Option<&ControlHub>,
) -> Result<(TcpStream, Link, Vec<Peer>)> {
    let RankPlace {
        rank,
        world_size,
        rendezvous,
        ..
    } = place;
    let hello = Frame::Hello(own).encode();
    let began = Instant::now();
    let limit = options.rendezvous.as_secs_f64();
    let mut came = false;
    loop {
        // Rank 0 decides when the time is over, so that all hear the same.
        let last = options.rendezvous
            + if hub.is_some() {
                Duration::ZERO
            } else {
                options.silence
            };
        let left = last.saturating_sub(began.elapsed());
        let stream = match hub {
            Some(hub) => connect(hub.addresses(), left),
            None => connect(rendezvous.as_str(), left),
        };
        let stream = stream.map_err(|reason| {
            Error::Rendezvous(format!(
                "rank {rank} cannot reach rank 0 at {rendezvous} within {limit:.1} s: {reason}. Is rank 0 started, and is its port open?"
            ))
        })?;
        let failed = |error: std::io::Error| {
            Error::Rendezvous(format!(
                "rank {rank} cannot speak with rank 0 at {rendezvous}: {error}"
            ))
        };
        let reader = stream.try_clone().map_err(failed)?;
        let decoder = FrameDecoder::default();
        let mut link =
            Link::new(reader, decoder, options.tick(), options.silence).map_err(failed)?;
        let mut is_open = (&stream).write_all(&hello).is_ok();
        let mut last_beat = Instant::now();
        loop {
            if last_beat.elapsed() >= options.beat {
                last_beat = Instant::now();
                is_open &= (&stream).write_all(&Frame::Beat.encode()).is_ok();
            }
            // What rank 0 has said before it closed the connection may still be there.
            let heard = match link.hear() {
                Heard::Nothing if !is_open => Heard::End,
                heard => heard,
            };
            match heard {
                Heard::Frame(Frame::Welcome(peers)) if peers.len() == *world_size => {
                    return Ok((stream, link, peers));
                }
                Heard::Frame(Frame::Refused(reason)) => return Err(Error::NotBegun(reason)),
                Heard::Frame(Frame::TurnedAway(reason)) => return Err(Error::Rendezvous(reason)),
                Heard::Frame(Frame::Beat) => came = true,
                Heard::Nothing => {}
                Heard::Silence => {
                    let seconds = options.silence.as_secs_f64();
                    return Err(Error::Rendezvous(format!(
                        "rank {rank} reaches {rendezvous}, but rank 0 has said nothing for {seconds:.1} s. Does another program use that port?"
                    )));
                }
                Heard::End if came => {
                    return Err(Error::Rendezvous(format!(
                        "rank {rank}: rank 0 at {rendezvous} has ended before all ranks have come"
                    )));
                }
                // Rank 0 is just ending, or has too many connections.
                Heard::End => {
                    std::thread::sleep(Duration::from_millis(50));
                    break;
                }
                Heard::Frame(_) | Heard::Nonsense(_) => {
                    return Err(Error::Rendezvous(format!(
                        "rank {rank}: what answers at {rendezvous} is not rank 0 of this program. Does another program use that port?"
                    )));
                }
            }
            if began.elapsed() >= last {
                let reason = match hub {
                    Some(hub) => hub.missing(options.rendezvous),
                    None => format!("rank {rank}: not all ranks have come within {limit:.1} s"),
                };
                if let Some(hub) = hub {
                    hub.refuse_all(&reason);
                }
                return Err(Error::Rendezvous(reason));
            }
        }
        if began.elapsed() >= last {
            return Err(Error::Rendezvous(format!(
                "rank {rank}: rank 0 at {rendezvous} closes every connection. Does another program use that port, or rank 0 of an earlier attempt?"
            )));
        }
    }
}

/// The processes of a world, while they make their transport.
#[derive(Debug)]
pub struct Peers(GroupSeat);

impl Peers {
    /// Returns the number of this process.
    pub fn rank(&self) -> usize {
        self.0.plane.rank
    }

    /// Returns all processes, in rank order.
    pub fn all(&self) -> &[Peer] {
        &self.0.plane.peers
    }

    /// Returns the bytes of all ranks, in rank order. A transport exchanges addresses or ids in this way.
    ///
    /// # Collective
    /// Every rank calls it.
    ///
    /// # Errors
    /// [`Error::PeerLost`] if a rank has failed.
    pub fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.0.all_gather(bytes.to_vec())
    }

    /// Returns the alarm of this rank's transport, for failures that no call reports.
    pub fn alarm(&self) -> TransportAlarm {
        TransportAlarm(self.0.plane.clone())
    }

    /// Checks that no rank has failed. A transport that waits for others calls it now and then.
    ///
    /// # Errors
    /// [`Error::PeerLost`] if a rank has failed.
    pub fn check(&self) -> Result<()> {
        self.0.plane.progress();
        self.0.plane.check("start of the transport")
    }
}

/// Reports that a transport has failed by itself, while the rank may be computing. From [`Peers::alarm`].
#[derive(Debug)]
pub struct TransportAlarm(Arc<ControlPlane>);

impl TransportAlarm {
    /// Reports the failure, and waits until the ranks know its cause: another rank may have died. Then all calls of all ranks fail,
    /// and the transports have been aborted. A transport calls it from a thread of its own.
    pub fn raise(&self, reason: &str) {
        self.0.suspect("transport", &Error::other(reason));
    }
}

/// This process as a rank of a world. When it is dropped, the rank leaves: without a failure if it has not panicked. The process of
/// rank 0 then waits for the others, at most for [`ProcessOptions::grace`].
pub struct ProcessWorld {
    /// Dropped first: this rank says goodbye before its transport ends.
    presence: Presence,
    group: Group,
}

impl ProcessWorld {
    /// Returns the group of all ranks.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Returns all processes, in rank order.
    pub fn peers(&self) -> &[Peer] {
        &self.presence.plane.peers
    }

    /// Calls `idle`, which may take any time: the deadline of this rank does not run meanwhile. For ranks that wait for work.
    pub fn rest<T>(&self, idle: impl FnOnce() -> T) -> T {
        let _rest = self.presence.plane.rest();
        idle()
    }

    /// Waits until rank 0 has left, at most for `limit`. For a rank that has failed: launchers end all processes of a job when the
    /// first of them ends with an error, and rank 0 has yet to say why.
    pub fn outlast_rank_0(&self, limit: Duration) {
        let _rest = self.presence.plane.rest();
        let began = Instant::now();
        // The first thread hears rank 0 until the connection ends.
        let hears = self.presence.threads.first();
        while hears.is_some_and(|thread| !thread.is_finished()) && began.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Leaves the world because of a failure. The others learn the reason.
    pub fn fail(self, reason: &str) {
        self.presence.plane.leave(Some(reason));
    }
}

impl fmt::Debug for ProcessWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessWorld")
            .field("rank", &self.group.rank())
            .field("peers", &self.peers())
            .finish_non_exhaustive()
    }
}

/// The threads of a rank, and of rank 0 the centre of the control plane. Dropping it ends them.
struct Presence {
    plane: Arc<ControlPlane>,
    threads: Vec<JoinHandle<()>>,
    hub: Option<ControlHub>,
}

impl Presence {
    fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.threads.push(thread.spawn(work)?);
        Ok(())
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.plane
            .leave(std::thread::panicking().then_some("panicked"));
        // Rank 0 answers the goodbye by closing the connection. If not, it is broken off.
        let began = Instant::now();
        let is_over = |thread: &JoinHandle<()>| thread.is_finished();
        while !self.threads.iter().all(is_over) && began.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.plane.disconnect();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
        // Its threads end after those of this rank.
        drop(self.hub.take());
    }
}
