//! The memory pool of a GPU: segments from the driver, blocks of them for tensors, in the order of streams.

use super::{
    blocks::{PoolBlocks, StreamId, rounded, segment_sizes},
    context::CudaContext,
    error::{OUT_OF_MEMORY, SUCCESS},
    stream::{CudaEvent, CudaStream},
};
use crate::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a GPU's memory, as the pool counts them that a [`Device`](crate::Device) shares with its forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CudaMemoryUse {
    /// What tensors and the scratch of kernels take now.
    pub in_use: usize,
    /// The most that they have taken at a time.
    pub peak: usize,
    /// What the pool has from the driver: in use, or kept for what comes.
    pub held: usize,
    /// What the driver has free beside that, for this program and others; `None` if it does not say.
    pub free: Option<usize>,
}

/// The memory and the streams of one GPU that a device and its forks share.
///
/// A block belongs to a stream. When its tensor is dropped, that stream may use it again at once: whatever it was given
/// before runs before. If other streams were given work with the block, its stream waits for them by events first.
#[derive(Debug)]
pub(crate) struct CudaPool {
    pub(super) context: Arc<CudaContext>,
    state: Mutex<PoolState>,
}

#[derive(Debug, Default)]
struct PoolState {
    blocks: PoolBlocks<CudaEvent>,
    /// By their numbers. They live as long as the pool, so that work of a queue that is gone can still be waited for.
    streams: Vec<Arc<CudaStream>>,
    /// Streams whose queue is gone, for the next fork.
    idle: Vec<StreamId>,
}

