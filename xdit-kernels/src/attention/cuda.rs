//! Launches of `flash.sm_90a.cu`, `flash.cu` and `fma.cu`.

use super::{
    dims::{Dims, OP},
    input::AttnInput,
};
use crate::{
    DType, Error, Result, View, ViewMut,
    cuda::{Args, Boxes, KernelParam, LaunchShape, PtxModule},
    dtype::FloatType,
    layout,
};

const SM_80: &str = include_str!("flash.sm_80.ptx");

/// On tensor units: bf16 and f16.
static FLASH: PtxModule = PtxModule {
    name: "flash",
    sm_80: SM_80,
    sm_90a: None,
};

/// On the tensor units of capability 9.0, without masks. Other GPUs run `FLASH`.
static WGMMA: PtxModule = PtxModule {
    name: "flash.sm_90a",
    sm_80: SM_80,
    sm_90a: Some(include_str!("flash.sm_90a.ptx")),
};

/// By multiply-adds: everything.
static FMA: PtxModule = PtxModule {
    name: "fma",
    sm_80: include_str!("fma.sm_80.ptx"),
    sm_90a: None,
};

/// `FlashCall` of `call.cuh`; strides are in elements.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct CudaFlashCall {
    q: [i64; 4],
    k: [i64; 4],
    v: [i64; 4],
    out: [i64; 3],
    lse: [i64; 3],
    key_mask: [i64; 2],
    bias: [i64; 3],
    lq: i32,
    lk: i32,
    h: i32,
    group: i32,
    d: i32,
    tiles: i32,
    scale: f32,
    causal: i32,
    accumulate: i32,
    out_f32: i32,
}

// SAFETY: `#[repr(C)]`, with the fields of `FlashCall`.
unsafe impl KernelParam for CudaFlashCall {}

/// Which kernel a call gets.
struct Choice {
    module: &'static PtxModule,
    kernel: &'static str,
    /// Of a block.
    queries: usize,
    threads: u32,
    shared_bytes: u32,
    /// Columns of the boxes that the copy unit moves, where it does.
    box_columns: Option<u32>,
}

impl Choice {
    /// A kernel of `flash.sm_90a.cu` with this head dim in shared memory: queries, three slots of keys and three of values, barriers.
    const fn wgmma(kernel: &'static str, padded: u32) -> Self {
        Self {
            module: &WGMMA,
            kernel,
            queries: 128,
            threads: 384,
            shared_bytes: 1024 + 7 * 128 * padded * 2 + 14 * 8,
            box_columns: Some(if padded.is_multiple_of(64) { 64 } else { 32 }),
        }
    }

    /// A kernel of `flash.cu` with this head dim in shared memory.
    const fn tensor(kernel: &'static str, padded: u32) -> Self {
        Self {
            module: &FLASH,
            kernel,
            queries: 128,
            threads: 128,
            shared_bytes: (128 + 3 * 64) * padded * 2,
            box_columns: None,
        }
    }

    const fn fma(kernel: &'static str) -> Self {
        Self {
            module: &FMA,
            kernel,
            queries: 64,
            threads: 256,
            shared_bytes: 0,
            box_columns: None,
        }
    }

