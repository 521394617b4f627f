//! Programs about the lives of allocations, streams, events and modules.

use cudarc::driver::sys;

use crate::driver::{
    Gpu, Kernels, Shape, allocate, args, call, copy, destroy, download, event, free, give_back,
    launch, record, stream, synchronize, uploaded, wait,
};
use crate::{Outcome, Program, compare};

const BASICS: &str = include_str!("../../ptx-interp/kernels/basics.ptx");
const N: usize = 256;

pub(crate) const PROGRAMS: &[Program] = &[
    Program {
        name: "lives",
        capability: 80,
        run: lives,
        bugs: &[
            ("used before its allocation", "use before allocation"),
            ("freed too early", "freed while in use/use after free"),
            (
                "freed by the host too early",
                "freed while in use/use after free",
            ),
            ("freed twice", "double free"),
            ("freed in the middle", "where no allocation begins"),
            (
                "freed without an order after its allocation",
                "unordered free",
            ),
            ("copied after the free", "use after free"),
            ("read behind the end", "out of bounds"),
            ("never written", "never-written"),
            ("written in part", "never-written"),
            ("an allocation is not freed", "leaked at the release"),
            ("a stream is not destroyed", "leaked at the release"),
            ("an event is not destroyed", "leaked at the release"),
            ("a module is not unloaded", "leaked at the release"),
        ],
    },
    Program {
        name: "rectangles",
        capability: 80,
        run: rectangles,
        bugs: &[
            ("a row too many", "out of bounds"),
            ("a pitch of elements", "the next begins"),
            ("a column too far", "out of bounds"),
            ("rows and columns are swapped", "wrong result"),
        ],
    },
];

/// Memory that one stream allocates and another uses and frees.
fn lives(bug: &str) -> Outcome {
    let gpu = Gpu::open(0)?;
    let kernels = Kernels::load(BASICS)?;
    let (s, t, used) = (stream()?, stream()?, event()?);
    let x: Vec<u32> = (0..N as u32).collect();
    let a = if bug == "never written" {
        allocate(N * 4, s)?
    } else {
        uploaded(&x, s)?
    };
    if bug == "written in part" {
        call!(cuMemFreeAsync(a, s))?;
        let half = allocate(N * 4, s)?;
        call!(cuMemsetD8Async(half, 1, N * 2, s))?;
        download::<u32>(half, N, s)?;
    }
    let b = allocate(N * 4, s)?;
    record(used, s)?;
    let ordered =
        bug != "used before its allocation" && bug != "freed without an order after its allocation";
    if ordered {
        wait(t, used)?;
    }
    if bug == "freed without an order after its allocation" {
        free(&[b], t)?;
        return synchronize(t);
    }
    let bytes = if bug == "read behind the end" {
        N * 4 + 4
    } else {
        N * 4
    };
    copy(b, a, bytes, t)?;
    record(used, t)?;
    match bug {
        "freed too early" => {}
        "freed by the host too early" => {
            call!(cuMemFree_v2(a))?;
            return synchronize(s);
        }
        _ => wait(s, used)?,
    }
    if bug == "freed in the middle" {
        free(&[a + 256], s)?;
    }
    free(&[a], s)?;
    if bug == "freed twice" {
        free(&[a], s)?;
    }
    if bug == "copied after the free" {
        copy(b, a, N * 4, s)?;
    }
    synchronize(s)?;
    let got: Vec<u32> = download(b, N, t)?;
    compare(&got, &x)?;
    if bug != "an allocation is not freed" {
        free(&[b], t)?;
    }
    synchronize(t)?;
    let (streams, events) = ([s, t], [used]);
    let kept = usize::from(bug == "a stream is not destroyed");
    destroy(
        &streams[kept..],
        &events[usize::from(bug == "an event is not destroyed")..],
    )?;
    if bug != "a module is not unloaded" {
        kernels.unload()?;
    }
    gpu.close()
}

/// A part of a matrix is copied out of it, and transposed.
fn rectangles(bug: &str) -> Outcome {
    const COLUMNS: usize = 48;
    const ROWS: usize = 32;
    let (h, w) = (16, 40);
    let gpu = Gpu::open(0)?;
    let kernels = Kernels::load(BASICS)?;
    let transpose = kernels.function("transpose")?;
    let s = stream()?;
    let x: Vec<f32> = (0..ROWS * COLUMNS).map(|i| i as f32).collect();
    let a = uploaded(&x, s)?;
    let (part, out) = (allocate(h * w * 4, s)?, allocate(h * w * 4, s)?);
    let device = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
    let right = if bug == "a column too far" { 9 } else { 8 };
    let rect = sys::CUDA_MEMCPY2D {
        srcXInBytes: right * 4,
        srcY: 16,
        srcMemoryType: device,
        srcHost: std::ptr::null(),
        srcDevice: a,
        srcArray: std::ptr::null_mut(),
        srcPitch: COLUMNS * 4,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: device,
        dstHost: std::ptr::null_mut(),
        dstDevice: part,
        dstArray: std::ptr::null_mut(),
        dstPitch: if bug == "a pitch of elements" {
            w
        } else {
            w * 4
        },
        WidthInBytes: w * 4,
        Height: if bug == "a row too many" { h + 1 } else { h },
    };
    call!(cuMemcpy2DAsync_v2(&rect, s))?;
    let (rows, columns) = if bug == "rows and columns are swapped" {
        (w, h)
    } else {
        (h, w)
    };
    let shape = Shape {
        grid: [2, 2, 1],
        block: [32, 8, 1],
        shared: 0,
    };
    let args = args(&[part, out], &[rows as i32, columns as i32]);
    launch(transpose, shape, s, &args)?;
    let got: Vec<f32> = download(out, h * w, s)?;
    let want: Vec<f32> = (0..h * w)
        .map(|i| x[(16 + i % h) * COLUMNS + 8 + i / h])
        .collect();
    compare(&got, &want)?;
    give_back(gpu, kernels, s, &[a, part, out])
}
