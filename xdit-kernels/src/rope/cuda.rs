use super::options::{HeadNorm, QkNormRope};
use crate::{
    Result, View, ViewMut,
    cuda::{Args, DeviceWalk, KernelParam, LaunchShape, PtxModule},
    cuda_rows::{KernelOperand, by_vectors, kernel_of, vector_of},
    dtype::FloatType,
    rows::Operand,
};

static MODULE: PtxModule = PtxModule {
    name: "rope",
    sm_80: include_str!("rope.sm_80.ptx"),
    sm_90a: None,
};

const KERNELS: [&str; 3] = ["norm_rope_f32", "norm_rope_bf16", "norm_rope_f16"];

/// Threads of a block.
const THREADS: u32 = 128;

/// What is done to the rows of a stream: `Norm` of rope.cu.
const COPY: u32 = 0;
const NO_NORM: u32 = 1;
const RMS: u32 = 2;
const LAYER: u32 = 3;

/// `Norms` of rope.cu.
#[derive(Clone, Copy)]
#[repr(C)]
struct Norms {
    norm: [u32; 3],
    gain_kind: [u32; 2],
    bias_kind: [u32; 2],
    heads: u32,
    tokens: u32,
    unused: u32,
}

// SAFETY: `#[repr(C)]`, ten numbers of 32 bits as in rope.cu, none of which is an address.
unsafe impl KernelParam for Norms {}

/// The norm of one stream's head rows.
struct StreamNorm<'a> {
    norm: u32,
    gain: KernelOperand<'a>,
    bias: KernelOperand<'a>,
}

impl<'a> StreamNorm<'a> {
    fn new(
        norm: u32,
        gain: Option<View<'a>>,
        bias: Option<View<'a>>,
        like: &View<'a>,
    ) -> Result<Self> {
        Ok(Self {
            norm,
            gain: KernelOperand::new(gain, like.dtype(), like.device())?,
            bias: KernelOperand::new(bias, like.dtype(), like.device())?,
        })
    }

    fn of(norm: Option<HeadNorm<'a>>, like: &View<'a>) -> Result<Self> {
        match norm {
            None => Self::new(NO_NORM, None, None, like),
            Some(HeadNorm::Rms(weight)) => Self::new(RMS, Some(weight), None, like),
            Some(HeadNorm::Layer { weight, bias }) => {
                Self::new(LAYER, Some(weight), Some(bias), like)
            }
        }
    }

    fn is_aligned(&self) -> bool {
        self.gain.is_aligned(0) && self.bias.is_aligned(0)
    }
}

/// As `rms_norm_rope_into` and `layer_norm_rope_into`; shapes are checked by the caller.
pub(super) fn one_stream(
    op: &'static str,
    x: View<'_>,
    (weight, bias): (Option<View<'_>>, Option<View<'_>>),
    eps: f32,
    rope: Option<(View<'_>, View<'_>)>,
    out: ViewMut<'_>,
) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    let x = x.on(out.device());
    let norm = if bias.is_some() { LAYER } else { RMS };
    let head = StreamNorm::new(norm, weight, bias, &x)?;
    let unused = StreamNorm::new(NO_NORM, None, None, &x)?;
    let x = Operand::new(x, x.dtype())?;
    launch(
        op,
        [x.view(); 3],
        [&head, &unused],
        NO_NORM,
        eps,
        rope,
        vec![out],
    )
}

