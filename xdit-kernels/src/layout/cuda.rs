use super::plan::{CopyPlan, PlannedDim};
use crate::{
    DType, Result, View, ViewMut,
    cuda::{Args, DeviceWalk, LaunchShape, PtxModule},
};

static MODULE: PtxModule = PtxModule {
    name: "layout",
    sm_80: include_str!("layout.sm_80.ptx"),
    sm_90a: None,
};

/// Elements of a vector of a cast.
const CAST_VECTOR: usize = 8;

/// Rows and columns of a tile of a transposition, and rows of a block's threads.
const TILE: usize = 32;
const TILE_ROWS: u32 = 8;

/// Copies: as bits within one dtype, else converted between floats, or a float and u8. Shapes are equal (checked by the caller).
pub(super) fn copy(op: &'static str, x: View<'_>, mut out: ViewMut<'_>) -> Result<()> {
    let (from, to) = (x.dtype(), out.dtype());
    let conversion = (from != to).then(|| converting(op, from, to)).transpose()?;
    if x.numel() == 0 {
        return Ok(());
    }
    let plan = CopyPlan::new(x.shape(), x.strides(), out.strides());
    match conversion {
        Some(kernel) => cast(op, kernel, &plan, x, out),
        None if plan.is_contiguous() => {
            let queue = out.device().expect_cuda();
            // SAFETY: both are contiguous in one order, of one shape and dtype; `out` is exclusively borrowed.
            unsafe { queue.copy(op, x.ptr(), out.ptr(), x.numel() * from.size()) }
        }
        None => match plan.turned(from.size()) {
            Some((i, rest)) => transpose(op, &plan, i, &rest, x, out),
            None => words(op, &plan, x, out),
        },
    }
}

