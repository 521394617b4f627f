//! What a transport implements.

use crate::{Call, Result};
use std::{fmt, time::Duration};
use xdit_kernels::Tensor;

/// Something started that brings a `T`.
pub trait Ticket<T = Vec<Tensor>>: Send + fmt::Debug {
    /// What was started to arrive. A ticket of tensors brings those that the calls of its batch expect, call by call.
    ///
    /// On the processor it returns when they are there. On a device with a queue it only makes that queue wait: what the queue is
    /// given from now on sees the tensors. So its return says nothing about how far another rank is; ranks that must know that
    /// tell each other on the control plane.
    ///
    /// # Errors
    /// [`PeerLost`](crate::Error::PeerLost) if a rank that it needs failed; [`Disagree`](crate::Error::Disagree);
    /// [`Deadlock`](crate::Error::Deadlock).
    fn wait(self: Box<Self>) -> Result<T>;
}

/// One rank's end of a group: what a transport (threads, NCCL, MPI, a user's own) implements.
///
/// A group has two planes. On the *data plane* tensors of the group's device travel ([`start`](Self::start)). On the *control plane*
/// bytes of the host travel: flags, sums in f64, and why a rank has failed ([`start_control`](Self::start_control),
/// [`fail`](Self::fail)). Neither waits for the other.
///
/// # Contract
/// - Ranks start the same collectives in the same order, and the same exchanges of the control plane in the same order; the two
///   orders are independent. Between two ranks, messages arrive in the order sent.
/// - No method waits for another rank, but [`split`](Self::split).
/// - The calls of a batch progress together: none of them waits for another to end. An empty batch is done.
/// - **Batches.** Where [`receives_ahead`](Self::receives_ahead) is true, started batches progress beside each other. Where it is
///   false, a rank's batches run one after another in the order in which they were started, over all groups of its world: a
///   receive holds up what was started after it until its message comes, and a send until its receiver takes it. *There a receive
///   and the sends that it depends on, whoever makes them, are one batch.* Code that keeps to this runs on every backend.
/// - A started batch runs to its end, whether its ticket is waited for or dropped.
/// - A reduction has the same bytes on every rank; in which order ranks are added is the backend's choice.
/// - The first failure of any rank is kept, and travels on the control plane: it makes every started or later call on every rank return
///   within the deadline, with an error that names the rank at fault and its reason.
///
/// [`conformance`](crate::conformance) tests all of it.
pub trait Backend: Send + Sync + fmt::Debug {
    /// My index in the group.
    fn rank(&self) -> usize;
    /// How many ranks it has.
    fn world_size(&self) -> usize;

    /// Whether a receive may be started before the sends that it depends on, in a batch of its own. See the contract.
    fn receives_ahead(&self) -> bool;

    /// Starts the calls of a batch, which progress together; [`Group`](crate::Group) has checked their arguments.
    ///
    /// # Errors
    /// If a failure is already known.
    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Ticket>>;

    /// Starts to gather bytes of the host from every rank; they arrive in rank order, and need not be equally many. A rank that
    /// others wait for longer than `deadline` is lost; without one, a rank that makes no progress for the world's deadline.
    ///
    /// # Errors
    /// If a failure is already known.
    fn start_control(
        &self,
        bytes: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<Box<dyn Ticket<Vec<Vec<u8>>>>>;

    /// Tells all ranks of the world that this one has failed, and why. Only the first failure is kept.
    fn fail(&self, reason: &str);

    /// The subgroup of the ranks that give the same color, ordered by key, then rank. Collective.
    ///
    /// # Errors
    /// As a collective.
    fn split(&self, color: usize, key: usize) -> Result<Box<dyn Backend>>;

    /// Notes that this rank has finished an operation of its own, so that nobody takes it for lost. Cheap. A
    /// transport around another hands it on.
    ///
    /// # Errors
    /// If a failure is already known.
    fn progress(&self) -> Result<()> {
        Ok(())
    }
}
