//! Where tensors live and where their kernels run: a handle to a queue.

#[cfg(feature = "cuda")]
use crate::cuda::{CudaEvent, CudaMemoryUse, CudaOptions, CudaOrdinal, CudaQueue};
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
/// Every tensor knows its device by its storage, and a kernel runs on the device of its operands. A device is the processor
/// ([`DeviceKind::Cpu`]) with the instructions of one [`Tier`], or, with the feature `cuda`, an NVIDIA GPU (`Device::cuda`).
///
/// # Order
/// - Kernels given to one queue run in the order in which they were given. An operation that writes into a view runs on the
///   queue of that view; one that returns a tensor, on the queue of the operand that gives the result its dtype.
/// - Queues that come from one device by [`fork`](Self::fork) share memory and run beside each other. Whoever writes on one
///   queue what another reads orders them: [`record`](Self::record) on the first, [`wait`](Self::wait) on the second.
/// - A call that starts a kernel may return before the kernel has run. Only reads whose names end in `_blocking`,
///   [`synchronize`](Self::synchronize) and [`Event::wait_blocking`] wait, and only they report that a kernel failed after
///   its start.
///
/// The processor's queue is the calling thread: its kernels have run when their calls return. `record` does nothing there, and
/// `wait` blocks the thread until the event of a GPU. Code that uses them is right on every device.
///
/// # Which devices are equal
/// Two handles are equal if kernels take operands of both: the same memory and the same code, whichever the queue. Two
/// devices of the processor are equal if they have the same tier; two GPUs if they come from one call of `Device::cuda`.
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
    #[cfg(feature = "cuda")]
    cuda: Option<CudaQueue>,
    /// Reads by the host of tensors of this queue and its forks.
    host_reads: Arc<AtomicU64>,
}

