//! The launch on a GPU.

use crate::{
    Error, Result, View, ViewMut,
    cuda::{Args, KernelParam, LaunchShape, PtxModule},
};

static MODULE: PtxModule = PtxModule {
    name: "upsample",
    sm_80: include_str!("upsample.sm_80.ptx"),
    sm_90a: None,
};

/// As in `upsample.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Upsample {
    x_strides: [u64; 4],
    out_strides: [u64; 4],
    h: u32,
    w: u32,
    c: u32,
    count: u32,
}

// SAFETY: `#[repr(C)]`, with the fields of `upsample.cu` and no address.
unsafe impl KernelParam for Upsample {}

/// Threads of a block, as in `upsample.cu`.
const THREADS: u32 = 256;

/// Shapes are checked. Errors name `op`.
pub(super) fn upsample(op: &'static str, x: View<'_>, mut out: ViewMut<'_>) -> Result<()> {
    x.dtype().float(op)?;
    if x.numel() == 0 {
        return Ok(());
    }
    let (size, [_, h, w, c]) = (x.dtype().size(), [0, 1, 2, 3].map(|d| x.dim(d)));
    let of = |strides: &[usize]| [0, 1, 2, 3].map(|d| strides[d]);
    let strides = [of(x.strides()), of(out.strides())];
    // Elements of 16 bytes, if nothing begins or ends between two of them.
    let vector = 16 / size;
    let whole = |n: &usize| n.is_multiple_of(vector);
    let fits = |s: &[usize; 4]| s[3] == 1 && s[..3].iter().all(whole);
    let aligned = x.ptr().addr().is_multiple_of(16) && out.ptr().addr().is_multiple_of(16);
    let unit = match aligned && whole(&c) && strides.iter().all(fits) {
        true => vector,
        false => 1,
    };
    let kernel = match unit * size {
        16 => "upsample_bytes_16",
        4 => "upsample_bytes_4",
        _ => "upsample_bytes_2",
    };
    let Some(count) = u32::try_from(x.numel() / unit)
        .ok()
        .filter(|&count| count <= 1 << 31)
    else {
        return Err(Error::shape(op, "at most 2^31 elements on a GPU", x));
    };
    let units = |s: [usize; 4]| {
        [
            s[0] / unit,
            s[1] / unit,
            s[2] / unit,
            if unit == 1 { s[3] } else { 1 },
        ]
        .map(|n| n as u64)
    };
    let [h, w, c] = [h, w, c / unit].map(|n| n as u32);
    let call = Upsample {
        x_strides: units(strides[0]),
        out_strides: units(strides[1]),
        h,
        w,
        c,
        count,
    };
    let mut args = Args::new();
    args.push(x.ptr());
    args.push(out.ptr());
    args.push(call);
    let queue = out.device().expect_cuda();
    let shape = LaunchShape::rows(count.div_ceil(THREADS), THREADS);
    // SAFETY: the kernel reads `count` units of `x` and writes four times as many of `out`, by the strides of both views, which
    // are borrowed and lie in memory of the queue.
    unsafe { queue.launch(op, &MODULE, kernel, shape, &args) }
}