    fn of(input: &AttnInput<'_>, out: &mut ViewMut<'_>, d: usize, scale: f32) -> Result<Self> {
        let fits = d <= 128 && d.is_multiple_of(8) && input.mask.bias.is_none() && scale > 0.0;
        let chunks = |view: &View<'_>| {
            let steps = view.shape().iter().zip(view.strides()).take(3);
            let rows = { steps }.all(|(&n, &step)| n <= 1 || step.is_multiple_of(8));
            rows && view.strides()[3] == 1 && view.ptr().addr().is_multiple_of(16)
        };
        let pairs = {
            let steps = out.shape().iter().zip(out.strides()).take(3);
            let rows = { steps }.all(|(&n, &step)| n <= 1 || step.is_multiple_of(2));
            rows && out.ptr().addr().is_multiple_of(2 * out.dtype().size())
        };
        let views = [input.q, input.k, input.v];
        let tensor = fits && pairs && views.iter().all(chunks);
        let dense = |view: &View<'_>| {
            let mut steps = view.shape().iter().zip(view.strides()).take(3);
            steps.all(|(&n, &step)| n == 1 || (n > 1 && (1..1 << 39).contains(&step)))
        };
        let wgmma = tensor
            && input.mask.key_mask.is_none()
            && !input.mask.causal
            && views.iter().all(dense)
            && out.device().expect_cuda().has_sm_90a(&WGMMA);
        Ok(match (input.q.dtype().float(OP)?, d) {
            (FloatType::BF16, ..=32) if wgmma => Self::wgmma("flash_wgmma_bf16_d32", 32),
            (FloatType::BF16, ..=64) if wgmma => Self::wgmma("flash_wgmma_bf16_d64", 64),
            (FloatType::BF16, ..=96) if wgmma => Self::wgmma("flash_wgmma_bf16_d96", 96),
            (FloatType::BF16, _) if wgmma => Self::wgmma("flash_wgmma_bf16_d128", 128),
            (FloatType::F16, ..=32) if wgmma => Self::wgmma("flash_wgmma_f16_d32", 32),
            (FloatType::F16, ..=64) if wgmma => Self::wgmma("flash_wgmma_f16_d64", 64),
            (FloatType::F16, ..=96) if wgmma => Self::wgmma("flash_wgmma_f16_d96", 96),
            (FloatType::F16, _) if wgmma => Self::wgmma("flash_wgmma_f16_d128", 128),
            (FloatType::BF16, ..=32) if tensor => Self::tensor("flash_bf16_d32", 32),
            (FloatType::BF16, ..=64) if tensor => Self::tensor("flash_bf16_d64", 64),
            (FloatType::BF16, ..=96) if tensor => Self::tensor("flash_bf16_d96", 96),
            (FloatType::BF16, _) if tensor => Self::tensor("flash_bf16_d128", 128),
            (FloatType::F16, ..=32) if tensor => Self::tensor("flash_f16_d32", 32),
            (FloatType::F16, ..=64) if tensor => Self::tensor("flash_f16_d64", 64),
            (FloatType::F16, ..=96) if tensor => Self::tensor("flash_f16_d96", 96),
            (FloatType::F16, _) if tensor => Self::tensor("flash_f16_d128", 128),
            (FloatType::F32, _) => Self::fma("flash_f32"),
            (FloatType::BF16, _) => Self::fma("flash_bf16"),
            (FloatType::F16, _) => Self::fma("flash_f16"),
        })
    }
}

