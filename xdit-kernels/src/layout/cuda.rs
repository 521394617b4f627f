use crate::{CudaOrdinal, Result, View, ViewMut, dispatch::no_cuda_kernel};

/// Copies within one GPU's memory. Shapes are equal (checked by the caller).
pub(super) fn copy(
    op: &'static str,
    x: View<'_>,
    mut out: ViewMut<'_>,
    gpu: CudaOrdinal,
) -> Result<()> {
    if x.dtype() != out.dtype() || !x.is_contiguous() || !out.is_contiguous() {
        return no_cuda_kernel(op, gpu);
    }
    let queue = out.device().expect_cuda();
    // SAFETY: both are contiguous, of one shape and dtype, in memory of this GPU; `out` is borrowed exclusively.
    unsafe { queue.copy(op, x.ptr(), out.ptr(), x.numel() * x.dtype().size()) }
}
