//! Sums of chunks, then the sum of these for each number: the order follows from shapes alone.

use crate::{
    Device, Result, View,
    cuda::{Args, CudaQueue, DeviceWalk, LaunchShape, MOST_BLOCKS_Y, PtxModule},
    cuda_rows::{KernelOperand, by_vectors, kernel_of, vector_of},
    finite::add_not_finite,
    layout,
    rows::Operand,
};

static MODULE: PtxModule = PtxModule {
    name: "sums",
    sm_80: include_str!("sums.sm_80.ptx"),
    sm_90a: None,
};

const DISTANCE: [&str; 3] = ["distance_f32", "distance_bf16", "distance_f16"];
const MOMENTS: [&str; 3] = ["moments_f32", "moments_bf16", "moments_f16"];

/// Elements of a chunk, and threads of a block: those of sums.cu.
const CHUNK: usize = 8192;
const THREADS: u32 = 256;

/// Chunks of a walk by vectors: rows that are not whole vectors count as if they were.
fn chunks<const N: usize>(walk: &DeviceWalk<N>, vector: usize) -> u32 {
    let elements = walk.row_count() * walk.len().next_multiple_of(vector);
    elements.div_ceil(CHUNK) as u32
}

/// Adds `chunks` partial sums for each of `count` numbers.
///
/// # Safety
/// `partials` and `to` point at so many f64 in the memory of `queue`.
unsafe fn add_partials(
    op: &'static str,
    queue: &CudaQueue,
    (partials, chunks): (*const u8, u32),
    (to, count): (*mut u8, usize),
) -> Result<()> {
    let mut args = Args::new();
    args.push(partials);
    args.push(chunks);
    args.push(to);
    // SAFETY: the caller's promise.
    unsafe {
        queue.launch(
            op,
            &MODULE,
            "add_partials",
            LaunchShape::rows(count as u32, 32),
            &args,
        )
    }
}

/// Σ(fresh − stale)² and Σfresh² of every `every`-th row of dim 1 from `first` on, added to the two f64 at `to`. Shapes are equal
/// (checked by the caller).
///
/// # Safety
/// `to` points at two f64 in the memory of `device`.
pub(super) unsafe fn distance(
    op: &'static str,
    device: &Device,
    (fresh, stale): (View<'_>, View<'_>),
    (first, every): (usize, usize),
    to: *mut u8,
) -> Result<()> {
    let rows = fresh.dim(1).saturating_sub(first).div_ceil(every);
    if rows == 0 || fresh.numel() == 0 {
        return Ok(());
    }
    let behind = fresh.dim(1) - first;
    let (fresh, stale) = (
        fresh.narrow(1, first, behind)?,
        stale.narrow(1, first, behind)?,
    );
    let (dtype, queue) = (fresh.dtype().float(op)?, device.expect_cuda());
    let fresh = fresh.on(device);
    let stale = KernelOperand::new(Some(stale), fresh.dtype(), fresh.device())?;
    let fresh = Operand::new(fresh, fresh.dtype())?;
    let fresh = fresh.view();
    // A row's elements follow: one, where dim 1 is the last.
    let mut shape = fresh.shape().to_vec();
    shape[1] = rows;
    let apart = |strides: &[usize]| {
        let mut strides = strides.to_vec();
        strides[1] = strides[1].saturating_mul(every);
        if strides.len() == 2 {
            strides.push(1);
        }
        strides
    };
    if shape.len() == 2 {
        shape.push(1);
    }
    let of_stale = stale.strides();
    let walk = DeviceWalk::rows(op, &shape, [&apart(fresh.strides()), &apart(&of_stale)])?;
    let aligned = by_vectors(&walk, dtype, &[fresh.ptr(), stale.address()]);
    let chunks = chunks(&walk, if aligned { vector_of(dtype) } else { 1 });
    let partials = queue.alloc(op, 2 * chunks as usize * size_of::<f64>())?;
    let mut args = Args::new();
    args.push(walk);
    args.push(fresh.ptr());
    stale.push(&mut args, 0);
    args.push(partials.ptr());
    args.push(u32::from(aligned));
    let shape = LaunchShape::rows(chunks, THREADS);
    // SAFETY: the walk was made from the rows of both views that are inside; a chunk has two partial sums; rows are whole aligned
    // vectors where that is said. The caller's promise for `to`.
    unsafe {
        queue.launch(op, &MODULE, kernel_of(DISTANCE, dtype), shape, &args)?;
        add_partials(op, queue, (partials.ptr(), chunks), (to, 2))
    }
}

