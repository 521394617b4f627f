//! The native versions of kernels that the virtual GPU has (`tests/vgpu/cuda/src/native`), against the interpreter: the same bytes
//! read, the same bytes written, with the same values. They decline every launch in which the interpreter finds something.

use std::collections::{BTreeMap, BTreeSet};

use ptx_interp::{DeviceMemory, Finding, FlatMemory, MemoryFault, Module, Options, Report, launch};
use vgpu_cuda::native;
use xdit_kernels::DType;

use crate::batch::{BATCH, copies, together};
use crate::case::{Case, Kernels, module};
use crate::elementwise::{ELEMENTWISE, gate, pair};
use crate::layout::{LAYOUT, casting, copy};
use crate::norm::{NORM, What, case};
use crate::support::{Draw, FLOATS, Strided};

/// A memory, and what a launch did with it.
struct Noted {
    memory: FlatMemory,
    read: BTreeSet<u64>,
    /// What was stored last.
    written: BTreeMap<u64, u8>,
}

impl Noted {
    fn of(case: &Case) -> Self {
        Self {
            memory: case.memory.0.clone(),
            read: BTreeSet::new(),
            written: BTreeMap::new(),
        }
    }
}

impl DeviceMemory for Noted {
    fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), MemoryFault> {
        self.memory.read(address, out)?;
        self.read.extend((address..).take(out.len()));
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.memory.write(address, bytes)?;
        self.written.extend((address..).zip(bytes.iter().copied()));
        Ok(())
    }
}

/// Runs a launch by the interpreter.
fn interpreted(case: &Case, module: &Module) -> (Noted, Result<(), Report>) {
    let mut memory = Noted::of(case);
    let ran = case.launched(module, &[], |entry, call| {
        launch(entry, call, &mut memory, &Options::default()).map(drop)
    });
    (memory, ran)
}

/// Runs a launch by the native version, if it does not decline.
fn natively(case: &Case, module: &Module) -> Option<Noted> {
    let mut memory = Noted::of(case);
    let ran = case.launched(module, &[], |entry, call| {
        native::run(entry, call, &mut memory)
    });
    ran.map(|()| memory)
}

/// Whether a launch runs natively. It then does what the interpreter does.
fn runs_as_interpreted(case: &Case, module: &Module) -> bool {
    let Some(native) = natively(case, module) else {
        return false;
    };
    let name = format!("{} {}", case.kernel, case.name);
    let (interpreted, ran) = interpreted(case, module);
    assert_eq!(ran, Ok(()), "{name} runs natively");
    assert!(
        native.read == interpreted.read,
        "{name}: bytes that are read"
    );
    assert!(
        native.written == interpreted.written,
        "{name}: bytes written"
    );
    true
}

/// Odd shapes of every kernel that has a native version.
fn cases() -> Vec<(Case, &'static Kernels)> {
    let loaded = |text| &*Box::leak(Box::new(module(text)));
    let (elementwise, norms) = (loaded(ELEMENTWISE), loaded(NORM));
    let (layout, batch) = (loaded(LAYOUT), loaded(BATCH));
    let mut cases = Vec::new();
    let mut draw = Draw(9);
    for dtype in FLOATS {
        for other in [dtype, DType::F32] {
            for (shape, margin) in [([2, 3, 24], 16), ([2, 3, 7], 3)] {
                for operation in 0..9 {
                    let case = pair(
                        operation,
                        dtype,
                        other,
                        (&shape, operation % 2 == 1),
                        margin,
                    );
                    cases.push((case, elementwise));
                }
                cases.push((gate(dtype, other, dtype, &shape, margin), elementwise));
                cases.push((gate(dtype, dtype, other, &shape, margin), elementwise));
            }
            let whats = [What::Affine, What::Modulate, What::Shift, What::RmsWeight];
            for what in whats.into_iter().chain([What::Plain, What::Rms]) {
                let shapes = [
                    ([2, 3, 40], 0, 1),
                    ([2, 1, 136], 16, 2),
                    ([2, 2, 135], 5, 2),
                ];
                for (shape, margin, warps) in shapes.into_iter().chain([([1, 3, 1], 0, 1)]) {
                    cases.push((case(what, dtype, other, &shape, margin, warps), norms));
                }
            }
        }
        for to in FLOATS.into_iter().filter(|to| *to != dtype) {
            let x = Strided::random(&mut draw, dtype, &[3, 24], 16);
            cases.push((casting(&x, to, 16), layout));
            let x = Strided::of(draw.tensor(dtype, [7, 3])).permuted(&[1, 0]);
            cases.push((casting(&x, to, 3), layout));
        }
    }
    for (dtype, word) in [
        (DType::F32, 4),
        (DType::F32, 2),
        (DType::F32, 1),
        (DType::BF16, 1),
    ] {
        let x = Strided::random(&mut draw, dtype, &[2, 3, 5 * word], 2 * word);
        let out = Strided::random(&mut draw, dtype, &[2, 3, 5 * word], 4 * word);
        cases.push((copy(&x, &out, word), layout));
    }
    let bytes = |draw: &mut Draw, shape: [usize; 2]| {
        let x = draw.tensor(DType::F32, shape).to_dtype(DType::U8);
        Strided::of(x.expect("a cast"))
    };
    let masks = bytes(&mut draw, [3, 9]).narrowed(1, 2, 5);
    cases.push((copy(&masks, &bytes(&mut draw, [3, 5]), 1), layout));
    cases.push((together(&copies(), 8), batch));
    let many: Vec<_> = (0..3).flat_map(|_| copies()).collect();
    cases.push((together(&many, 56), batch));
    cases
}

