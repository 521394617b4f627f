use crate::{
    Result, View,
    cuda::{Args, CudaQueue, LaunchShape, MOST_BLOCKS_Y, PtxModule},
    cuda_rows::{kernel_of, vector_of},
    dtype::FloatType,
};

static MODULE: PtxModule = PtxModule {
    name: "finite",
    sm_80: include_str!("finite.sm_80.ptx"),
    sm_90a: None,
};

const FIRST: [&str; 3] = [
    "first_not_finite_f32",
    "first_not_finite_bf16",
    "first_not_finite_f16",
];
const COUNT: [&str; 3] = [
    "count_not_finite_f32",
    "count_not_finite_bf16",
    "count_not_finite_f16",
];

const THREADS: u32 = 256;
const MOST_BLOCKS: usize = 1024;

/// Blocks that share `n` elements.
fn blocks(n: usize, dtype: FloatType) -> u32 {
    let vectors = n.div_ceil(vector_of(dtype));
    vectors.div_ceil(THREADS as usize).min(MOST_BLOCKS) as u32
}

/// The index of the first element of x, which is contiguous, that is NaN or infinite. Waits for the GPU.
pub(super) fn first_not_finite_blocking(op: &'static str, x: View<'_>) -> Result<Option<usize>> {
    let (n, dtype) = (x.numel(), x.dtype().float(op)?);
    let queue = x.device().expect_cuda();
    let mut first = u64::MAX;
    let at = queue.alloc(op, size_of::<u64>())?;
    let shape = LaunchShape::rows(blocks(n, dtype), THREADS);
    let mut args = Args::new();
    args.push(x.ptr());
    args.push(n as u64);
    args.push(at.ptr());
    let host: *mut u64 = &raw mut first;
    // SAFETY: x is contiguous, n elements; `at` is the queue's own memory of one number, as is the host's.
    unsafe {
        queue.fill(op, at.ptr(), u8::MAX, size_of::<u64>())?;
        queue.launch(op, &MODULE, kernel_of(FIRST, dtype), shape, &args)?;
        queue.download_blocking(op, at.ptr(), host.cast(), size_of::<u64>())?;
    }
    Ok((first != u64::MAX).then_some(first as usize))
}

/// Adds how many elements of each entry of dim 0 of x, which is contiguous, are NaN or infinite to the f64 from `counts` on.
///
/// # Safety
/// `counts` points at as many numbers in the memory of `queue`.
pub(crate) unsafe fn add_not_finite(
    op: &'static str,
    queue: &CudaQueue,
    x: View<'_>,
    counts: *mut u8,
) -> Result<()> {
    let dtype = x.dtype().float(op)?;
    let entries = x.dim(0);
    let n = x.numel() / entries.max(1);
    for first in (0..entries).step_by(MOST_BLOCKS_Y) {
        let some = (entries - first).min(MOST_BLOCKS_Y);
        let mut args = Args::new();
        args.push(x.ptr().wrapping_add(first * n * x.dtype().size()));
        args.push(n as u64);
        args.push(n as u64);
        args.push(counts.wrapping_add(first * size_of::<f64>()));
        let shape = LaunchShape {
            grid: [blocks(n, dtype), some as u32, 1],
            block: [THREADS, 1, 1],
            shared_bytes: 0,
        };
        // SAFETY: x is contiguous, `entries` times n elements; the caller's promise for the counts, which are added to atomically.
        unsafe { queue.launch(op, &MODULE, kernel_of(COUNT, dtype), shape, &args)? };
    }
    Ok(())
}