/// As `qk_norm_rope_into`; shapes are checked by the caller.
pub(super) fn three_streams(
    op: &'static str,
    qkv: View<'_>,
    options: &QkNormRope<'_>,
    [q, k, v]: [ViewMut<'_>; 3],
) -> Result<()> {
    if qkv.numel() == 0 {
        return Ok(());
    }
    let qkv = qkv.on(q.device());
    let of_q = StreamNorm::of(options.norm_q, &qkv)?;
    let of_k = StreamNorm::of(options.norm_k, &qkv)?;
    let qkv = Operand::new(qkv, qkv.dtype())?;
    let qkv = qkv.view();
    let parts = [qkv.select(2, 0)?, qkv.select(2, 1)?, qkv.select(2, 2)?];
    let outs = vec![q, k, v];
    launch(
        op,
        parts,
        [&of_q, &of_k],
        COPY,
        options.eps,
        options.rope,
        outs,
    )
}

/// One launch for the first streams, of which there are as many as `outs`.
fn launch(
    op: &'static str,
    x: [View<'_>; 3],
    heads: [&StreamNorm<'_>; 2],
    third: u32,
    eps: f32,
    rope: Option<(View<'_>, View<'_>)>,
    mut outs: Vec<ViewMut<'_>>,
) -> Result<()> {
    let [first, ..] = &x;
    let (l, h, d) = (first.dim(1), first.dim(2), first.dim(3));
    let dtype = first.dtype().float(op)?;
    let device = outs[0].device();
    let cos = KernelOperand::new(rope.map(|(cos, _)| cos), first.dtype(), device)?;
    let sin = KernelOperand::new(rope.map(|(_, sin)| sin), first.dtype(), device)?;
    // Streams that are not launched have the first one's places.
    let out_at = |i: usize| if i < outs.len() { i } else { 0 };
    let out_strides = [0, 1, 2].map(|i| outs[out_at(i)].strides().to_vec());
    let [q, k, v] = &x;
    let strides = [
        q.strides(),
        k.strides(),
        v.strides(),
        &out_strides[0],
        &out_strides[1],
        &out_strides[2],
    ];
    let walk = DeviceWalk::rows(op, first.shape(), strides)?;
    let out_at = [0, 1, 2].map(out_at);
    let to = out_at.map(|i| outs[i].ptr());
    let addresses = [q.ptr(), k.ptr(), v.ptr(), to[0], to[1], to[2]];
    let tables = [&cos, &sin];
    let aligned = by_vectors(&walk, dtype, &addresses)
        && heads.iter().all(|head| head.is_aligned())
        && tables
            .iter()
            .all(|table| table.is_aligned(table.row_stride()));
    let (lanes, shape) = lanes(d, walk.row_count(), outs.len(), dtype, aligned);
    let mut args = Args::new();
    args.push(walk);
    for part in &x {
        args.push(part.ptr());
    }
    for at in to {
        args.push(at);
    }
    for head in heads {
        args.push(head.gain.address());
        args.push(head.bias.address());
    }
    for table in tables {
        table.push(&mut args, table.row_stride());
    }
    let [of_q, of_k] = heads;
    args.push(Norms {
        norm: [of_q.norm, of_k.norm, third],
        gain_kind: heads.map(|head| head.gain.kind()),
        bias_kind: heads.map(|head| head.bias.kind()),
        // Not more than rows, which the walk has counted.
        heads: h as u32,
        tokens: l as u32,
        unused: 0,
    });
    args.push(eps);
    args.push(lanes);
    args.push(u32::from(aligned));
    let queue = device.expect_cuda();
    // SAFETY: the walk was made from the common shape [b, l, h, d] of the streams' inputs and outputs; parameters are [d] and tables
    // [l, d]; d is even where there are tables; rows are whole aligned vectors where that is said. The outputs are exclusively
    // borrowed and apart.
    unsafe { queue.launch(op, &MODULE, kernel_of(KERNELS, dtype), shape, &args) }
}

/// The lanes of a row, a power of two, and the grid.
fn lanes(
    d: usize,
    rows: usize,
    streams: usize,
    dtype: FloatType,
    aligned: bool,
) -> (u32, LaunchShape) {
    let each = if aligned { vector_of(dtype) } else { 2 };
    let lanes = d.div_ceil(each).min(32).next_power_of_two() as u32;
    let shape = LaunchShape {
        grid: [
            rows.div_ceil((THREADS / lanes) as usize) as u32,
            streams as u32,
            1,
        ],
        block: [THREADS, 1, 1],
        shared_bytes: 0,
    };
    (lanes, shape)
}