#[test]
fn every_native_kernel_computes_what_the_interpreter_does() {
    let mut named = BTreeSet::new();
    for (case, kernels) in cases() {
        let native = runs_as_interpreted(&case, &kernels.module);
        assert!(native, "{} {} was declined", case.kernel, case.name);
        named.insert(case.kernel);
    }
    let listed: BTreeSet<String> = native::kernels().map(str::to_owned).collect();
    assert_eq!(
        named, listed,
        "kernels with a case, and with a native version"
    );
}

/// Where the addresses of the input and the output are: the parameter, and the byte there.
fn places(kernel: &str) -> [(usize, usize); 2] {
    match kernel.split('_').next() {
        Some("combine") => [(1, 0), (5, 0)],
        Some("gate") => [(8, 0), (9, 0)],
        _ if kernel.starts_with("copy_boxes") => [(0, 0), (0, 8)],
        _ => [(1, 0), (2, 0)],
    }
}

impl Case {
    /// The launch with another address of the input (0) or the output (1).
    fn moved(&self, which: usize, to: impl FnOnce(u64) -> u64) -> Self {
        let (param, at) = places(&self.kernel)[which];
        let mut case = self.clone();
        let address = to(case.args.address(param, at));
        case.args.overwrite(param, at, &address.to_le_bytes());
        case
    }
}

#[test]
fn launches_with_a_bug_are_left_to_the_interpreter() {
    for (case, kernels) in cases() {
        let declined = |what: &str, case: Case, finding: Finding| {
            let name = format!("{} {}, {what}", case.kernel, case.name);
            let (_, ran) = interpreted(&case, &kernels.module);
            assert_eq!(ran.map_err(|report| report.finding), Err(finding), "{name}");
            assert!(natively(&case, &kernels.module).is_none(), "{name}");
        };
        declined(
            "x nowhere",
            case.moved(0, |x| x + (1 << 30)),
            Finding::OutOfBounds,
        );
        declined(
            "out nowhere",
            case.moved(1, |out| out + (1 << 30)),
            Finding::OutOfBounds,
        );
        let mut unwritten = case.clone();
        let empty = unwritten.memory.0.allocate(1 << 16);
        declined(
            "x never written",
            unwritten.moved(0, |_| empty),
            Finding::NeverWritten,
        );
        if !matches!(case.kernel.as_str(), "copy_1") {
            declined("x misplaced", case.moved(0, |x| x + 1), Finding::Misaligned);
            declined(
                "out misplaced",
                case.moved(1, |out| out + 1),
                Finding::Misaligned,
            );
        }
        let mut large = case.clone();
        large.block = [2048, 1, 1];
        declined("a large block", large, Finding::Launch);
        if !case.kernel.starts_with("copy_boxes") && case.grid[0] * case.block[0] > 32 {
            // All rows of the output lie in one place.
            let mut folded = case.clone();
            let outs = if places(&case.kernel)[1].0 == 2 { 1 } else { 2 };
            folded.args.overwrite(0, 40 * (outs + 1), &[0; 40]);
            if natively(&folded, &kernels.module).is_some() {
                assert!(runs_as_interpreted(&folded, &kernels.module), "one row");
            } else {
                declined("rows in one place", folded, Finding::Race);
            }
        }
    }
}

#[test]
fn a_launch_that_leaves_rows_out_does_so_natively() {
    for (mut case, kernels) in cases().into_iter().filter(|(case, _)| case.grid[0] > 1) {
        case.grid[0] -= 1;
        assert!(
            runs_as_interpreted(&case, &kernels.module),
            "{}",
            case.kernel
        );
        case.grid[0] += 2;
        assert!(
            runs_as_interpreted(&case, &kernels.module),
            "{}",
            case.kernel
        );
    }
}

#[test]
fn nan_is_left_to_the_interpreter() {
    let (mut case, kernels) = cases().swap_remove(0);
    let (param, at) = places(&case.kernel)[0];
    let x = case.args.address(param, at);
    let nan = f32::NAN.to_le_bytes();
    assert_eq!(case.memory.0.write(x, &nan), Ok(()));
    assert!(natively(&case, &kernels.module).is_none());
    assert_eq!(interpreted(&case, &kernels.module).1, Ok(()));
}
