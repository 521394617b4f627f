//! Group norm, kernel after kernel, and upsampling.

use crate::{
    case::{Case, module},
    chain::Chain,
    support::{Args, Draw, FLOATS, Memory, Strided},
};
use xdit_kernels::{DType, View, group_norm::group_norm, upsample::upsample_nearest_2x};

const TEXT: &str = include_str!("../../xdit-kernels/src/group_norm/group_norm.sm_80.ptx");
const UPSAMPLE: &str = include_str!("../../xdit-kernels/src/upsample/upsample.sm_80.ptx");

/// Statistics are exact to f32 in both; a rounding in x − mean, one in the product, and those of the approximate e^x.
const TOLERANCE: f32 = 1e-6;
const EPS: f32 = 1e-5;

/// One normalisation. `single`: element by element. `run`: pixels of a thread.
#[derive(Debug, Clone, Copy)]
struct Norm {
    dims: [usize; 4],
    groups: usize,
    single: bool,
    run: usize,
    margin: usize,
    /// Rows and columns of x change places, so that its rows do not follow each other.
    turned: bool,
    silu: bool,
}

const WIDE: Norm = Norm {
    dims: [2, 5, 7, 256],
    groups: 32,
    single: false,
    run: 2,
    margin: 0,
    turned: false,
    silu: true,
};

const NORMS: [Norm; 5] = [
    WIDE,
    // A block wider than the channels; groups that share a vector.
    Norm {
        dims: [1, 6, 11, 24],
        groups: 12,
        run: 1,
        margin: 16,
        silu: false,
        ..WIDE
    },
    Norm {
        dims: [2, 9, 4, 16],
        groups: 1,
        run: 3,
        turned: true,
        ..WIDE
    },
    Norm {
        dims: [1, 5, 9, 9],
        groups: 3,
        single: true,
        run: 1,
        margin: 3,
        ..WIDE
    },
    // Several blocks of channels.
    Norm {
        dims: [1, 2, 3, 520],
        groups: 5,
        single: true,
        run: 4,
        turned: true,
        silu: false,
        ..WIDE
    },
];

/// The tensor with its rows and columns in their order, or exchanged.
fn seen(x: &Strided, turned: bool) -> View<'_> {
    match turned {
        true => x.view().transpose(1, 2).unwrap(),
        false => x.view(),
    }
}

/// The four launches.
fn launches(norm: &Norm, dtype: DType, parameters: DType) -> [Case; 4] {
    let mut draw = Draw(norm.dims.iter().sum::<usize>() as u64);
    let [b, h, w, c] = norm.dims;
    let x = Strided::random(&mut draw, dtype, &norm.dims, norm.margin);
    let view = seen(&x, norm.turned);
    let out = Strided::random(&mut draw, dtype, view.shape(), norm.margin);
    let gain = Strided::random(&mut draw, parameters, &[c], 0);
    let bias = Strided::random(&mut draw, DType::F32, &[c], 0);
    let want = group_norm(view, norm.groups, gain.view(), bias.view(), EPS, norm.silu).unwrap();

    let vector = if norm.single { 1 } else { 16 / dtype.size() };
    let vectors = c.div_ceil(vector);
    let across = vectors.next_power_of_two().min(256);
    let chunks = (h * w).div_ceil(norm.run * 256 / across);
    let in_group = c / norm.groups;
    let row = view.dim(2);
    let joined = view.strides()[1] == row * view.strides()[2];
    let mut memory = Memory::default();
    let (from, to) = (memory.put(&x), memory.output(&out));
    let (gain_at, bias_at) = (memory.put(&gain), memory.put(&bias));
    let partial = memory.0.allocate(b * chunks * c * 16);
    let totals = memory.0.allocate(b * norm.groups * 16);
    let affine = memory.0.allocate(b * 3 * c * 4);
    let strides = |of: &[usize]| {
        Args::default()
            .u64(of[0] as u64)
            .u64(of[1] as u64)
            .u64(of[2] as u64)
    };
    let shape = |joined: bool| {
        [h * w, if joined { h * w } else { row }, c, chunks, norm.run]
            .iter()
            .fold(Args::default(), |args, &n| args.u32(n as u32))
    };
    let name = if norm.single { "single_" } else { "" };
    let grid = [(b * chunks) as u32, vectors.div_ceil(across) as u32, 1];
    let block = [across as u32, (256 / across) as u32, 1];
    let sums = Args::default()
        .u64(from)
        .u64(partial)
        .of(strides(view.strides()))
        .of(shape(joined));
    let sums =
        Case::new(format!("group_sums_{name}{dtype}"), Memory::default(), sums).grid(grid, block);
    let add = Args::default()
        .u64(partial)
        .u64(totals)
        .u32(norm.groups as u32)
        .u32(chunks as u32)
        .u32(in_group as u32);
    let add = Case::new("group_totals", Memory::default(), add)
        .grid([(b * norm.groups) as u32, 1, 1], [256, 1, 1]);
    let kind = |dtype: DType| if dtype == DType::F32 { 1 } else { 2 };
    let of_channels = Args::default()
        .u64(((h * w) as f64).to_bits())
        .u64(1)
        .u64(1)
        .u32(kind(parameters))
        .u32(kind(DType::F32))
        .u32(c as u32)
        .u32(norm.groups as u32)
        .u32((b * c) as u32)
        .f32(EPS);
    let of_channels = Args::default()
        .u64(totals)
        .u64(gain_at)
        .u64(bias_at)
        .u64(affine)
        .of(of_channels);
    let of_channels = Case::new(
        format!("group_affine_{parameters}"),
        Memory::default(),
        of_channels,
    )
    .grid([(b * c).div_ceil(256) as u32, 1, 1], [256, 1, 1]);
    let apply = Args::default()
        .u64(from)
        .u64(affine)
        .u64(to)
        .of(strides(view.strides()))
        .of(strides(&out.strides()))
        .of(shape(joined))
        .u32(u32::from(norm.silu));
    let apply = Case::new(format!("group_norm_{name}{dtype}"), memory, apply)
        .grid(grid, block)
        .named(format!("{norm:?}"))
        .expect(to, &out, want, TOLERANCE);
    [sums, add, of_channels, apply]
}

