use super::after::After;
use crate::{
    Result, View, ViewMut,
    cuda::{Args, DeviceWalk, PtxModule},
    cuda_rows::{KEPT_VECTORS, KernelOperand, by_vectors, kernel_of, vector_of},
    rows::Operand,
};

static MODULE: PtxModule = PtxModule {
    name: "norm",
    sm_80: include_str!("norm.sm_80.ptx"),
    sm_90a: None,
};

const LAYER: [&str; 3] = ["layer_norm_f32", "layer_norm_bf16", "layer_norm_f16"];
const RMS: [&str; 3] = ["rms_norm_f32", "rms_norm_bf16", "rms_norm_f16"];

/// What follows the norm, as kernels take it: times gain, plus bias.
struct Affine<'a> {
    gain: KernelOperand<'a>,
    bias: KernelOperand<'a>,
    /// Rows of x that one parameter row serves.
    rows_each: usize,
    /// Added to the gain.
    gain_plus: f32,
}

/// `op` is what errors name. Shapes are checked by the caller.
pub(super) fn layer_norm(
    op: &'static str,
    x: View<'_>,
    after: After<'_>,
    eps: f32,
    out: ViewMut<'_>,
) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    let parameter = |p| KernelOperand::new(p, x.dtype(), out.device());
    let affine = match after {
        After::Affine { weight, bias } => Affine {
            gain: parameter(weight)?,
            bias: parameter(bias)?,
            rows_each: usize::MAX,
            gain_plus: 0.0,
        },
        After::Modulate { shift, scale } => Affine {
            gain: parameter(Some(scale))?,
            bias: parameter(Some(shift))?,
            rows_each: x.dim(1),
            gain_plus: 1.0,
        },
        After::Shift { weight, shift } => Affine {
            gain: parameter(Some(weight))?,
            bias: parameter(Some(shift))?,
            rows_each: x.dim(1),
            gain_plus: 0.0,
        },
    };
    norm(op, LAYER, x, &affine, eps, out)
}

/// Shapes are checked by the caller: the weight is [c].
pub(super) fn rms_norm(
    op: &'static str,
    x: View<'_>,
    weight: Option<View<'_>>,
    eps: f32,
    out: ViewMut<'_>,
) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    let affine = Affine {
        gain: KernelOperand::new(weight, x.dtype(), out.device())?,
        bias: KernelOperand::new(None, x.dtype(), out.device())?,
        rows_each: usize::MAX,
        gain_plus: 0.0,
    };
    norm(op, RMS, x, &affine, eps, out)
}

fn norm(
    op: &'static str,
    kernels: [&'static str; 3],
    x: View<'_>,
    affine: &Affine<'_>,
    eps: f32,
    mut out: ViewMut<'_>,
) -> Result<()> {
    let dtype = x.dtype().float(op)?;
    let x = Operand::new(x.on(out.device()), x.dtype())?;
    let x = x.view();
    let walk = DeviceWalk::rows(op, x.shape(), [x.strides(), out.strides()])?;
    let parameters = [&affine.gain, &affine.bias];
    let aligned = by_vectors(&walk, dtype, &[x.ptr(), out.ptr()])
        && parameters.iter().all(|p| p.is_aligned(p.row_stride()));
    let held = (aligned.then(|| walk.held_rows(vector_of(dtype), KEPT_VECTORS))).flatten();
    let mut args = Args::new();
    args.push(walk);
    args.push(x.ptr());
    args.push(out.ptr());
    for parameter in parameters {
        parameter.push(&mut args, parameter.row_stride());
    }
    args.push(u32::try_from(affine.rows_each).unwrap_or(u32::MAX));
    args.push(affine.gain_plus);
    args.push(eps);
    args.push(u32::from(held.is_some()));
    let shape = held.unwrap_or_else(|| walk.read_rows());
    let queue = out.device().expect_cuda();
    // SAFETY: the walk was made from the common shape of x and out; there is a parameter row of c elements for each `rows_each`
    // rows; rows are whole aligned vectors where that is said, and fit the block's registers. `out` is exclusively borrowed.
    unsafe { queue.launch(op, &MODULE, kernel_of(kernels, dtype), shape, &args) }
}
