use crate::{
    Result, View, ViewMut,
    cuda::{Args, DeviceWalk, PtxModule},
    cuda_rows::{KEPT_VECTORS, by_vectors, kernel_of, vector_of},
    rows::Operand,
};

static MODULE: PtxModule = PtxModule {
    name: "softmax",
    sm_80: include_str!("softmax.sm_80.ptx"),
    sm_90a: None,
};

const KERNELS: [&str; 3] = ["softmax_f32", "softmax_bf16", "softmax_f16"];

/// Shapes and dtypes are equal, the output's last dim is adjacent (checked by the caller).
pub(super) fn softmax(op: &'static str, x: View<'_>, mut out: ViewMut<'_>) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    let dtype = x.dtype().float(op)?;
    let x = Operand::new(x.on(out.device()), x.dtype())?;
    let x = x.view();
    let walk = DeviceWalk::rows(op, x.shape(), [x.strides(), out.strides()])?;
    let aligned = by_vectors(&walk, dtype, &[x.ptr(), out.ptr()]);
    let held = (aligned.then(|| walk.held_rows(vector_of(dtype), KEPT_VECTORS))).flatten();
    let mut args = Args::new();
    args.push(walk);
    args.push(x.ptr());
    args.push(out.ptr());
    args.push(u32::from(held.is_some()));
    let shape = held.unwrap_or_else(|| walk.read_rows());
    let queue = out.device().expect_cuda();
    // SAFETY: the walk was made from the common shape of x and out; rows are whole aligned vectors where that is said, and fit
    // the block's registers. `out` is exclusively borrowed.
    unsafe { queue.launch(op, &MODULE, kernel_of(KERNELS, dtype), shape, &args) }
}
