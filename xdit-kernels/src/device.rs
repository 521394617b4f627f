//! Where tensors live and where their kernels run: a handle to a queue.

use crate::{Error, Result, Tier};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A handle to a queue: the memory that tensors lie in, and the line in which their kernels run. Cheap to clone; clones are
/// the same queue.
///
/// Every tensor knows its device by its storage, and a kernel runs on the device of its operands. Today each device is the
/// processor ([`DeviceKind::Cpu`]), with the instructions of one [`Tier`].
///
/// # Order
/// - Kernels given to one queue run in the order in which they were given.
/// - Queues that come from one device by [`fork`](Self::fork) share memory and run beside each other. Whoever writes on one
///   queue what another reads orders them: [`record`](Self::record) on the first, [`wait`](Self::wait) on the second.
/// - A call that starts a kernel may return before the kernel has run. Only the reads whose names end in `_blocking` and
///   [`synchronize`](Self::synchronize) wait for the queue, and only they report that a kernel failed after its start.
///
/// The processor's queue is the calling thread: its kernels have run when their calls return. `record` and `wait` do nothing
/// there, and code that uses them is right on every device.
///
/// # Which devices are equal
/// Two handles are equal if kernels take operands of both: the same memory and the same code, whichever the queue. Two
/// devices of the processor are equal if they have the same tier.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, Tensor, elementwise::add};
/// let compute = Device::cpu();
/// let x = Tensor::from_slice(&[1f32, 2.], [2], &compute)?;
/// // A second queue over the same memory waits for what the first has been given.
/// let send = compute.fork();
/// send.wait(&compute.record());
/// assert_eq!(send, compute);
/// let y = add(&x, &x)?.to_vec_blocking::<f32>()?;
/// assert_eq!((y, compute.host_reads()), (vec![2., 4.], 1));
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Clone)]
pub struct Device(Arc<Queue>);

/// One queue and what it shares with its forks.
struct Queue {
    kind: DeviceKind,
    /// Reads by the host of tensors of this queue and its forks.
    host_reads: Arc<AtomicU64>,
}

/// What a [`Device`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The processor, with the instructions of one tier.
    Cpu(Tier),
}

impl Device {
    /// The processor with the tier that is fastest on it ([`Tier::detect`]).
    pub fn cpu() -> Self {
        Self::new(DeviceKind::Cpu(Tier::detect()))
    }

    /// The processor with the instructions of this tier.
    ///
    /// # Errors
    /// [`Error::Device`] if this processor does not have them.
    pub fn cpu_with(tier: Tier) -> Result<Self> {
        if tier.is_available() {
            return Ok(Self::new(DeviceKind::Cpu(tier)));
        }
        Err(Error::Device {
            op: "device",
            reason: format!("this processor has no {tier}; it has {}", Tier::widest()),
        })
    }

    fn new(kind: DeviceKind) -> Self {
        Self(Arc::new(Queue {
            kind,
            host_reads: Arc::default(),
        }))
    }

    /// What kind of device this is.
    pub fn kind(&self) -> DeviceKind {
        self.0.kind
    }

    /// The instruction tier of the kernels that run on the processor.
    pub fn tier(&self) -> Tier {
        let DeviceKind::Cpu(tier) = self.0.kind;
        tier
    }

    /// Another queue over the same memory, which runs beside this one. Both count in the same
    /// [`host_reads`](Self::host_reads).
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(Arc::new(Queue {
            kind: self.0.kind,
            host_reads: Arc::clone(&self.0.host_reads),
        }))
    }

    /// An event that happens when everything that this queue was given so far has run.
    pub fn record(&self) -> Event {
        Event {
            queue: self.clone(),
        }
    }

    /// Makes all later work of this queue run after the event. Does not block the calling thread.
    pub fn wait(&self, event: &Event) {
        // The processor's queues run their kernels before the calls return: every event has happened.
        match (self.0.kind, event.queue.0.kind) {
            (DeviceKind::Cpu(_), DeviceKind::Cpu(_)) => (),
        }
    }

    /// Blocks the calling thread until everything that this queue was given has run.
    ///
    /// # Errors
    /// If a kernel failed after its call returned. None does on the processor.
    pub fn synchronize(&self) -> Result<()> {
        match self.0.kind {
            DeviceKind::Cpu(_) => Ok(()),
        }
    }

    /// How many times the host has read tensors of this device and of its forks: by
    /// [`Tensor::to_vec_blocking`](crate::Tensor::to_vec_blocking) and the other methods whose names end so. Kernels do not
    /// count.
    pub fn host_reads(&self) -> u64 {
        self.0.host_reads.load(Ordering::Relaxed)
    }

    /// Notes one read by the host.
    pub(crate) fn count_host_read(&self) {
        self.0.host_reads.fetch_add(1, Ordering::Relaxed);
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::cpu()
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.0.kind == other.0.kind
    }
}

impl Eq for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device {self}")
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind {
            DeviceKind::Cpu(tier) => write!(f, "cpu ({tier})"),
        }
    }
}

/// A point in a queue's work, made by [`Device::record`]: other queues wait for it by [`Device::wait`].
#[derive(Debug, Clone)]
pub struct Event {
    queue: Device,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn forks_count_reads_together_and_other_devices_do_not() {
        let device = Device::cpu();
        let (fork, other) = (device.fork(), Device::cpu());
        let tensor = |device: &Device| Tensor::from_slice(&[1f32], [1], device).unwrap();
        tensor(&device).to_vec_blocking::<f32>().unwrap();
        tensor(&fork.fork()).host_slice_blocking::<f32>().unwrap();
        assert_eq!((device.host_reads(), fork.host_reads()), (2, 2));
        assert_eq!(other.host_reads(), 0);
        assert_eq!((&device, &device), (&fork, &other));
    }

    #[test]
    fn a_tier_that_the_processor_lacks_is_refused() {
        for tier in crate::tier::ALL {
            match Device::cpu_with(tier) {
                Ok(device) => assert_eq!((device.tier(), true), (tier, tier.is_available())),
                Err(error) => {
                    assert!(!tier.is_available());
                    assert!(error.to_string().contains(&tier.to_string()), "{error}");
                }
            }
        }
    }
}
