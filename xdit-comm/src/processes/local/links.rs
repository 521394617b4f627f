//! The sockets of a rank, each with a thread that writes and one that reads.

use super::header;
use super::inbox::{SocketInbox, SocketLane};
use crate::{Error, Result, Spec};
use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use xdit_kernels::{Device, Tensor, TensorMut};

/// The connections of a rank to all others. Dropped, it sends what was started and ends the threads that write. Those that read end
/// when the other side has sent everything and closes its connection.
#[derive(Debug)]
pub(super) struct SocketLinks {
    /// In the world.
    pub(super) rank: usize,
    pub(super) inbox: Arc<SocketInbox>,
    /// By rank of the world; none for the rank itself.
    peers: Vec<Option<SocketPeer>>,
    /// How many bytes the writers have sent.
    written: Arc<AtomicU64>,
}

/// A tensor, after the header that it has on the socket.
type FramedTensor = (Vec<u8>, Tensor);

#[derive(Debug)]
struct SocketPeer {
    /// Ends its reader and its writer.
    socket: UnixStream,
    /// None once the rank has no more to send.
    outgoing: Mutex<Option<Sender<FramedTensor>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SocketLinks {
    /// Starts the threads of the sockets, which are those of the ranks of the world, with none for `rank` itself. Received tensors
    /// are of `device`, a processor.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn new(
        rank: usize,
        sockets: Vec<Option<UnixStream>>,
        device: &Device,
    ) -> io::Result<Self> {
        let inbox = Arc::new(SocketInbox::default());
        let written = Arc::new(AtomicU64::new(0));
        let started = sockets.into_iter().enumerate().map(|(peer, socket)| {
            let Some(socket) = socket else {
                return Ok(None);
            };
            let (to_read, to_write) = (socket.try_clone()?, socket.try_clone()?);
            let (inbox_of_reader, device) = (inbox.clone(), device.clone());
            thread::Builder::new()
                .name(format!("from rank {peer}"))
                .spawn(move || {
                    let ended = read_all(to_read, peer, &inbox_of_reader, &device);
                    let reason = ended.map_or_else(|error| error.to_string(), |()| CLOSED.into());
                    inbox_of_reader.end(peer, reason);
                })?;
            let (sender, outgoing) = mpsc::channel();
            let to_write = CountedSocket {
                socket: to_write,
                written: written.clone(),
            };
            let inbox_of_writer = inbox.clone();
            let writer = thread::Builder::new()
                .name(format!("to rank {peer}"))
                .spawn(move || write_all(to_write, rank, &outgoing, &inbox_of_writer))?;
            Ok(Some(SocketPeer {
                socket,
                outgoing: Mutex::new(Some(sender)),
                writer: Mutex::new(Some(writer)),
            }))
        });
        let peers = started.collect::<io::Result<_>>()?;
        Ok(Self {
            rank,
            inbox,
            peers,
            written,
        })
    }

    /// Sends a tensor to a rank of the world, after those that were sent before. `lane` is the receiver's. What is sent to a rank
    /// that has gone is lost: whoever waits for that rank learns it.
    ///
    /// # Errors
    /// If sockets cannot carry such a tensor.
    pub(super) fn send(&self, to: usize, lane: SocketLane, tensor: &Tensor) -> io::Result<()> {
        match &self.peers[to] {
            None => self.inbox.put(lane, tensor.clone()),
            Some(peer) => {
                let header = header::encode(&lane, &Spec::of(tensor))?;
                if let Some(outgoing) = &*lock(&peer.outgoing) {
                    outgoing.send((header, tensor.clone())).ok();
                }
            }
        }
        Ok(())
    }

    /// Checks that this rank could send what it has sent before.
    pub(super) fn check(&self) -> Result<()> {
        match self.inbox.failure() {
            Some(reason) => Err(Error::other(format!("rank {}: {reason}", self.rank))),
            None => Ok(()),
        }
    }

    /// Ends all threads. Nothing more arrives or leaves.
    pub(super) fn abort(&self) {
        self.inbox.abort();
        for peer in self.peers.iter().flatten() {
            lock(&peer.outgoing).take();
            peer.socket.shutdown(Shutdown::Both).ok();
        }
    }
}

/// How long writers may get nothing through before a rank that ends gives up on its peers. As long as a process may be silent by
/// default (`ProcessOptions::silence`): a peer that reads nothing for longer is lost.
const STUCK: Duration = Duration::from_secs(4);

impl Drop for SocketLinks {
    /// A rank that has finished may still have sent what others wait for, so the writers come to their end. Nobody aborts this
    /// transport any more, so they are broken off when a peer, for example one that is stopped, reads nothing.
    fn drop(&mut self) {
        let peers = || self.peers.iter().flatten();
        peers().for_each(|peer| drop(lock(&peer.outgoing).take()));
        let writers: Vec<_> = peers()
            .filter_map(|peer| lock(&peer.writer).take())
            .collect();
        let (mut since, mut known) = (Instant::now(), 0);
        while !writers.iter().all(JoinHandle::is_finished) && since.elapsed() < STUCK {
            // Only compared; needs no ordering.
            let written = self.written.load(Ordering::Relaxed);
            if std::mem::replace(&mut known, written) != written {
                since = Instant::now();
            }
            thread::sleep(Duration::from_micros(200));
        }
        if !writers.iter().all(JoinHandle::is_finished) {
            peers().for_each(|peer| drop(peer.socket.shutdown(Shutdown::Both)));
        }
        for writer in writers {
            writer.join().ok();
        }
    }
}

/// The sending end of a socket. It writes in parts, so that others see whether they get through.
#[derive(Debug)]
struct CountedSocket {
    socket: UnixStream,
    written: Arc<AtomicU64>,
}

impl Write for CountedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.socket.write(&bytes[..bytes.len().min(256 << 10)])?;
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// Why a connection has ended that the other side closed.
const CLOSED: &str = "it closed its connection";

/// Puts each tensor that arrives into the inbox, until the sender closes the socket.
fn read_all(
    socket: UnixStream,
    sender: usize,
    inbox: &SocketInbox,
    device: &Device,
) -> io::Result<()> {
    let mut socket = BufReader::with_capacity(4096, socket);
    while let Some((lane, spec)) = header::read(&mut socket, sender)? {
        let tensor = TensorMut::zeros(spec.shape, spec.dtype, device);
        let mut tensor = tensor.map_err(io::Error::other)?;
        // Larger than the buffer: read into the tensor itself.
        let bytes = tensor.host_bytes_mut().map_err(io::Error::other)?;
        socket.read_exact(bytes)?;
        inbox.put(lane, tensor.freeze());
    }
    Ok(())
}

/// Writes each tensor from where it lies, until the rank has no more or the socket fails.
fn write_all(
    mut socket: CountedSocket,
    rank: usize,
    outgoing: &Receiver<FramedTensor>,
    inbox: &SocketInbox,
) {
    while let Ok((header, tensor)) = outgoing.recv() {
        let bytes = match tensor.host_bytes_blocking() {
            Ok(bytes) => bytes,
            Err(error) => {
                // The fault is of this rank, which learns it from its next call.
                inbox.fail(format!("a tensor cannot be read to send it: {error}"));
                break;
            }
        };
        let sent = socket.write_all(&header);
        if let Err(error) = sent.and_then(|()| socket.write_all(&bytes)) {
            // The receiver has gone, which its own end shows.
            tracing::debug!(rank, %error, "a tensor could not be sent");
            break;
        }
    }
    socket.socket.shutdown(Shutdown::Write).ok();
}

/// Nothing panics while it holds the lock.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
