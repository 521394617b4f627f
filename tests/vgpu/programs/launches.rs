//! Programs about launches: shapes, arguments, modules.

use crate::driver::{
    Gpu, Kernels, Shape, allocate, args, call, download, free, give_back, launch, stream, uploaded,
};
use crate::{Outcome, Program, compare};

const BASICS: &str = include_str!("../../ptx-interp/kernels/basics.ptx");
const GEMM90: &str = include_str!("../../ptx-interp/kernels/gemm90.ptx");
const N: usize = 256;

pub(crate) const PROGRAMS: &[Program] = &[Program {
    name: "launch",
    capability: 80,
    run: launches,
    bugs: &[
        ("no blocks", "a grid of"),
        ("too many threads", "a block of"),
        ("too much shared memory", "bytes of dynamic shared memory"),
        ("an argument is missing", "cannot be read"),
        (
            "a buffer of arguments that is too short",
            "bytes of parameters",
        ),
        ("a pointer to the host", "points to no allocation"),
        (
            "the pointers and the number are swapped",
            "points to no allocation",
        ),
        ("input and output are swapped", "never-written"),
        ("a pointer to freed memory", "use after free"),
        ("a pointer that is not aligned", "isaligned"),
        ("a number too large", "out of bounds"),
        ("a number too small", "never-written"),
        ("a block too few", "never-written"),
        ("a module that was unloaded", "INVALID_HANDLE"),
        (
            "a module for another architecture",
            "the log: PTX for sm_90a does not run on a device",
        ),
        (
            "a module for a newer driver",
            "the log: PTX 9.0 needs a newer driver",
        ),
    ],
}];

/// One kernel, with all that can be wrong about its launch.
fn launches(bug: &str) -> Outcome {
    let gpu = Gpu::open(0)?;
    match bug {
        "a module for another architecture" => return Kernels::load(GEMM90).map(|_| ()),
        "a module for a newer driver" => {
            return Kernels::load(&BASICS.replace(".version 8.0", ".version 9.0")).map(|_| ());
        }
        _ => {}
    }
    let kernels = Kernels::load(BASICS)?;
    let add = kernels.function("vector_add")?;
    let s = stream()?;
    let x: Vec<f32> = (0..N).map(|i| i as f32).collect();
    let (a, b) = (uploaded(&x, s)?, uploaded(&x, s)?);
    let c = allocate(N * 4, s)?;
    let mut shape = Shape {
        grid: [2, 1, 1],
        block: [32, 1, 1],
        shared: 0,
    };
    let mut n = N as i32;
    let mut pointers = [a, b, c];
    match bug {
        "no blocks" => shape.grid[0] = 0,
        "too many threads" => shape.block = [32, 33, 1],
        "too much shared memory" => shape.shared = 50_000,
        "a pointer to the host" => pointers[0] = x.as_ptr() as u64,
        "input and output are swapped" => pointers = [c, b, a],
        "a pointer to freed memory" => free(&[b], s)?,
        "a pointer that is not aligned" => pointers[2] += 4,
        // A multiple of 4, so that the factor is the same.
        "a number too large" => {
            n += 128;
            shape.grid[0] += 1;
        }
        "a number too small" => n -= 4,
        "a block too few" => shape.grid[0] -= 1,
        _ => {}
    }
    let mut args = args(&pointers, &[n]);
    match bug {
        "an argument is missing" => drop(args.pop()),
        "the pointers and the number are swapped" => args.rotate_right(1),
        _ => {}
    }
    if bug == "a module that was unloaded" {
        kernels.unload()?;
        return launch(add, shape, s, &args);
    }
    if bug == "a buffer of arguments that is too short" {
        let mut bytes = 24_usize;
        let mut extra = [
            std::ptr::without_provenance_mut(1), // CU_LAUNCH_PARAM_BUFFER_POINTER
            pointers.as_mut_ptr().cast(),
            std::ptr::without_provenance_mut(2), // CU_LAUNCH_PARAM_BUFFER_SIZE
            std::ptr::from_mut(&mut bytes).cast(),
            std::ptr::null_mut(),
        ];
        let none = std::ptr::null_mut();
        return call!(cuLaunchKernel(
            add,
            2,
            1,
            1,
            32,
            1,
            1,
            0,
            s,
            none,
            extra.as_mut_ptr()
        ));
    }
    launch(add, shape, s, &args)?;
    let got: Vec<f32> = download(c, N, s)?;
    let want: Vec<f32> = x.iter().map(|x| x + x).collect();
    compare(&got, &want)?;
    give_back(gpu, kernels, s, &[a, b, c])
}