/// The kernel of a conversion.
fn converting(op: &'static str, from: DType, to: DType) -> Result<&'static str> {
    Ok(match (from, to) {
        (DType::F32, DType::BF16) => "cast_f32_bf16",
        (DType::F32, DType::F16) => "cast_f32_f16",
        (DType::BF16, DType::F32) => "cast_bf16_f32",
        (DType::BF16, DType::F16) => "cast_bf16_f16",
        (DType::F16, DType::F32) => "cast_f16_f32",
        (DType::F16, DType::BF16) => "cast_f16_bf16",
        (DType::U8, DType::F32) => "cast_u8_f32",
        (DType::U8, DType::BF16) => "cast_u8_bf16",
        (DType::U8, DType::F16) => "cast_u8_f16",
        (DType::F32, DType::U8) => "cast_f32_u8",
        (DType::BF16, DType::U8) => "cast_bf16_u8",
        (DType::F16, DType::U8) => "cast_f16_u8",
        (DType::U8, other) | (other, _) if !other.is_float() => return Err(other.not_float(op)),
        (_, other) => return Err(other.not_float(op)),
    })
}

/// Rows by words, the widest that sizes, strides and addresses are multiples of.
fn words(op: &'static str, plan: &CopyPlan, x: View<'_>, mut out: ViewMut<'_>) -> Result<()> {
    let size = x.dtype().size();
    let last = plan.last();
    let by_rows = last.x == 1 && last.out == 1;
    let addresses = x.ptr().addr() | out.ptr().addr();
    let fits = |word: usize| {
        let whole = |n: usize| (n * size).is_multiple_of(word);
        by_rows
            && addresses.is_multiple_of(word)
            && whole(last.n)
            && plan
                .outer()
                .iter()
                .all(|dim| whole(dim.x) && whole(dim.out))
    };
    let word = [16, 8, 4, 2]
        .into_iter()
        .find(|&word| word > size && fits(word));
    let word = word.unwrap_or(size);
    let kernel = match word {
        16 => "copy_16",
        8 => "copy_8",
        4 => "copy_4",
        2 => "copy_2",
        _ => "copy_1",
    };
    let each = word / size;
    let (shape, x_strides, out_strides) = plan.in_words(each);
    let walk = DeviceWalk::rows(op, &shape, [&x_strides, &out_strides])?;
    let mut args = Args::new();
    args.push(walk);
    args.push(x.ptr());
    args.push(out.ptr());
    args.push(last.x as u64);
    args.push(last.out as u64);
    let shape = walk.threads(op, 1)?;
    let queue = out.device().expect_cuda();
    // SAFETY: the plan's dims are those of both views, which reach every index of them; words are whole and aligned. `out` is
    // exclusively borrowed.
    unsafe { queue.launch(op, &MODULE, kernel, shape, &args) }
}

/// Tiles of the dim `i`, along which the source is adjacent, and the last, along which the destination is; `rest` are the other dims.
fn transpose(
    op: &'static str,
    plan: &CopyPlan,
    i: PlannedDim,
    rest: &[PlannedDim],
    x: View<'_>,
    mut out: ViewMut<'_>,
) -> Result<()> {
    let j = plan.last();
    // The walk's rows are the other dims: its own last dim is one element.
    let with_one =
        |of: fn(&PlannedDim) -> usize| -> Vec<usize> { rest.iter().map(of).chain([1]).collect() };
    let (shape, x_strides) = (with_one(|dim| dim.n), with_one(|dim| dim.x));
    let walk = DeviceWalk::rows(op, &shape, [&x_strides, &with_one(|dim| dim.out)])?;
    let tiles = i.n.div_ceil(TILE) * j.n.div_ceil(TILE);
    let blocks = tiles.checked_mul(walk.row_count());
    let Some(blocks) = blocks.and_then(|n| i32::try_from(n).ok()) else {
        return words(op, plan, x, out);
    };
    let kernel = match x.dtype().size() {
        1 => "transpose_1",
        2 => "transpose_2",
        _ => "transpose_4",
    };
    let mut args = Args::new();
    args.push(walk);
    args.push(x.ptr());
    args.push(out.ptr());
    // The plan has counted them.
    args.push(i.n as u32);
    args.push(j.n as u32);
    args.push(j.x as u64);
    args.push(i.out as u64);
    let shape = LaunchShape {
        grid: [blocks.unsigned_abs(), 1, 1],
        block: [TILE as u32, TILE_ROWS, 1],
        shared_bytes: 0,
    };
    let queue = out.device().expect_cuda();
    // SAFETY: the plan's dims are those of both views, which reach every index of them. `out` is exclusively borrowed.
    unsafe { queue.launch(op, &MODULE, kernel, shape, &args) }
}

/// Converts row by row, 8 elements a thread where both sides are whole aligned vectors.
fn cast(
    op: &'static str,
    kernel: &'static str,
    plan: &CopyPlan,
    x: View<'_>,
    mut out: ViewMut<'_>,
) -> Result<()> {
    let last = plan.last();
    let (shape, x_strides, out_strides) = plan.in_words(1);
    let walk = DeviceWalk::rows(op, &shape, [&x_strides, &out_strides])?;
    let aligned = x.dtype().is_float()
        && out.dtype().is_float()
        && (last.x, last.out) == (1, 1)
        && walk.has_vectors(CAST_VECTOR)
        && (x.ptr().addr() | out.ptr().addr()).is_multiple_of(16);
    let mut args = Args::new();
    args.push(walk);
    args.push(x.ptr());
    args.push(out.ptr());
    args.push(last.x as u64);
    args.push(last.out as u64);
    args.push(u32::from(aligned));
    let shape = walk.threads(op, if aligned { CAST_VECTOR } else { 1 })?;
    let queue = out.device().expect_cuda();
    // SAFETY: the plan's dims are those of both views, which reach every index of them; rows are whole aligned vectors where that is
    // said. `out` is exclusively borrowed.
    unsafe { queue.launch(op, &MODULE, kernel, shape, &args) }
}
