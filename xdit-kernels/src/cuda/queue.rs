//! The queue of a device that is a GPU: a stream, and what it shares with its forks.

use super::{
    blocks::StreamId,
    buffer::CudaBuffer,
    context::{CudaContext, CudaOrdinal},
    driver::CudaDriver,
    error::device_error,
    launch::{Args, LaunchShape},
    module::{Modules, PtxModule},
    options::CudaOptions,
    pool::CudaPool,
    products::{ProductOperands, ProductShape, Products},
    relay::Relay,
    staging::{Staging, Upload},
    stream::{CudaEvent, CudaStream},
    tensor_map::{Boxes, TensorMap},
};
use crate::Result;
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::{ffi::c_void, sync::Arc};

/// One stream of a GPU. Addresses are the GPU's: the host does not dereference them.
#[derive(Debug)]
pub(crate) struct CudaQueue {
    stream: Arc<CudaStream>,
    id: StreamId,
    /// Whether no other queue has this stream.
    owns_stream: bool,
    shared: Arc<CudaShared>,
}

/// What a queue shares with its forks.
#[derive(Debug)]
struct CudaShared {
    modules: Modules,
    products: Products,
    staging: Staging,
    relay: Relay,
    pool: Arc<CudaPool>,
    /// Kernels launched so far.
    #[cfg(test)]
    launches: AtomicU64,
}

impl CudaQueue {
    /// The first queue of a GPU.
    ///
    /// # Errors
    /// One line that says why this GPU cannot be used.
    pub(crate) fn open(ordinal: CudaOrdinal, options: &CudaOptions) -> Result<Self> {
        const OP: &str = "device";
        let unusable = |reason| device_error(OP, reason);
        let driver = CudaDriver::open().map_err(unusable)?;
        let context = CudaContext::retain(driver, ordinal).map_err(unusable)?;
        let pool = Arc::new(CudaPool::new(&context));
        let (id, stream) = pool.stream(OP)?;
        Ok(Self {
            stream,
            id,
            owns_stream: true,
            shared: Arc::new(CudaShared {
                modules: Modules::new(&context),
                products: Products::new(&context, options),
                staging: Staging::new(&pool),
                relay: Relay::default(),
                pool,
                #[cfg(test)]
                launches: AtomicU64::new(0),
            }),
        })
    }