impl CudaPool {
    pub(super) fn new(context: &Arc<CudaContext>) -> Self {
        Self {
            context: Arc::clone(context),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream that no queue has, and its number.
    pub(super) fn stream(&self, op: &'static str) -> Result<(StreamId, Arc<CudaStream>)> {
        let mut state = self.state();
        if let Some(id) = state.idle.pop() {
            return Ok((id, Arc::clone(&state.streams[id])));
        }
        let stream = Arc::new(CudaStream::new(op, &self.context)?);
        state.streams.push(Arc::clone(&stream));
        Ok((state.streams.len() - 1, stream))
    }

    /// Takes back a stream whose queue is gone. What it was given still runs.
    pub(super) fn give_back(&self, stream: StreamId) {
        self.state().idle.push(stream);
    }

    /// A block of at least `bytes` bytes, which is not 0, that the stream may use in its order.
    pub(super) fn take(&self, op: &'static str, bytes: usize, id: StreamId) -> Result<u64> {
        let mut state = self.state();
        let rounded = rounded(bytes).ok_or(Error::OutOfMemory { op, bytes })?;
        let stream = Arc::clone(&state.streams[id]);
        self.provide(op, &mut state, rounded, id)?;
        let Some((address, after)) = state.blocks.take(rounded, id) else {
            return Err(self.out_of_memory(op, bytes, &state));
        };
        for event in after {
            if stream.wait(&event).is_err() {
                // The block is the stream's from now on, so this thread waits instead.
                event.synchronize()?;
            }
        }
        Ok(address)
    }

    /// Sees to it that the stream has a free block of `bytes` rounded bytes, if there is one to be had.
    fn provide(
        &self,
        op: &'static str,
        state: &mut PoolState,
        bytes: usize,
        id: StreamId,
    ) -> Result<()> {
        if state.blocks.has_free(bytes, id) || self.grow(op, state, bytes, id)? {
            return Ok(());
        }
        // The driver has no more. Another stream's free block, after what that stream was given so far.
        if let Some(other) = state.blocks.other_with(bytes, id) {
            let event = state.streams[other].record()?;
            state.blocks.adopt(bytes, other, id, event);
            return Ok(());
        }
        // Segments that nothing uses go back to the driver, which may then give one that is large enough.
        self.trim_state(op, state)?;
        self.grow(op, state, bytes, id).map(drop)
    }

    /// Gets a segment from the driver; false if it has no memory for it.
    fn grow(
        &self,
        op: &'static str,
        state: &mut PoolState,
        bytes: usize,
        id: StreamId,
    ) -> Result<bool> {
        self.context.bind(op)?;
        for len in segment_sizes(bytes) {
            let mut address = 0;
            // SAFETY: the pointer is to an address, and the context is current.
            match unsafe { (self.context.driver.cuMemAlloc_v2)(&mut address, len) } {
                SUCCESS => {
                    state.blocks.add_segment(address, len, bytes, id);
                    return Ok(true);
                }
                OUT_OF_MEMORY => {}
                status => self.context.check(op, "cuMemAlloc", status)?,
            }
        }
        Ok(false)
    }

    /// Notes that a stream is given work with the memory at these addresses. Those that are not of this pool are left out.
    pub(super) fn note_uses(&self, addresses: &[u64], id: StreamId) {
        let mut state = self.state();
        if state.streams.len() > 1 {
            for &address in addresses {
                state.blocks.note_use(address, id);
            }
        }
    }

    /// Frees a block that `take` gave to this stream.
    pub(super) fn release(&self, address: u64) {
        let mut state = self.state();
        let PoolState {
            blocks, streams, ..
        } = &mut *state;
        blocks.release(address, |reader| match streams[reader].record() {
            Ok(event) => Some(event),
            Err(error) => {
                // The GPU failed: nothing runs any more that could read the block.
                streams[reader].note_failure(error);
                None
            }
        });
    }

    /// Gives the driver back what nothing uses. Waits for the GPU.
    pub(crate) fn trim(&self, op: &'static str) -> Result<()> {
        self.trim_state(op, &mut self.state())
    }

    fn trim_state(&self, op: &'static str, state: &mut PoolState) -> Result<()> {
        self.context.bind(op)?;
        // SAFETY: takes nothing; the context is current.
        let status = unsafe { (self.context.driver.cuCtxSynchronize)() };
        self.context.check(op, "cuCtxSynchronize", status)?;
        for segment in state.blocks.take_unused_segments() {
            // SAFETY: the segment came from `cuMemAlloc`, no block of it is used, and the GPU has run everything.
            let status = unsafe { (self.context.driver.cuMemFree_v2)(segment) };
            self.context.check(op, "cuMemFree", status)?;
        }
        Ok(())
    }

    pub(crate) fn memory_use(&self) -> CudaMemoryUse {
        let free = self.context.memory("memory").ok().map(|(free, _)| free);
        let state = self.state();
        CudaMemoryUse {
            in_use: state.blocks.in_use,
            peak: state.blocks.peak,
            held: state.blocks.held,
            free,
        }
    }

    /// Begins the count of the peak anew, from what is in use now.
    pub(crate) fn reset_peak(&self) {
        let mut state = self.state();
        state.blocks.peak = state.blocks.in_use;
    }

    fn out_of_memory(&self, op: &'static str, bytes: usize, state: &PoolState) -> Error {
        let (free, total) = self.context.memory(op).unwrap_or((0, 0));
        Error::DeviceOutOfMemory {
            op,
            device: self.context.ordinal.to_string(),
            bytes,
            free,
            total,
            in_use: state.blocks.in_use,
            cached: state.blocks.held - state.blocks.in_use,
        }
    }
}

impl Drop for CudaPool {
    fn drop(&mut self) {
        if self.context.bind("pool").is_err() {
            return;
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Kernels may still run. If one failed, there is nothing left to wait for.
        // SAFETY: takes nothing; the context is current.
        unsafe { (self.context.driver.cuCtxSynchronize)() };
        for segment in state.blocks.take_unused_segments() {
            // SAFETY: as in `trim_state`: every buffer holds the pool, so no block is used.
            unsafe { (self.context.driver.cuMemFree_v2)(segment) };
        }
    }
}
