//! Launches of `merge.cu`.

use super::part::MergedPart;
use crate::{
    DType, Error, Result, Tensor, ViewMut,
    cuda::{Args, KernelParam, LaunchShape, PtxModule},
    dtype::FloatType,
    layout,
};

static MERGE: PtxModule = PtxModule {
    name: "merge",
    sm_80: include_str!("merge.sm_80.ptx"),
    sm_90a: None,
};

/// `MergeCall` of `merge.cu`; strides are in elements.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct MergeCall {
    a: [i64; 3],
    b: [i64; 3],
    out: [i64; 3],
    a_lse: [i64; 3],
    b_lse: [i64; 3],
    lse: [i64; 3],
    rows: u32,
    l: u32,
    h: u32,
    d: u32,
    b_f32: i32,
}

// SAFETY: `#[repr(C)]`, with the fields of `MergeCall`.
unsafe impl KernelParam for MergeCall {}

/// Rows of a block: one a warp.
const ROWS: u32 = 8;

/// Shapes were checked by the caller; the last stride of each output is 1. The output may be the first part.
pub(super) fn merge(
    op: &'static str,
    [a, b]: [MergedPart<'_>; 2],
    mut out: ViewMut<'_>,
    mut lse: ViewMut<'_>,
) -> Result<()> {
    // The kernel takes b in a's dtype or in f32, which holds every other one.
    let fits = b.out.dtype() == a.out.dtype() || b.out.dtype() == DType::F32;
    let cast = match fits {
        true => None,
        false => Some(layout::cast(b.out.on(out.device()), DType::F32)?),
    };
    let b_out = cast.as_ref().map_or(b.out, Tensor::view);
    let count = |n: usize| u32::try_from(n).ok().filter(|&n| n < 1 << 31);
    let sizes = [a.lse.numel(), a.out.dim(1), a.out.dim(2), a.out.dim(3)];
    let [Some(rows), Some(l), Some(h), Some(d)] = sizes.map(count) else {
        let want = "fewer than 2^31 rows (batch, token, head) and columns";
        return Err(Error::shape(op, want, a.out));
    };
    let call = MergeCall {
        a: strides(a.out.strides()),
        b: strides(b_out.strides()),
        out: strides(out.strides()),
        a_lse: strides(a.lse.strides()),
        b_lse: strides(b.lse.strides()),
        lse: strides(lse.strides()),
        rows,
        l,
        h,
        d,
        b_f32: i32::from(b_out.dtype() == DType::F32),
    };
    let mut args = Args::new();
    args.push(a.out.ptr());
    args.push(b_out.ptr());
    args.push(out.ptr());
    args.push(a.lse.ptr());
    args.push(b.lse.ptr());
    args.push(lse.ptr());
    args.push(call);
    let kernel = match a.out.dtype().float(op)? {
        FloatType::F32 => "merge_f32",
        FloatType::BF16 => "merge_bf16",
        FloatType::F16 => "merge_f16",
    };
    let shape = LaunchShape::rows(rows.div_ceil(ROWS), ROWS * 32);
    let queue = out.device().expect_cuda();
    // SAFETY: the parameters are those of the kernel, which reads and writes the elements that shapes and strides name, in memory
    // of this GPU; the last dim of every operand is adjacent. `cast` lives until the launch, and its memory until the
    // kernel has run, in the order of the queue.
    unsafe { queue.launch(op, &MERGE, kernel, shape, &args) }
}

/// Strides as kernels take them. No view is larger than memory can be.
fn strides(strides: &[usize]) -> [i64; 3] {
    std::array::from_fn(|dim| strides[dim] as i64)
}