    /// Another queue over the same memory. If the driver gives no further stream, it is this queue's own stream, and the next
    /// [`synchronize`](Self::synchronize) reports why.
    pub(crate) fn fork(&self) -> Self {
        let own = self.shared.pool.stream("fork");
        let own = own.map_err(|error| self.stream.note_failure(error)).ok();
        let owns_stream = own.is_some();
        let (id, stream) = own.unwrap_or_else(|| (self.id, Arc::clone(&self.stream)));
        Self {
            stream,
            id,
            owns_stream,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Whether both come from one call of [`open`](Self::open).
    pub(crate) fn shares_memory_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.stream.context
    }

    /// Its `CUstream`, for other libraries.
    pub(crate) fn raw_stream(&self) -> *mut c_void {
        self.stream.raw.cast()
    }

    /// Makes its context the calling thread's, for calls of other libraries.
    pub(crate) fn bind(&self, op: &'static str) -> Result<()> {
        self.context().bind(op)
    }

    /// Notes that another library is given work of this queue with the memory at an address.
    pub(crate) fn note_use(&self, address: *const u8) {
        (self.shared.pool).note_uses(&[address.addr() as u64], self.id);
    }

    /// Memory for `bytes` bytes, not initialised: outputs and the scratch of kernels.
    pub(crate) fn alloc(&self, op: &'static str, bytes: usize) -> Result<CudaBuffer> {
        CudaBuffer::new(op, bytes, &self.shared.pool, self.id)
    }

    /// Kernels that this queue and its forks were given; products are cuBLASLt's and do not count.
    #[cfg(test)]
    pub(crate) fn launches(&self) -> u64 {
        self.shared.launches.load(Ordering::Relaxed)
    }

    /// The pool of this GPU's memory.
    pub(crate) fn pool(&self) -> &CudaPool {
        &self.shared.pool
    }

    /// Whether this GPU gets the kernels of a module that are for capability 9.0 alone.
    pub(crate) fn has_sm_90a(&self, module: &PtxModule) -> bool {
        self.shared.modules.have_sm_90a(module)
    }

    /// What the copy unit of capability 9.0 needs to know of a tensor.
    pub(crate) fn tensor_map(&self, op: &'static str, boxes: &Boxes) -> Result<TensorMap> {
        TensorMap::encode(self.context(), op, boxes)
    }

    /// Launches a kernel, unless its grid is empty. It has run when the queue gets there.
    ///
    /// # Safety
    /// The arguments are those of the kernel. Whatever it reads and writes through them lies in memory of this GPU that stays
    /// until the kernel has run: memory of tensors and buffers does, because the pool notes this use of it.
    /// No other queue writes what it reads, or reads or writes what it writes, unless events order them.
    pub(crate) unsafe fn launch(
        &self,
        op: &'static str,
        module: &'static PtxModule,
        kernel: &'static str,
        shape: LaunchShape,
        args: &Args,
    ) -> Result<()> {
        if shape.is_empty() {
            return Ok(());
        }
        let function = (self.shared.modules).function(op, module, kernel, shape, args)?;
        self.shared.pool.note_uses(args.addresses(), self.id);
        // SAFETY: the caller's promise; `function` has checked what the driver knows of the arguments.
        unsafe { super::launch::launch(op, &self.stream, &function, kernel, shape, args)? };
        #[cfg(test)]
        self.shared.launches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A matrix product, in the order of this queue.
    ///
    /// # Safety
    /// The operands lie there as the shape says, in memory as [`launch`](Self::launch) demands.
    pub(crate) unsafe fn product(
        &self,
        op: &'static str,
        shape: ProductShape,
        operands: ProductOperands,
    ) -> Result<()> {
        let ProductOperands { x, weight, bias, y } = operands;
        let addresses = [x, weight, bias, y.cast_const()].map(|ptr| ptr.addr() as u64);
        self.shared.pool.note_uses(&addresses, self.id);
        let scratch = |bytes| self.alloc(op, bytes);
        // SAFETY: the caller's promise.
        unsafe { (self.shared.products).run(op, self.stream.raw, shape, operands, scratch) }
    }

    /// Sets each byte to `byte`.
    ///
    /// # Safety
    /// `bytes` bytes lie at `to`, memory as [`launch`](Self::launch) demands.
    pub(crate) unsafe fn fill(
        &self,
        op: &'static str,
        to: *mut u8,
        byte: u8,
        bytes: usize,
    ) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let context = self.context();
        self.shared.pool.note_uses(&[to.addr() as u64], self.id);
        context.bind(op)?;
        // SAFETY: the caller's promise.
        let status = unsafe {
            (context.driver.cuMemsetD8Async)(to.addr() as u64, byte, bytes, self.stream.raw)
        };
        context.check(op, "cuMemsetD8Async", status)
    }

    /// Copies within this GPU's memory.
    ///
    /// # Safety
    /// `bytes` bytes lie at `from` and at `to`, memory as [`launch`](Self::launch) demands, and they do not overlap.
    pub(crate) unsafe fn copy(
        &self,
        op: &'static str,
        from: *const u8,
        to: *mut u8,
        bytes: usize,
    ) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let context = self.context();
        let (from, to) = (from.addr() as u64, to.addr() as u64);
        self.shared.pool.note_uses(&[from, to], self.id);
        context.bind(op)?;
        // SAFETY: the caller's promise.
        let status =
            unsafe { (context.driver.cuMemcpyDtoDAsync_v2)(to, from, bytes, self.stream.raw) };
        context.check(op, "cuMemcpyDtoDAsync", status)
    }

    /// Copies from the host's memory to new memory, beside what this queue was given so far. The bytes have been read when the
    /// call returns. What this queue is given later runs after the copy.
    ///
    /// # Safety
    /// `bytes` bytes lie at `from`.
    pub(crate) unsafe fn upload_new(
        &self,
        op: &'static str,
        from: *const u8,
        bytes: usize,
    ) -> Result<CudaBuffer> {
        let mut upload = self.begin_upload(op, bytes)?;
        // SAFETY: the caller's promise.
        unsafe { self.append_upload(op, &mut upload, from, bytes)? };
        self.finish_upload(op, upload)
    }

    /// New memory of `bytes` bytes, to be filled from the host beside what this queue was given so far.
    pub(crate) fn begin_upload(&self, op: &'static str, bytes: usize) -> Result<Upload> {
        self.shared.staging.begin(op, bytes)
    }

