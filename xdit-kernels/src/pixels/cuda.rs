use crate::{
    Error, Result, View, ViewMut,
    cuda::{Args, LaunchShape, MOST_BLOCKS_Y, PtxModule},
    cuda_rows::kernel_of,
    layout,
};

static MODULE: PtxModule = PtxModule {
    name: "pixels",
    sm_80: include_str!("pixels.sm_80.ptx"),
    sm_90a: None,
};

const KERNELS: [&str; 3] = ["rgb8_f32", "rgb8_bf16", "rgb8_f16"];

const THREADS: usize = 256;

/// Shapes and dtypes are checked by the caller; `out` is contiguous.
pub(super) fn rgb8(op: &'static str, planes: View<'_>, mut out: ViewMut<'_>) -> Result<()> {
    if planes.numel() == 0 {
        return Ok(());
    }
    let dtype = planes.dtype().float(op)?;
    let copy = (!planes.is_contiguous())
        .then(|| layout::contiguous(planes.on(out.device())))
        .transpose()?;
    let planes = copy.as_ref().map_or(planes, |copy| copy.view());
    let (images, pixels) = (planes.dim(0), planes.dim(2) * planes.dim(3));
    let aligned = pixels.is_multiple_of(4)
        && planes.ptr().addr().is_multiple_of(16)
        && out.ptr().addr().is_multiple_of(4);
    let each = if aligned { 4 } else { 1 };
    let blocks = pixels.div_ceil(each * THREADS);
    let (Ok(blocks), true) = (i32::try_from(blocks), images <= MOST_BLOCKS_Y) else {
        let want = "at most 65535 pictures, each of fewer than 2^39 pixels, on a GPU";
        return Err(Error::shape(op, want, planes));
    };
    let mut args = Args::new();
    args.push(planes.ptr());
    args.push(out.ptr());
    args.push(pixels as u64);
    args.push(u32::from(aligned));
    let shape = LaunchShape {
        grid: [blocks.unsigned_abs(), images as u32, 1],
        block: [THREADS as u32, 1, 1],
        shared_bytes: 0,
    };
    let queue = out.device().expect_cuda();
    // SAFETY: planes and `out` are contiguous, three values for each pixel of each image, at multiples of 4 pixels where that is
    // said. `out` is exclusively borrowed.
    unsafe { queue.launch(op, &MODULE, kernel_of(KERNELS, dtype), shape, &args) }
}
