//! What moves the tensors of ranks that are processes.

use crate::{Call, Result};
use std::{fmt, time::Duration};
use xdit_kernels::{Device, Tensor};

/// Moves the tensors of one group between processes.
///
/// The control plane of [`processes`](crate::processes) does the rest: it brings the ranks together, compares their calls, and finds
/// out who failed. An error of a transport is therefore only a suspicion: before it counts, the ranks ask each other whether one of
/// them has died, or calls something else. The text of the error should say what the transport was doing.
///
/// # Contract
/// - Collectives of a group are started in the same order on all its ranks. Messages between two ranks of a group arrive in the
///   order in which they were started. [`Group`](crate::Group) has checked each call: its peer is a rank of the group, and its
///   tensors have the number that its operation needs.
/// - No method waits for another rank, except [`subgroup`](Self::subgroup).
/// - A reduction gives every rank the same bytes. It adds in f32 and rounds once.
/// - Ranks whose calls do not fit each other may get wrong tensors or an error. They must not get a process that crashes, nor
///   memory that is not initialised.
/// - The calls of a group come from one thread at a time. [`abort`](Self::abort) comes from any.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Returns whether a receive may be started before the sends that it depends on, in its own batch, as
    /// [`Backend::receives_ahead`](crate::Backend::receives_ahead) says.
    fn receives_ahead(&self) -> bool;

    /// Returns whether a send, once started, ends though its receive is not started: the transport keeps the tensor until it has
    /// gone. If so, the control plane never counts a send as a wait for its receiver. If not (the default), it finds ranks that
    /// wait for each other's receives.
    fn sends_end_alone(&self) -> bool {
        false
    }

    /// Returns the device of this rank, if the transport knows it, as [`Backend::device`](crate::Backend::device) says.
    fn device(&self) -> Option<&Device> {
        None
    }

    /// Starts a batch, whose calls progress together. Never waits for another rank.
    ///
    /// # Errors
    /// If the transport cannot start it, or has been aborted.
    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Transfer>>;

    /// Returns the transport of a subgroup. `members` are ranks of this group, in the order of the new one, and contain this rank.
    /// All ranks of this group call it after an exchange of the control plane, each with the color and the members of its own
    /// subgroup. It may wait for them.
    ///
    /// # Errors
    /// If the transport cannot make it, or has been aborted.
    fn subgroup(&self, color: usize, members: &[usize]) -> Result<Box<dyn Transport>>;

    /// Ends whatever is under way, on this transport and those of its subgroups: it soon fails, and nothing blocks any more. The
    /// control plane calls it after a failure, more than once, from any thread, also while another method runs.
    fn abort(&self);
}

/// A batch under way. If it is dropped, it still runs to its end: the transport keeps what it needs.
pub trait Transfer: Send + fmt::Debug {
    /// Returns the tensors that the calls of the batch expect, call by call, once all have arrived (on the processor) or are
    /// ordered on the rank's queue (on a GPU). Returns `None` before. Never waits. It is not called again after it has returned
    /// tensors or an error.
    ///
    /// # Errors
    /// If the transport has failed or has been aborted.
    fn poll(&mut self) -> Result<Option<Vec<Tensor>>>;

    /// Rests until [`poll`](Self::poll) may have something new, for `limit` at most. It may return at any time before.
    fn rest(&mut self, limit: Duration) {
        std::thread::sleep(limit);
    }
}
