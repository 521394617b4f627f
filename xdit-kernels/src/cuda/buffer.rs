//! Memory of a GPU.

use super::{blocks::StreamId, pool::CudaPool};
use crate::Result;
use std::sync::Arc;

/// A piece of a GPU's memory, of one stream's. It returns to the pool in the order of that stream, and after the work with it
/// that other streams were given: it may be dropped while kernels still use it.
#[derive(Debug)]
pub(crate) struct CudaBuffer {
    /// 0 for a buffer without bytes.
    address: u64,
    len: usize,
    pool: Arc<CudaPool>,
}

impl CudaBuffer {
    /// Memory that is not initialised.
    pub(super) fn new(
        op: &'static str,
        len: usize,
        pool: &Arc<CudaPool>,
        stream: StreamId,
    ) -> Result<Self> {
        let address = match len {
            0 => 0,
            _ => pool.take(op, len, stream)?,
        };
        Ok(Self {
            address,
            len,
            pool: Arc::clone(pool),
        })
    }

    /// Where it begins, aligned to 512 bytes: an address of the GPU, which the host does not dereference.
    pub(crate) fn ptr(&self) -> *mut u8 {
        std::ptr::without_provenance_mut(self.address as usize)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        if self.len > 0 {
            self.pool.release(self.address);
        }
    }
}