/// Σx and Σx² of each entry of dim 0, added to the 2 · entries f64 at `to`.
///
/// # Safety
/// `to` points at so many f64 in the memory of `device`.
pub(super) unsafe fn moments(
    op: &'static str,
    device: &Device,
    x: View<'_>,
    to: *mut u8,
) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    let (dtype, queue) = (x.dtype().float(op)?, device.expect_cuda());
    let x = Operand::new(x.on(device), x.dtype())?;
    let x = x.view();
    let (entries, entry_stride) = (x.dim(0), x.strides()[0]);
    let walk = DeviceWalk::rows(op, &x.shape()[1..], [&x.strides()[1..]])?;
    let vector = vector_of(dtype);
    let aligned = by_vectors(&walk, dtype, &[x.ptr()]) && entry_stride.is_multiple_of(vector);
    let chunks = chunks(&walk, if aligned { vector } else { 1 });
    for first in (0..entries).step_by(MOST_BLOCKS_Y) {
        let some = (entries - first).min(MOST_BLOCKS_Y);
        let partials = queue.alloc(op, 2 * some * chunks as usize * size_of::<f64>())?;
        let mut args = Args::new();
        args.push(walk);
        args.push(
            x.ptr()
                .wrapping_add(first * entry_stride * x.dtype().size()),
        );
        args.push(entry_stride as u64);
        args.push(partials.ptr());
        args.push(u32::from(aligned));
        let shape = LaunchShape {
            grid: [chunks, some as u32, 1],
            block: [THREADS, 1, 1],
            shared_bytes: 0,
        };
        let to = to.wrapping_add(2 * first * size_of::<f64>());
        // SAFETY: the walk was made from an entry of x, of which the view has `entries`; a chunk of an entry has two partial sums;
        // rows are whole aligned vectors where that is said. The caller's promise for `to`.
        unsafe {
            queue.launch(op, &MODULE, kernel_of(MOMENTS, dtype), shape, &args)?;
            add_partials(op, queue, (partials.ptr(), chunks), (to, 2 * some))?;
        }
    }
    Ok(())
}

/// Adds how many elements of each entry of dim 0 are NaN or infinite.
///
/// # Safety
/// `to` points at as many f64 in the memory of `device`.
pub(super) unsafe fn not_finite(
    op: &'static str,
    device: &Device,
    x: View<'_>,
    to: *mut u8,
) -> Result<()> {
    let copy = (!x.is_contiguous())
        .then(|| layout::contiguous(x.on(device)))
        .transpose()?;
    let x = copy.as_ref().map_or(x, |copy| copy.view());
    // SAFETY: the caller's promise.
    unsafe { add_not_finite(op, device.expect_cuda(), x, to) }
}

/// Adds `count` numbers to others.
///
/// # Safety
/// Both point at so many f64 in the memory of `queue`.
pub(super) unsafe fn add(
    op: &'static str,
    queue: &CudaQueue,
    to: *mut u8,
    more: *const u8,
    count: usize,
) -> Result<()> {
    let mut args = Args::new();
    args.push(to);
    args.push(more);
    args.push(count as u32);
    let shape = LaunchShape::rows(count.div_ceil(THREADS as usize) as u32, THREADS);
    // SAFETY: the caller's promise.
    unsafe { queue.launch(op, &MODULE, "add_numbers", shape, &args) }
}
