//! Kernels with a bug each, launched by good host code: what the interpreter reports comes out of the driver.

use cudarc::driver::sys;
use half::bf16;

use crate::driver::{
    Arg, Gpu, Kernels, Pointer, Shape, allocate, args, call, download, give_back, launch, stream,
    uploaded,
};
use crate::{Outcome, Program, compare};

const BASICS: &str = include_str!("../../ptx-interp/kernels/basics.ptx");
const GEMM: &str = include_str!("../../ptx-interp/kernels/gemm.ptx");
const GEMM90: &str = include_str!("../../ptx-interp/kernels/gemm90.ptx");

pub(crate) const PROGRAMS: &[Program] = &[
    Program {
        name: "sums",
        capability: 80,
        run: sums,
        bugs: &[
            ("no barrier before other warps' sums", "Race/NeverWritten"),
            ("a shuffle that stays in its lane", "wrong result"),
            ("sums of another type", "never-written"),
        ],
    },
    Program {
        name: "product",
        capability: 80,
        run: product,
        bugs: &[
            ("no barrier", "Race/NeverWritten"),
            ("a wait for a group too few", "Race/NeverWritten"),
            ("copies are not committed", "Race/NeverWritten"),
            ("a fragment is transposed", "wrong result"),
            ("a tile too many", "out of bounds/OutOfBounds"),
            ("blocks overlap", "Race/NeverWritten"),
        ],
    },
    Program {
        name: "product of warpgroups",
        capability: 90,
        run: warpgroups,
        bugs: &[
            ("bytes that never come", "Mbarrier/Deadlock"),
            ("the product is read too early", "Race/NeverWritten"),
            ("no fence before the store", "Race/NeverWritten"),
            ("the stage is not given back", "Deadlock/Mbarrier"),
            ("another swizzle", "wrong result"),
            (
                "a tile of the wrong height",
                "Mbarrier/Deadlock/OutOfBounds",
            ),
            ("a descriptor of zeros", "descriptor"),
        ],
    },
];

/// Changes the lines of one kernel that hold `line`: all, or the one with the number.
fn changed(
    text: &str,
    kernel: &str,
    line: &str,
    which: Option<usize>,
    change: impl Fn(&str) -> String,
) -> String {
    let (mut inside, mut found, mut done) = (false, 0, false);
    let lines: Vec<String> = text
        .lines()
        .map(|text| {
            if text.contains(".entry ") {
                inside = text.contains(&format!(".entry {kernel}("));
            }
            if !inside || !text.contains(line) {
                return text.to_owned();
            }
            found += 1;
            if which.is_some_and(|which| which + 1 != found) {
                return text.to_owned();
            }
            done = true;
            change(text)
        })
        .collect();
    assert!(done, "no line of {kernel} holds {line}");
    lines.join("\n")
}

fn dropped(text: &str, kernel: &str, line: &str, which: Option<usize>) -> String {
    changed(text, kernel, line, which, |_| String::new())
}

fn sums(bug: &str) -> Outcome {
    const N: usize = 1000;
    let text = match bug {
        "no barrier before other warps' sums" => dropped(BASICS, "block_sums", "bar.sync", None),
        "a shuffle that stays in its lane" => {
            changed(BASICS, "block_sums", "shfl.sync.bfly", Some(0), |line| {
                let (to, from) = line.split_once(',').unwrap_or_default();
                let to = to.split('|').next().unwrap_or_default();
                let to = to.rsplit(char::is_whitespace).next().unwrap_or_default();
                let from = from.split(',').next().unwrap_or_default();
                format!("mov.b32 {to}, {from};")
            })
        }
        "sums of another type" => changed(BASICS, "block_sums", "st.global.f32", None, |line| {
            line.replace("st.global.f32", "st.global.u8")
                .replace("%f", "%r")
        }),
        _ => BASICS.to_owned(),
    };
    let gpu = Gpu::open(0)?;
    let kernels = Kernels::load(&text)?;
    let block_sums = kernels.function("block_sums")?;
    let s = stream()?;
    let x: Vec<f32> = (0..N).map(|i| (i % 13) as f32).collect();
    let (a, out) = (uploaded(&x, s)?, allocate(8, s)?);
    let shape = Shape {
        grid: [2, 1, 1],
        block: [128, 1, 1],
        shared: 0,
    };
    launch(block_sums, shape, s, &args(&[a, out], &[N as i32]))?;
    let got: Vec<f32> = download(out, 2, s)?;
    let part = |first: usize| {
        x.iter()
            .enumerate()
            .filter(|(i, _)| i / 128 % 2 == first)
            .map(|(_, x)| x)
            .sum::<f32>()
    };
    compare(&got, &[part(0), part(1)])?;
    give_back(gpu, kernels, s, &[a, out])
}

/// Small integers: their sums are exact in any order.
fn numbers(count: usize, step: usize) -> Vec<bf16> {
    (0..count)
        .map(|i| bf16::from_f32((i * step % 7) as f32 - 3.0))
        .collect()
}

/// `a b^T`
fn reference(a: &[bf16], b: &[bf16], k: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for a in a.chunks(k) {
        for b in b.chunks(k) {
            out.push(a.iter().zip(b).map(|(a, b)| a.to_f32() * b.to_f32()).sum());
        }
    }
    out
}

