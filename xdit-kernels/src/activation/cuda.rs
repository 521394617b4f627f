use super::function::Activation;
use crate::{
    Result, View, ViewMut,
    cuda::{Args, DeviceWalk, PtxModule},
    cuda_rows::{KernelOperand, by_vectors, kernel_of, vector_of},
    rows::Operand,
};

static MODULE: PtxModule = PtxModule {
    name: "activation",
    sm_80: include_str!("activation.sm_80.ptx"),
    sm_90a: None,
};

const KERNELS: [&str; 3] = ["activation_f32", "activation_bf16", "activation_f16"];

/// out = act(x), times y where there is one. Shapes are equal, and x's and out's dtypes (checked by the caller).
pub(super) fn activation(
    op: &'static str,
    x: View<'_>,
    y: Option<View<'_>>,
    act: Activation,
    mut out: ViewMut<'_>,
) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    let dtype = x.dtype().float(op)?;
    let device = out.device();
    // Rounded to x's dtype, as on the processor.
    let y = y.map(|y| Operand::new(y.on(device), x.dtype()));
    let y = y.transpose()?;
    let x = Operand::new(x.on(device), x.dtype())?;
    let x = x.view();
    let y = KernelOperand::new(y.as_ref().map(Operand::view), x.dtype(), device)?;
    let of_y = y.strides();
    let y_strides = if of_y.is_empty() { x.strides() } else { &of_y };
    let walk = DeviceWalk::elements(op, x.shape(), [x.strides(), y_strides, out.strides()])?;
    let aligned = by_vectors(&walk, dtype, &[x.ptr(), y.address(), out.ptr()]);
    let mut args = Args::new();
    args.push(walk);
    args.push(x.ptr());
    y.push(&mut args, 0);
    args.push(out.ptr());
    args.push(match act {
        Activation::GeluTanh => 0u32,
        Activation::GeluErf => 1,
        Activation::QuickGelu => 2,
        Activation::Silu => 3,
        Activation::Relu => 4,
    });
    args.push(u32::from(aligned));
    let shape = walk.threads(op, if aligned { vector_of(dtype) } else { 1 })?;
    let queue = device.expect_cuda();
    // SAFETY: the walk was made from the common shape of x, y and out; rows are whole aligned vectors where that is said. `out` is
    // exclusively borrowed.
    unsafe { queue.launch(op, &MODULE, kernel_of(KERNELS, dtype), shape, &args) }
}
