//! What rank 0 still has to send to a rank. A thread of its own sends it, so that a rank that does not read holds up nobody.

use super::wire::Frame;
use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};

/// The most bytes that wait for a rank.
const MAX_WAITING: usize = 512 << 20;

/// The sending end of a connection. The connection is closed for writing when all clones are gone and everything is sent.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    sender: Sender<Arc<[u8]>>,
    waiting: Arc<AtomicUsize>,
}

impl Outbox {
    /// The outbox of a connection, and what its thread runs. A write that takes longer than `limit` breaks the connection.
    pub(super) fn new(mut stream: TcpStream, limit: Duration) -> (Self, impl FnOnce() + Send) {
        let (sender, receiver): (_, Receiver<Arc<[u8]>>) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let sent = waiting.clone();
        let send_all = move || {
            stream.set_write_timeout(Some(limit)).ok();
            for bytes in receiver {
                if stream.write_all(&bytes).is_err() {
                    // Its reader sees the end.
                    stream.shutdown(Shutdown::Both).ok();
                    return;
                }
                sent.fetch_sub(bytes.len(), Ordering::Relaxed);
            }
            stream.shutdown(Shutdown::Write).ok();
        };
        (Self { sender, waiting }, send_all)
    }

    /// Sends a frame, some time. Returns false if too much waits already.
    pub(super) fn send(&self, frame: &Frame) -> bool {
        self.send_bytes(frame.encode().into())
    }

    /// Sends the bytes of a frame.
    pub(super) fn send_bytes(&self, bytes: Arc<[u8]>) -> bool {
        let waits = self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        // Without its thread, the connection is gone, and its reader says so.
        self.sender.send(bytes).ok();
        waits <= MAX_WAITING
    }
}