/// As `flash_into`, or as `flash_accumulate_into`; shapes are checked by the caller.
pub(super) fn flash(
    input: &AttnInput<'_>,
    dims: &Dims,
    mut out: ViewMut<'_>,
    mut lse: ViewMut<'_>,
    accumulate: bool,
) -> Result<()> {
    let &Dims {
        b,
        lq,
        lk,
        h,
        h_kv,
        d,
    } = dims;
    if input.q.numel() == 0 {
        return Ok(());
    }
    // The kernel reads the bias along lk.
    let mut copy = None;
    let mut input = *input;
    if let Some(bias) = &mut input.mask.bias
        && (bias.dtype() != DType::F32 || (bias.strides()[3] != 1 && lk > 1))
    {
        *bias = copy
            .insert(layout::cast(bias.on(out.device()), DType::F32)?)
            .view();
    }
    let scale = input.scale.unwrap_or(1.0 / (d as f32).sqrt());
    let choice = Choice::of(&input, &mut out, d, scale)?;
    let tiles = lq.div_ceil(choice.queries);
    let blocks = tiles.checked_mul(b * h).and_then(|n| i32::try_from(n).ok());
    // Rows behind the last tile are counted too.
    let count = |n: usize| i32::try_from(n).ok().filter(|&n| n <= 1 << 30);
    let (Some(blocks), Some(lq), Some(lk), Some(d)) = (blocks, count(lq), count(lk), count(d))
    else {
        let want = "fewer than 2^30 queries and keys, and fewer than 2^31 tiles of queries";
        return Err(Error::shape(OP, want, (input.q, input.k)));
    };
    let bias_strides = input.mask.bias.map_or([0; 3], |bias| {
        [0, 1, 2].map(|dim| match bias.dim(dim) {
            1 => 0,
            _ => bias.strides()[dim] as i64,
        })
    });
    let call = CudaFlashCall {
        q: strides(input.q.strides()),
        k: strides(input.k.strides()),
        v: strides(input.v.strides()),
        out: strides(out.strides()),
        lse: strides(lse.strides()),
        key_mask: input.mask.key_mask.map_or([0; 2], |x| strides(x.strides())),
        bias: bias_strides,
        lq,
        lk,
        // Both are factors of `blocks`, or less.
        h: h as i32,
        group: (h / h_kv) as i32,
        d,
        tiles: tiles as i32,
        scale: scale * std::f32::consts::LOG2_E,
        causal: i32::from(input.mask.causal),
        accumulate: i32::from(accumulate),
        out_f32: i32::from(out.dtype() == DType::F32),
    };
    let queue = out.device().expect_cuda();
    let mut args = Args::new();
    for x in [input.q, input.k, input.v] {
        match choice.box_columns {
            Some(columns) => {
                args.push(queue.tensor_map(OP, &boxes(&x, columns)?)?);
                args.uses(x.ptr());
            }
            None => args.push(x.ptr()),
        }
    }
    args.push(out.ptr());
    args.push(lse.ptr());
    let grid = if choice.box_columns.is_some() {
        args.push(call);
        args.push(blocks);
        // Each multiprocessor has one block, which computes one tile of queries after another.
        blocks.min(queue.context().multiprocessors.max(1) as i32)
    } else {
        for x in [input.mask.key_mask, input.mask.bias] {
            args.push(x.map_or(std::ptr::null(), |x| x.ptr()));
        }
        args.push(call);
        blocks
    };
    let shape = LaunchShape {
        shared_bytes: choice.shared_bytes,
        ..LaunchShape::rows(grid as u32, choice.threads)
    };
    // SAFETY: the parameters are those of the kernels, and the views reach every element that shapes and strides name, in memory
    // of this GPU. A kernel reads rows of q below lq, of k and v below lk, their columns below d, the mask and the bias of
    // these keys, and writes rows of `out` and `lse` below lq, whose last dim is adjacent. `flash.cu` and `flash.sm_90a.cu` read 16
    // bytes and write two numbers at a time: `Choice::of` looked at what that needs. `copy` lives until the launch, and its memory
    // until the kernel has run, in the order of the queue.
    unsafe { queue.launch(OP, choice.module, choice.kernel, shape, &args) }
}

/// A view [b, l, h, d] of 16-bit floats as the copy unit sees it: boxes of 128 rows of one head.
fn boxes(view: &View<'_>, columns: u32) -> Result<Boxes> {
    let shape = view.shape();
    // Where there is one entry, any stride will do.
    let stride = |dim: usize| match shape[dim] {
        1 => 16,
        _ => view.strides()[dim] as u64 * 2,
    };
    Ok(Boxes {
        address: view.ptr(),
        float: view.dtype().float(OP)?,
        dims: [3, 2, 1, 0].map(|dim| shape[dim] as u64),
        strides: [2, 1, 0].map(stride),
        size: [columns, 1, 128, 1],
    })
}

/// The first strides, as kernels take them. No view is larger than memory can be.
fn strides<const N: usize>(strides: &[usize]) -> [i64; N] {
    std::array::from_fn(|dim| strides[dim] as i64)
}