#[test]
fn group_norms() {
    let module = module(TEXT);
    for norm in NORMS {
        for (dtype, parameters) in FLOATS
            .into_iter()
            .zip([DType::BF16, DType::F32, DType::F16])
        {
            let [sums, totals, affine, apply] = launches(&norm, dtype, parameters);
            let before = vec![sums, totals, affine];
            let last = apply;
            Chain { before, last }.check(&module);
        }
    }
}

#[test]
fn seeded_bugs_are_found() {
    let [sums, totals, affine, apply] = launches(&WIDE, DType::F32, DType::F32);
    let (before, last) = (vec![sums, totals, affine], apply);
    let chain = Chain { before, last };
    for (kernel, place, to) in [
        // Columns, and warps, are added up before they are there.
        ("group_sums_f32", ("bar.sync", 0), "//"),
        ("group_totals", ("bar.sync", 0), "//"),
        // The last run goes on behind the picture.
        ("group_sums_f32", ("min.u32", 0), "max.u32"),
        ("group_norm_f32", ("min.u32", 0), "max.u32"),
        // Twice the mean for its square; the exponential without 1.
        ("group_affine_f32", ("mul.f64", 1), "add.f64"),
        ("group_norm_f32", ("0f3F800000", 0), "0f3F900000"),
    ] {
        chain.assert_found(TEXT, kernel, place, to);
    }
}

/// Whether a pixel repeats four times, element by element or 16 bytes at once.
#[test]
fn upsampling() {
    let module = module(UPSAMPLE);
    for (dtype, dims, margin, turned) in [
        (DType::BF16, [2, 3, 5, 24], 16, false),
        (DType::F32, [1, 4, 3, 8], 0, true),
        (DType::F16, [1, 3, 5, 7], 3, false),
        (DType::F32, [2, 2, 5, 3], 1, true),
    ] {
        let mut draw = Draw(5);
        let x = Strided::random(&mut draw, dtype, &dims, margin);
        let view = seen(&x, turned);
        let want = upsample_nearest_2x(view).unwrap();
        let out = Strided::random(&mut draw, dtype, want.shape(), margin);
        let unit = match (dims[3] * dtype.size() % 16, margin * dtype.size() % 32) {
            (0, 0) => 16,
            _ => dtype.size(),
        };
        let of_unit = unit / dtype.size();
        let mut call = Args::default();
        for strides in [view.strides(), &out.strides()] {
            for stride in &strides[..3] {
                call = call.u64((stride / of_unit) as u64);
            }
            call = call.u64(1);
        }
        let shape = view.shape();
        let units = dims[3] / of_unit;
        let count = dims.iter().product::<usize>() / of_unit;
        for n in [shape[1], shape[2], units, count] {
            call = call.u32(n as u32);
        }
        let mut memory = Memory::default();
        let (from, to) = (memory.put(&x), memory.output(&out));
        let args = Args::default().u64(from).u64(to).of(call);
        Case::new(format!("upsample_bytes_{unit}"), memory, args)
            .grid([count.div_ceil(256) as u32, 1, 1], [256, 1, 1])
            .named(format!("{dtype} {dims:?}"))
            .expect(to, &out, want, 0.0)
            .check(&module);
    }
}