    /// Copies from the host's memory to the next bytes of an upload. The bytes have been read when the call returns.
    ///
    /// # Safety
    /// `bytes` bytes lie at `from`.
    pub(crate) unsafe fn append_upload(
        &self,
        op: &'static str,
        upload: &mut Upload,
        from: *const u8,
        bytes: usize,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.shared.staging.append(op, upload, from, bytes) }
    }

    /// The memory of an upload, all of whose bytes were copied. What this queue is given later runs after the copies.
    pub(crate) fn finish_upload(&self, op: &'static str, upload: Upload) -> Result<CudaBuffer> {
        self.shared.staging.finish(op, upload, &self.stream)
    }

    /// How many of the last copies from and to the host nobody has waited for.
    #[cfg(test)]
    pub(super) fn copies_in_flight(&self) -> usize {
        self.shared.staging.copies_in_flight()
    }

    /// Copies to the host's memory, after everything that this queue was given, and waits until that is done.
    ///
    /// # Safety
    /// `bytes` bytes lie at `from`, memory as [`launch`](Self::launch) demands, and as many at `to`, which nobody else uses.
    pub(crate) unsafe fn download_blocking(
        &self,
        op: &'static str,
        from: *const u8,
        to: *mut u8,
        bytes: usize,
    ) -> Result<()> {
        // First, so that copies for other queues do not stand behind what this queue computes.
        self.synchronize(op)?;
        // SAFETY: the caller's promise; whatever writes what is read has run.
        unsafe { (self.shared.staging).download(op, from.addr() as u64, to, bytes) }
    }

    /// Copies to memory of another queue, whose GPU may be another one, after everything that both queues were given so far.
    /// What `other` is given later runs after the copy. Between GPUs that do not reach each other's memory, the bytes go through
    /// pinned memory of the host.
    ///
    /// # Safety
    /// `bytes` bytes lie at `from` in memory of this queue and at `to` in memory of `other`, as [`launch`](Self::launch)
    /// demands.
    pub(crate) unsafe fn send(
        &self,
        op: &'static str,
        from: *const u8,
        other: &Self,
        to: *mut u8,
        bytes: usize,
    ) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.shared.pool.note_uses(&[from.addr() as u64], self.id);
        other.shared.pool.note_uses(&[to.addr() as u64], other.id);
        let (ours, theirs) = (self.context(), other.context());
        if !ours.reaches(theirs, op)? {
            let (from, to) = (from.addr() as u64, to.addr() as u64);
            let relay = &self.shared.relay;
            // SAFETY: the caller's promise.
            return unsafe { relay.copy(op, [&self.stream, &other.stream], from, to, bytes) };
        }
        self.stream.wait(&other.stream.record()?)?;
        ours.bind(op)?;
        // SAFETY: the caller's promise.
        let status = unsafe {
            (ours.driver.cuMemcpyPeerAsync)(
                to.addr() as u64,
                theirs.raw,
                from.addr() as u64,
                ours.raw,
                bytes,
                self.stream.raw,
            )
        };
        ours.check(op, "cuMemcpyPeerAsync", status)?;
        other.stream.wait(&self.stream.record()?)
    }

    /// An event that happens when everything that this queue was given so far has run; none if the driver refuses, which the
    /// next [`synchronize`](Self::synchronize) reports.
    pub(crate) fn record(&self) -> Option<CudaEvent> {
        let event = self.stream.record();
        event.map_err(|e| self.stream.note_failure(e)).ok()
    }

    /// An event that notes the time when everything that this queue was given so far has run.
    pub(crate) fn timestamp(&self) -> Result<CudaEvent> {
        self.stream.timestamp()
    }

    /// Makes all later work of this queue run after the event.
    pub(crate) fn wait(&self, event: &CudaEvent) {
        if let Err(error) = self.stream.wait(event) {
            self.stream.note_failure(error);
        }
    }

    /// Blocks the calling thread until everything that this queue was given has run.
    ///
    /// # Errors
    /// If a kernel failed, or a call that returns no error.
    pub(crate) fn synchronize(&self, op: &'static str) -> Result<()> {
        self.stream.synchronize(op)
    }
}

impl Drop for CudaQueue {
    fn drop(&mut self) {
        if self.owns_stream {
            self.shared.pool.give_back(self.id);
        }
    }
}
