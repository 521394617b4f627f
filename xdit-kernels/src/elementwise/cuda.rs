use super::combine::Combine;
use crate::{
    Result, View, ViewMut,
    cuda::{Args, DeviceWalk, PtxModule},
    cuda_rows::{KernelOperand, by_vectors, kernel_of, vector_of},
    rows::Operand,
    shape::MAX_NDIM,
};

static MODULE: PtxModule = PtxModule {
    name: "elementwise",
    sm_80: include_str!("elementwise.sm_80.ptx"),
    sm_90a: None,
};

const COMBINE: [&str; 3] = ["combine_f32", "combine_bf16", "combine_f16"];
const GATE: [&str; 3] = [
    "gate_residual_f32",
    "gate_residual_bf16",
    "gate_residual_f16",
];

/// The number of the operation in elementwise.cu, and its scalars.
fn numbered(combine: Combine) -> (u32, f32, f32) {
    match combine {
        Combine::Add => (0, 0.0, 0.0),
        Combine::Sub => (1, 0.0, 0.0),
        Combine::Mul => (2, 0.0, 0.0),
        Combine::AddScaled(a) => (3, a, 0.0),
        Combine::WeightedSum(a, b) => (4, a, b),
        Combine::Scale(a) => (5, a, 0.0),
        Combine::ScaleShift(a, b) => (6, a, b),
        Combine::Divide(a) => (7, a, 0.0),
        Combine::Clamp(low, high) => (8, low, high),
    }
}

/// out = combine(x, y), y left out for operations on single elements. y's shape is the end of x's, out is like x (checked by the
/// caller).
pub(super) fn combine(
    op: &'static str,
    x: View<'_>,
    y: Option<View<'_>>,
    combine: Combine,
    mut out: ViewMut<'_>,
) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    let dtype = x.dtype().float(op)?;
    let device = out.device();
    let (x, y) = (
        Operand::new(x.on(device), x.dtype())?,
        KernelOperand::new(y, x.dtype(), device)?,
    );
    let x = x.view();
    // 0-strides repeat y along the dims that it lacks.
    let (of_y, mut y_strides) = (y.strides(), [0; MAX_NDIM]);
    y_strides[x.ndim() - of_y.len()..x.ndim()].copy_from_slice(&of_y);
    let y_strides = match y.address().is_null() {
        true => x.strides(),
        false => &y_strides[..x.ndim()],
    };
    let walk = DeviceWalk::elements(op, x.shape(), [x.strides(), y_strides, out.strides()])?;
    let aligned = by_vectors(&walk, dtype, &[x.ptr(), y.address(), out.ptr()]);
    let (number, a, b) = numbered(combine);
    let mut args = Args::new();
    args.push(walk);
    args.push(x.ptr());
    y.push(&mut args, 0);
    args.push(out.ptr());
    args.push(number);
    args.push(a);
    args.push(b);
    args.push(u32::from(aligned));
    let shape = walk.threads(op, if aligned { vector_of(dtype) } else { 1 })?;
    let queue = device.expect_cuda();
    // SAFETY: the walk was made from the common shape of x, y as it is repeated, and out; rows are whole aligned vectors where that
    // is said. `out` is exclusively borrowed.
    unsafe { queue.launch(op, &MODULE, kernel_of(COMBINE, dtype), shape, &args) }
}

/// out = residual + gate·x, [b, l, c] with gate [b, c]. Shapes are checked by the caller.
pub(super) fn gate_residual(
    op: &'static str,
    x: View<'_>,
    gate: View<'_>,
    residual: View<'_>,
    mut out: ViewMut<'_>,
) -> Result<()> {
    if residual.numel() == 0 {
        return Ok(());
    }
    let dtype = residual.dtype().float(op)?;
    let tokens = residual.dim(1);
    let device = out.device();
    let x = KernelOperand::new(Some(x), residual.dtype(), device)?;
    let gate = KernelOperand::new(Some(gate), residual.dtype(), device)?;
    let residual = Operand::new(residual.on(device), residual.dtype())?;
    let residual = residual.view();
    let of_x = x.strides();
    let strides = [&of_x[..], residual.strides(), out.strides()];
    let walk = DeviceWalk::rows(op, residual.shape(), strides)?;
    let aligned = by_vectors(&walk, dtype, &[x.address(), residual.ptr(), out.ptr()])
        && gate.is_aligned(gate.row_stride());
    let mut args = Args::new();
    args.push(walk);
    x.push(&mut args, 0);
    gate.push(&mut args, gate.row_stride());
    args.push(u32::try_from(tokens).unwrap_or(u32::MAX));
    args.push(residual.ptr());
    args.push(out.ptr());
    args.push(u32::from(aligned));
    let shape = walk.threads(op, if aligned { vector_of(dtype) } else { 1 })?;
    let queue = device.expect_cuda();
    // SAFETY: the walk was made from the common shape of x, residual and out; the gate has a row of c elements for each batch entry,
    // and no batch entry has as many rows as u32 counts; rows are whole aligned vectors where that is said. `out` is exclusively
    // borrowed.
    unsafe { queue.launch(op, &MODULE, kernel_of(GATE, dtype), shape, &args) }
}
