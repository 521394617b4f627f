//! Memory of a GPU.

use super::stream::CudaStream;
use crate::Result;
use std::sync::Arc;

/// A piece of a GPU's memory. It returns to its queue in the order of the queue: what the queue was given before the drop may
/// still use it.
#[derive(Debug)]
pub(crate) struct CudaBuffer {
    /// 0 for a buffer without bytes.
    address: u64,
    len: usize,
    stream: Arc<CudaStream>,
}

impl CudaBuffer {
    /// Memory that is not initialised.
    pub(super) fn new(op: &'static str, len: usize, stream: &Arc<CudaStream>) -> Result<Self> {
        let mut address = 0;
        if len > 0 {
            stream.context.bind(op)?;
            // SAFETY: the pointer is to an address; the stream is of the current context.
            let status =
                unsafe { (stream.context.driver.cuMemAllocAsync)(&mut address, len, stream.raw) };
            stream.context.check(op, "cuMemAllocAsync", status)?;
        }
        Ok(Self {
            address,
            len,
            stream: Arc::clone(stream),
        })
    }

    /// Where it begins, aligned to 256 bytes: an address of the GPU, which the host does not dereference.
    pub(crate) fn ptr(&self) -> *mut u8 {
        std::ptr::without_provenance_mut(self.address as usize)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        if self.len > 0 && self.stream.context.bind("free").is_ok() {
            let context = &self.stream.context;
            // SAFETY: allocated in `new` on this stream, freed once, after everything that the stream was given.
            let status = unsafe { (context.driver.cuMemFreeAsync)(self.address, self.stream.raw) };
            if let Err(error) = context.check("free", "cuMemFreeAsync", status) {
                self.stream.note_failure(error);
            }
        }
    }
}
