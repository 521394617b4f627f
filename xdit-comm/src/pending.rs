//! Started operations.

use crate::{Axis, Result, Ticket, stats::Counters};
use std::time::Instant;
use xdit_kernels::Tensor;

/// A started operation whose result is a `T`: the tensors of a batch, or the bytes of an exchange of the control plane. It owns the
/// data that it sends. If it is dropped, the operation still runs to its end, and its result is lost.
#[must_use = "a started operation is finished by wait()"]
#[derive(Debug)]
pub struct Pending<T = Vec<Tensor>> {
    ticket: Box<dyn Ticket<T>>,
    counters: Counters,
    op: &'static str,
    axis: Option<Axis>,
    bytes: usize,
}

impl<T> Pending<T> {
    pub(crate) fn new(
        ticket: Box<dyn Ticket<T>>,
        counters: Counters,
        axis: Option<Axis>,
        op: &'static str,
        bytes: usize,
    ) -> Self {
        Self {
            ticket,
            counters,
            op,
            axis,
            bytes,
        }
    }

    /// Waits for the result: the tensors that the calls of a batch expect, call by call, or each rank's part of an exchange, in rank
    /// order.
    ///
    /// # Errors
    /// [`PeerLost`](crate::Error::PeerLost), [`Disagree`](crate::Error::Disagree), [`Deadlock`](crate::Error::Deadlock).
    pub fn wait(self) -> Result<T> {
        let axis = self.axis.map_or("world", Axis::name);
        let bytes = self.bytes;
        let _span = tracing::trace_span!("collective", op = self.op, axis, bytes).entered();
        let start = Instant::now();
        let out = self.ticket.wait();
        self.counters.waited(self.op, self.axis, start.elapsed());
        out
    }
}

impl Pending {
    /// Waits for the only tensor of the operation.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    /// If the operation does not return exactly one tensor.
    pub fn wait_one(self) -> Result<Tensor> {
        let mut all = self.wait()?;
        assert_eq!(
            all.len(),
            1,
            "the backend brings as many tensors as were expected"
        );
        Ok(all.remove(0))
    }
}