/// What a [`Device`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The processor, with the instructions of one tier.
    Cpu(Tier),
    /// An NVIDIA GPU, by its place in the driver's list. Requires the feature `cuda`.
    #[cfg(feature = "cuda")]
    Cuda(CudaOrdinal),
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

    /// A device that is only compared with others.
    #[cfg(test)]
    pub(crate) fn of_any_tier(tier: Tier) -> Self {
        Self::new(DeviceKind::Cpu(tier))
    }

    /// An NVIDIA GPU, by its place in the driver's list. Requires the feature `cuda`.
    ///
    /// Opens the driver of this machine. Each call gives a device of its own, with its own memory and queue;
    /// [`fork`](Self::fork) gives queues that share memory.
    ///
    /// # Errors
    /// [`Error::Device`] says in one line why the GPU cannot be used: no driver, one older than 525 (CUDA 12.0), no such GPU, or
    /// one of a compute capability below 8.0.
    #[cfg(feature = "cuda")]
    pub fn cuda(ordinal: u32) -> Result<Self> {
        Self::cuda_with(ordinal, &CudaOptions::default())
    }

    /// As [`cuda`](Self::cuda), with options. Requires the feature `cuda`.
    ///
    /// # Errors
    /// As [`cuda`](Self::cuda).
    #[cfg(feature = "cuda")]
    pub fn cuda_with(ordinal: u32, options: &CudaOptions) -> Result<Self> {
        let ordinal = CudaOrdinal(ordinal);
        Ok(Self(Arc::new(Queue {
            kind: DeviceKind::Cuda(ordinal),
            cuda: Some(CudaQueue::open(ordinal, options)?),
            host_reads: Arc::default(),
        })))
    }

    fn new(kind: DeviceKind) -> Self {
        Self(Arc::new(Queue {
            kind,
            #[cfg(feature = "cuda")]
            cuda: None,
            host_reads: Arc::default(),
        }))
    }

    /// What kind of device this is.
    pub fn kind(&self) -> DeviceKind {
        self.0.kind
    }

    /// The instruction tier of the kernels that run on the processor: beside a GPU, the fastest one ([`Tier::detect`]).
    pub fn tier(&self) -> Tier {
        match self.0.kind {
            DeviceKind::Cpu(tier) => tier,
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(_) => Tier::detect(),
        }
    }

    /// This device if it reads the host's memory, otherwise the processor.
    pub(crate) fn or_cpu(&self) -> Self {
        match self.is_cpu() {
            true => self.clone(),
            false => Self::cpu(),
        }
    }

    /// Returns whether the kernels run on the processor. The host then reads and writes the memory.
    pub fn is_cpu(&self) -> bool {
        matches!(self.0.kind, DeviceKind::Cpu(_))
    }

    /// The queue of a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn cuda_queue(&self) -> Option<&CudaQueue> {
        self.0.cuda.as_ref()
    }

    /// The queue of a device whose kind is a GPU: for the arms of a dispatch by kind.
    #[cfg(feature = "cuda")]
    pub(crate) fn expect_cuda(&self) -> &CudaQueue {
        match &self.0.cuda {
            Some(queue) => queue,
            None => unreachable!("a device whose kind is a GPU has its queue"),
        }
    }

    /// Another queue over the same memory, which runs beside this one. Both count in the same
    /// [`host_reads`](Self::host_reads). If a GPU gives no further queue, it is this queue itself, and its next
    /// [`synchronize`](Self::synchronize) or read is an error that says why.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(Arc::new(Queue {
            kind: self.0.kind,
            #[cfg(feature = "cuda")]
            cuda: self.0.cuda.as_ref().map(CudaQueue::fork),
            host_reads: Arc::clone(&self.0.host_reads),
        }))
    }

    /// An event that happens when everything that this queue was given so far has run.
    pub fn record(&self) -> Event {
        Event {
            #[cfg(feature = "cuda")]
            cuda: (self.0.cuda.as_ref())
                .and_then(CudaQueue::record)
                .map(Arc::new),
        }
    }

    /// Makes all later work of this queue run after the event. Does not block the calling thread, unless this is the processor,
    /// whose queue is that thread, and the event is a GPU's.
    pub fn wait(&self, event: &Event) {
        // An event of the processor has happened: its kernels run before their calls return.
        #[cfg(feature = "cuda")]
        if let Some(event) = &event.cuda {
            match &self.0.cuda {
                Some(queue) => queue.wait(event),
                // Its own queue reports the failure of a GPU.
                None => drop(event.synchronize()),
            }
        }
        #[cfg(not(feature = "cuda"))]
        let Event {} = event;
    }

    /// Blocks the calling thread until everything that this queue was given has run.
    ///
    /// # Errors
    /// If a kernel failed after its call returned. None does on the processor.
    pub fn synchronize(&self) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(queue) = &self.0.cuda {
            return queue.synchronize("synchronize");
        }
        Ok(())
    }

    /// How much of a GPU's memory tensors of this device and its forks use; `None` for the processor. Requires the feature
    /// `cuda`.
    #[cfg(feature = "cuda")]
    pub fn cuda_memory(&self) -> Option<CudaMemoryUse> {
        (self.0.cuda.as_ref()).map(|queue| queue.pool().memory_use())
    }

    /// Bytes of a GPU's memory that tensors of this device and its forks can still take: what the driver has free, and what the
    /// pool keeps. `None` for the processor, and if the driver does not say.
    pub fn available_memory(&self) -> Option<u64> {
        #[cfg(feature = "cuda")]
        if let Some(memory) = self.cuda_memory() {
            return Some((memory.free? + memory.held - memory.in_use) as u64);
        }
        None
    }

    /// Begins the count of [`CudaMemoryUse::peak`] anew, from what is in use now. Requires the feature `cuda`.
    #[cfg(feature = "cuda")]
    pub fn reset_cuda_peak(&self) {
        if let Some(queue) = &self.0.cuda {
            queue.pool().reset_peak();
        }
    }

    /// Gives the driver back the memory that no tensor uses, for other programs. Waits for the GPU. Requires the feature
    /// `cuda`.
    ///
    /// # Errors
    /// If a kernel failed.
    #[cfg(feature = "cuda")]
    pub fn trim_cuda_memory(&self) -> Result<()> {
        let queue = self.0.cuda.as_ref();
        queue.map_or(Ok(()), |queue| queue.pool().trim("trim"))
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
        #[cfg(feature = "cuda")]
        if let (Some(ours), Some(theirs)) = (&self.0.cuda, &other.0.cuda) {
            return ours.shares_memory_with(theirs);
        }
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
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(ordinal) => write!(f, "{ordinal}"),
        }
    }
}

/// A point in a queue's work, made by [`Device::record`]: other queues wait for it by [`Device::wait`].
#[derive(Debug, Clone)]
pub struct Event {
    /// None for an event of the processor, which has happened.
    #[cfg(feature = "cuda")]
    cuda: Option<Arc<CudaEvent>>,
}

impl PartialEq for Event {
    /// Whether they come from one [`Device::record`]. Events of the processor are all alike: they have happened.
    fn eq(&self, other: &Self) -> bool {
        #[cfg(feature = "cuda")]
        match (&self.cuda, &other.cuda) {
            (Some(ours), Some(theirs)) => return Arc::ptr_eq(ours, theirs),
            (None, None) => {}
            _ => return false,
        }
        // No field to compare.
        #[cfg(not(feature = "cuda"))]
        let Self {} = other;
        true
    }
}

impl Eq for Event {}

impl Event {
    /// Blocks the calling thread until the event has happened. Returns at once for an event of the processor.
    ///
    /// # Errors
    /// If the GPU failed.
    pub fn wait_blocking(&self) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(event) = &self.cuda {
            return event.synchronize();
        }
        Ok(())
    }

    /// Whether the event has happened. Waits for nothing. An event of the processor has.
    ///
    /// # Errors
    /// If the GPU failed.
    pub fn has_happened(&self) -> Result<bool> {
        #[cfg(feature = "cuda")]
        if let Some(event) = &self.cuda {
            return event.has_happened();
        }
        Ok(true)
    }
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
