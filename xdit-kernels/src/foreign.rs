//! What other libraries, which give work to a GPU's queue, need of it.

use crate::{Device, Result, Tensor};
use std::ffi::c_void;

impl Device {
    /// Returns the stream of a GPU's queue, a `CUstream`, for libraries that give it work; `None` for the processor. It lives as long
    /// as this device or a clone of it. Requires the feature `cuda`.
    ///
    /// Work of the library uses memory of tensors in the order of this queue. Call [`note_cuda_use`](Self::note_cuda_use) for tensors
    /// of other queues, and order it after theirs by events.
    pub fn cuda_stream(&self) -> Option<*mut c_void> {
        self.cuda_queue().map(|queue| queue.raw_stream())
    }

    /// Returns the identity of a GPU, which no other GPU has, as `nvidia-smi -L` prints it; `None` for the processor. Requires the
    /// feature `cuda`.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn cuda_uuid(&self) -> Result<Option<String>> {
        let queue = self.cuda_queue();
        queue
            .map(|queue| queue.context().uuid("identify"))
            .transpose()
    }

    /// Makes the context of a GPU the calling thread's, as libraries of CUDA expect. Does nothing for the processor. Requires the
    /// feature `cuda`.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn make_cuda_current(&self) -> Result<()> {
        self.cuda_queue()
            .map_or(Ok(()), |queue| queue.bind("make current"))
    }

    /// Notes that a library gives this queue work with the memory of a tensor, which may be of another queue over the same memory.
    /// Drop the tensor after the work was given: its memory is then used again only after that work. Requires the feature `cuda`.
    pub fn note_cuda_use(&self, tensor: &Tensor) {
        if let Some(queue) = self.cuda_queue() {
            queue.note_use(tensor.as_ptr());
        }
    }
}
