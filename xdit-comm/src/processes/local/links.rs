//! The sockets of a rank, each with a thread that writes and one that reads.

use super::header;
use super::inbox::{SocketInbox, SocketLane};
use crate::Spec;
use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use xdit_kernels::{Device, Tensor, TensorMut};

/// The connections of a rank to all others. Dropped, it sends what was started, and ends its threads.
#[derive(Debug)]
pub(super) struct SocketLinks {
    /// In the world.
    pub(super) rank: usize,
    pub(super) inbox: Arc<SocketInbox>,
    /// By rank of the world; none for the rank itself.
    peers: Vec<Option<SocketPeer>>,
}

#[derive(Debug)]
struct SocketPeer {
    /// Ends its reader and its writer.
    socket: UnixStream,
    /// None once the rank has no more to send.
    outgoing: Mutex<Option<Sender<(SocketLane, Tensor)>>>,
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
            let writer = thread::Builder::new()
                .name(format!("to rank {peer}"))
                .spawn(move || write_all(to_write, rank, &outgoing))?;
            Ok(Some(SocketPeer {
                socket,
                outgoing: Mutex::new(Some(sender)),
                writer: Mutex::new(Some(writer)),
            }))
        });
        let peers = started.collect::<io::Result<_>>()?;
        Ok(Self { rank, inbox, peers })
    }

    /// Sends a tensor to a rank of the world, after those that were sent before. `lane` is the receiver's. What is sent to a rank
    /// that has gone is lost: whoever waits for that rank learns it.
    pub(super) fn send(&self, to: usize, lane: SocketLane, tensor: &Tensor) {
        match &self.peers[to] {
            None => self.inbox.put(lane, tensor.clone()),
            Some(peer) => {
                if let Some(outgoing) = &*lock(&peer.outgoing) {
                    outgoing.send((lane, tensor.clone())).ok();
                }
            }
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

impl Drop for SocketLinks {
    /// A rank that has finished may still have sent what others wait for, so the writers come to their end. They do not wait for a
    /// rank that is stopped: its control plane aborts the transport.
    fn drop(&mut self) {
        for peer in self.peers.iter().flatten() {
            lock(&peer.outgoing).take();
        }
        for peer in self.peers.iter().flatten() {
            if let Some(writer) = lock(&peer.writer).take() {
                writer.join().ok();
            }
        }
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
fn write_all(mut socket: UnixStream, rank: usize, outgoing: &Receiver<(SocketLane, Tensor)>) {
    let mut write = |lane: &SocketLane, tensor: &Tensor| -> io::Result<()> {
        header::write(&mut socket, lane, &Spec::of(tensor))?;
        let bytes = tensor.host_bytes_blocking().map_err(io::Error::other)?;
        socket.write_all(&bytes)
    };
    while let Ok((lane, tensor)) = outgoing.recv() {
        if let Err(error) = write(&lane, &tensor) {
            // The receiver has gone, which its own end shows.
            tracing::debug!(rank, %error, "a tensor could not be sent");
            break;
        }
    }
    socket.shutdown(Shutdown::Write).ok();
}

/// Nothing panics while it holds the lock.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
