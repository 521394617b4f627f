//! The end of a process' pipe that this program holds.

use std::io::Write;
use std::sync::mpsc;

use crate::run::control::Order;

/// Writes to the pipe of a process, in a thread, so that a process that reads nothing stops nobody. The pipe ends with this value
/// and with this program.
#[derive(Debug)]
pub(super) struct Channel(mpsc::Sender<Vec<u8>>);

impl Channel {
    /// Opens the channel and sends `first`.
    pub(super) fn open(
        mut pipe: impl Write + Send + 'static,
        first: Vec<u8>,
    ) -> std::io::Result<Self> {
        let (sender, words) = mpsc::channel::<Vec<u8>>();
        sender.send(first).ok();
        std::thread::Builder::new()
            .name("channel".into())
            .spawn(move || {
                for bytes in words {
                    // A process that has ended hears nothing.
                    if pipe.write_all(&bytes).and_then(|()| pipe.flush()).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self(sender))
    }

    /// Tells the process something, if it still runs.
    pub(super) fn tell(&self, order: &Order) {
        self.0.send(order.to_string().into_bytes()).ok();
    }
}