fn product(bug: &str) -> Outcome {
    const KERNEL: &str = "gemm_bf16";
    let (m, n, k) = (72, 64, 96);
    let text = match bug {
        "no barrier" => dropped(GEMM, KERNEL, "bar.sync", None),
        "a wait for a group too few" => {
            changed(GEMM, KERNEL, "cp.async.wait_group", None, |line| {
                line.replace("wait_group \t1", "wait_group \t2")
                    .replace("wait_group 1", "wait_group 2")
            })
        }
        "copies are not committed" => dropped(GEMM, KERNEL, "cp.async.commit_group", None),
        // All blocks of a row compute the first tile.
        "blocks overlap" => changed(GEMM, KERNEL, "%ctaid.x", None, |line| {
            line.replace("%ctaid.x", "0")
        }),
        "a fragment is transposed" => changed(
            GEMM,
            KERNEL,
            "ldmatrix.sync.aligned.m8n8.x4",
            None,
            |line| line.replace(".x4.shared", ".x4.trans.shared"),
        ),
        _ => GEMM.to_owned(),
    };
    let gpu = Gpu::open(0)?;
    let kernels = Kernels::load(&text)?;
    let gemm = kernels.function(KERNEL)?;
    let s = stream()?;
    let (a, b) = (numbers(m * k, 5), numbers(n * k, 3));
    let (pa, pb, pc) = (uploaded(&a, s)?, uploaded(&b, s)?, allocate(m * n * 4, s)?);
    let mut shape = Shape {
        grid: [1, 2, 1],
        block: [128, 1, 1],
        shared: 0,
    };
    let mut sizes = [m as i32, n as i32, k as i32];
    match bug {
        // The host says that there are more columns, and the grid computes them.
        "a tile too many" => (sizes[1], shape.grid[0]) = (128, 2),
        "blocks overlap" => shape.grid[0] = 2,
        _ => {}
    }
    launch(gemm, shape, s, &args(&[pa, pb, pc], &sizes))?;
    let got: Vec<f32> = download(pc, m * n, s)?;
    compare(&got, &reference(&a, &b, k))?;
    give_back(gpu, kernels, s, &[pa, pb, pc])
}

/// A descriptor, which lies at a multiple of 64 bytes.
#[repr(align(64))]
struct AlignedMap(sys::CUtensorMap);

/// A matrix of so many columns and rows, copied in tiles.
fn map(
    pointer: Pointer,
    kind: sys::CUtensorMapDataType,
    columns: usize,
    rows: usize,
    tile: [u32; 2],
    swizzle: sys::CUtensorMapSwizzle,
) -> Result<Arg, String> {
    use sys::{CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion};
    let element = if kind == sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32 {
        4
    } else {
        2
    };
    // SAFETY: the descriptor is an array of numbers, for which zeros are values.
    let mut map = AlignedMap(unsafe { std::mem::zeroed() });
    let dims = [columns as u64, rows as u64];
    let strides = [(columns * element) as u64];
    call!(cuTensorMapEncodeTiled(
        &mut map.0,
        kind,
        2,
        pointer as *mut _,
        dims.as_ptr(),
        strides.as_ptr(),
        tile.as_ptr(),
        [1, 1].as_ptr(),
        CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
        swizzle,
        CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
        CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    ))?;
    Ok(Arg::Map(map.0))
}

fn warpgroups(bug: &str) -> Outcome {
    use sys::CUtensorMapDataType::{
        CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 as BF16, CU_TENSOR_MAP_DATA_TYPE_FLOAT32 as F32,
    };
    use sys::CUtensorMapSwizzle::{
        CU_TENSOR_MAP_SWIZZLE_128B as FULL, CU_TENSOR_MAP_SWIZZLE_NONE as NONE,
    };
    const KERNEL: &str = "gemm_wgmma";
    const SHARED: i32 = 70_000;
    let (m, n, k) = (64, 128, 256);
    let text = match bug {
        "bytes that never come" => GEMM90.replace(", 16384;", ", 16388;"),
        "the product is read too early" => dropped(GEMM90, KERNEL, "wgmma.wait_group", None),
        "no fence before the store" => dropped(GEMM90, KERNEL, "fence.proxy.async", None),
        "the stage is not given back" => dropped(GEMM90, KERNEL, "mbarrier.arrive.shared", None),
        _ => GEMM90.to_owned(),
    };
    let gpu = Gpu::open(0)?;
    let kernels = Kernels::load(&text)?;
    let gemm = kernels.function(KERNEL)?;
    let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    call!(cuFuncSetAttribute(gemm, most, SHARED))?;
    let s = stream()?;
    let (a, b) = (numbers(m * k, 5), numbers(n * k, 3));
    let (pa, pb, pc) = (uploaded(&a, s)?, uploaded(&b, s)?, allocate(m * n * 4, s)?);
    let height = if bug == "a tile of the wrong height" {
        32
    } else {
        64
    };
    let swizzle = if bug == "another swizzle" { NONE } else { FULL };
    let mut args = vec![
        map(pa, BF16, k, m, [64, height], swizzle)?,
        map(pb, BF16, k, n, [64, 64], FULL)?,
        map(pc, F32, n, m, [64, 64], NONE)?,
        Arg::Int(k as i32),
    ];
    if bug == "a descriptor of zeros" {
        // SAFETY: as in `map`.
        args[1] = Arg::Map(unsafe { std::mem::zeroed() });
    }
    let shape = Shape {
        grid: [2, 1, 1],
        block: [256, 1, 1],
        shared: SHARED as u32,
    };
    launch(gemm, shape, s, &args)?;
    let got: Vec<f32> = download(pc, m * n, s)?;
    compare(&got, &reference(&a, &b, k))?;
    give_back(gpu, kernels, s, &[pa, pb, pc])
}
