//! The traits that a transport implements.

use crate::{Call, Result};
use std::{fmt, time::Duration};
use xdit_kernels::{Device, Tensor};

/// A started operation whose result is a `T`.
pub trait Ticket<T = Vec<Tensor>>: Send + fmt::Debug {
    /// Waits for the result. A ticket of tensors returns the tensors that the calls of its batch expect, call by call.
    ///
    /// On the processor it returns when the tensors have arrived. On a device with a queue it only makes that queue wait: work that
    /// is queued from now on sees the tensors. Its return therefore does not show how far another rank is. Ranks that need to know
    /// this exchange it on the control plane.
    ///
    /// # Errors
    /// [`PeerLost`](crate::Error::PeerLost) if a rank of the operation failed; [`Disagree`](crate::Error::Disagree);
    /// [`Deadlock`](crate::Error::Deadlock).
    fn wait(self: Box<Self>) -> Result<T>;
}

/// One rank's end of a group. Each transport (threads, NCCL, MPI, a user's own) implements it.
///
/// A group has two planes. Tensors of the ranks' devices travel on the *data plane* ([`start`](Self::start)). Host bytes travel on
/// the *control plane*: flags, sums in f64, and the reason why a rank failed ([`start_control`](Self::start_control),
/// [`fail`](Self::fail)). Neither plane waits for the other.
///
/// # Contract
/// - Ranks start the same collectives in the same order, and the same exchanges of the control plane in the same order. The two
///   orders are independent. Messages between two ranks arrive in the order in which they were sent.
/// - No method except [`split`](Self::split) waits for another rank.
/// - The calls of a batch progress together: no call waits for the end of another. An empty batch is complete at once.
/// - **Batches.** If [`receives_ahead`](Self::receives_ahead) is true, started batches progress at the same time. If it is false,
///   the batches of a rank run one after another, in the order in which they were started, over all groups of its world: a receive
///   blocks later batches until its message arrives, and a send blocks them until its receiver takes the message. *There, a
///   receive and the sends that it depends on, on any rank, must be one batch.* Code that follows this rule runs on every backend.
/// - A started batch runs to its end, even if its ticket is dropped.
/// - A reduction returns the same bytes on every rank. The backend chooses the order in which it adds ranks.
/// - The backend keeps the first failure of any rank and sends it on the control plane. Every started or later call on every rank
///   then returns within the deadline, with an error that names the failed rank and its reason.
///
/// The tests in [`conformance`](crate::conformance) check this contract.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Returns the index of this rank in the group.
    fn rank(&self) -> usize;
    /// Returns the number of ranks.
    fn world_size(&self) -> usize;

    /// Returns the device of this rank, if the transport knows it. What the rank sends was written on this queue, or on one that
    /// the queue has waited for. What it receives is of this device, and its queue waits for the senders'.
    /// A backend that wraps another one must pass this on: otherwise nothing orders the rank's queue after what it receives.
    fn device(&self) -> Option<&Device> {
        None
    }

    /// Returns whether a receive may be started before the sends that it depends on, in its own batch. See the contract.
    fn receives_ahead(&self) -> bool;

    /// Starts the calls of a batch, which progress together. [`Group`](crate::Group) has checked their arguments.
    ///
    /// # Errors
    /// If a failure is already known.
    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Ticket>>;

    /// Starts to gather host bytes from every rank. They arrive in rank order. Ranks may send different numbers of bytes. A rank is
    /// lost if others wait for it longer than `deadline`. Without one, a rank is lost if it makes no progress for the deadline of the
    /// world.
    ///
    /// # Errors
    /// If a failure is already known.
    fn start_control(
        &self,
        bytes: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<Box<dyn Ticket<Vec<Vec<u8>>>>>;

    /// Reports to all ranks of the world that this one has failed, and why. Only the first failure is kept.
    fn fail(&self, reason: &str);

    /// Returns the subgroup of the ranks that pass the same color, ordered by key, then by rank. Collective.
    ///
    /// # Errors
    /// Those of a collective.
    fn split(&self, color: usize, key: usize) -> Result<Box<dyn Backend>>;

    /// Reports that this rank has finished an operation of its own, so that it does not count as lost. The call is cheap. A
    /// transport that wraps another passes it on.
    ///
    /// # Errors
    /// If a failure is already known.
    fn progress(&self) -> Result<()> {
        Ok(())
    }
}
