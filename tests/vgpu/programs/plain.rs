//! A program with a kernel that has a native version (`VGPU_NATIVE=1`).

use crate::driver::{
    Arg, Gpu, Kernels, Shape, allocate, destroy, download, event, free, launch, record, stream,
    synchronize, uploaded, wait,
};
use crate::{Outcome, Program, compare};

const LAYOUT: &str = include_str!("../../../xdit-kernels/src/layout/layout.sm_80.ptx");
const N: u64 = 500;

pub(crate) const PROGRAMS: &[Program] = &[Program {
    name: "plain kernel",
    capability: 80,
    run: plain,
    bugs: &[
        ("no wait for the kernel", "data race"),
        ("no wait for the copy", "data race/use after free"),
        ("too many elements", "out of bounds"),
        ("too few elements", "never-written"),
        ("a block too few", "never-written"),
        ("an input that nobody wrote", "never-written"),
        ("a pointer that is not aligned", "isaligned"),
        ("an input that was freed", "use after free"),
        ("rows in one place", "Race"),
    ],
}];

/// A kernel copies on one stream, and the host reads the copy on another one; then the kernel copies something else there.
fn plain(bug: &str) -> Outcome {
    let gpu = Gpu::open(0)?;
    let kernels = Kernels::load(LAYOUT)?;
    let copy = kernels.function("copy_4")?;
    let (s, t, ready, read) = (stream()?, stream()?, event()?, event()?);
    let of = |first: f32| -> Vec<f32> { (0..N).map(|i| first + i as f32).collect() };
    let (x, y) = (uploaded(&of(0.0), s)?, uploaded(&of(5.0), s)?);
    let (out, empty) = (allocate(4 * N as usize, s)?, allocate(4 * N as usize, s)?);
    let mut shape = Shape {
        grid: [2, 1, 1],
        block: [256, 1, 1],
        shared: 0,
    };
    // `Walk<2>` of prelude.cuh: the length of a row, rows and dims in two words of 32 bits, six more of these, strides of x and out.
    let mut walk = [N, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (mut from, mut to) = (x, out);
    match bug {
        "too many elements" => walk[0] += 1,
        "too few elements" => walk[0] -= 1,
        "a block too few" => shape.grid[0] -= 1,
        "an input that nobody wrote" => from = empty,
        "a pointer that is not aligned" => to += 2,
        "an input that was freed" => free(&[x], s)?,
        // Two rows of half the length, of which the output has one.
        "rows in one place" => {
            walk = [
                N / 2,
                2 | 1 << 32,
                2,
                0,
                0,
                N / 2,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ];
        }
        _ => {}
    }
    let args = |from, to| [Arg::Walk(walk), Arg::Pointer(from), Arg::Pointer(to)];
    let steps = [Arg::Long(1), Arg::Long(1)];
    launch(copy, shape, s, &[&args(from, to)[..], &steps].concat())?;
    record(ready, s)?;
    if bug != "no wait for the kernel" {
        wait(t, ready)?;
    }
    let got: Vec<f32> = download(out, N as usize, t)?;
    compare(&got, &of(0.0))?;
    record(read, t)?;
    if bug == "no wait for the copy" {
        // A copy that the host did not wait for.
        crate::driver::copy(empty, out, 4 * N as usize, t)?;
    }
    wait(s, read)?;
    launch(copy, shape, s, &[&args(y, out)[..], &steps].concat())?;
    compare(&download::<f32>(out, N as usize, s)?, &of(5.0))?;
    free(&[x, y, out, empty], s)?;
    synchronize(s)?;
    destroy(&[s, t], &[ready, read])?;
    kernels.unload()?;
    gpu.close()
}
