//! Pinned memory of the host, which GPUs read and write beside the processor.

use super::context::CudaContext;
use crate::{Error, Result};
use std::{ffi::c_void, ptr::NonNull, sync::Arc};

/// Bytes of a piece: large enough that starting a copy costs little, small enough that the first one starts soon.
pub(crate) const PIECE: usize = 4 << 20;

/// `cuMemHostAlloc`: the memory is pinned for every context.
const PORTABLE: u32 = 1;

/// A piece of pinned memory, for every GPU. Who drops it has seen to it that no copy uses it.
#[derive(Debug)]
pub(super) struct PinnedMemory {
    memory: NonNull<u8>,
    context: Arc<CudaContext>,
}

// SAFETY: the memory is this piece's alone.
unsafe impl Send for PinnedMemory {}

impl PinnedMemory {
    /// [`PIECE`] bytes.
    pub(super) fn new(op: &'static str, context: &Arc<CudaContext>) -> Result<Self> {
        context.bind(op)?;
        let mut memory: *mut c_void = std::ptr::null_mut();
        // SAFETY: the pointer is to a pointer, and the context is current.
        let status = unsafe { (context.driver.cuMemHostAlloc)(&mut memory, PIECE, PORTABLE) };
        context.check(op, "cuMemHostAlloc", status)?;
        let memory = NonNull::new(memory.cast::<u8>());
        Ok(Self {
            memory: memory.ok_or(Error::OutOfMemory { op, bytes: PIECE })?,
            context: Arc::clone(context),
        })
    }

    pub(super) fn ptr(&self) -> *mut u8 {
        self.memory.as_ptr()
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        if self.context.bind("pinned memory").is_ok() {
            // SAFETY: allocated in `new`, freed once, and no copy uses it.
            unsafe { (self.context.driver.cuMemFreeHost)(self.memory.as_ptr().cast()) };
        }
    }
}
