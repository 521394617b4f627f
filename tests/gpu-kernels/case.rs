//! A launch of the committed PTX, and the comparison with the processor's result.
//!
//! A test builds a [`Case`]: a launch with its memory and what the processor computed. [`Case::check`] runs it under every
//! schedule; [`assert_found`] expects a seeded bug to be found under one.

use crate::{
    seed::Bug,
    support::{Args, Memory, Strided, bytes, numbers},
};
use ptx_interp::{
    Completion, DeviceMemory, Entry, FlatMemory, Launch, Module, Options, Report, WarpOrder, launch,
};
use xdit_kernels::{DType, Tensor};

/// What the processor computed, and where the kernel stores it.
#[derive(Clone)]
struct Expected {
    at: u64,
    /// As the output lies.
    strides: Vec<usize>,
    value: Tensor,
    tolerance: f32,
}

/// Sums in f64, in parts.
#[derive(Clone)]
struct ExpectedSums {
    at: u64,
    parts: usize,
    of: Vec<f64>,
    tolerance: f64,
}

impl ExpectedSums {
    fn compare(&self, memory: &mut FlatMemory) -> Result<(), String> {
        for (number, wanted) in self.of.iter().enumerate() {
            let at = self.at + (8 * number * self.parts) as u64;
            let stored = memory.bytes(at, 8 * self.parts);
            let stored = stored.map_err(|fault| format!("number {number}: {}", fault.message))?;
            let (parts, _) = stored.as_chunks();
            let got: f64 = parts.iter().map(|b| f64::from_le_bytes(*b)).sum();
            let near = (got - wanted).abs() <= self.tolerance * wanted.abs();
            if !near {
                return Err(format!("number {number} is {got}, not {wanted}"));
            }
        }
        Ok(())
    }
}

/// A launch, its memory and what must come out.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) kernel: String,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) args: Args,
    pub(crate) memory: Memory,
    expected: Vec<Expected>,
    sums: Vec<ExpectedSums>,
    bytes: Vec<(u64, Vec<u8>)>,
}

impl Case {
    pub(crate) fn new(kernel: impl Into<String>, memory: Memory, args: Args) -> Self {
        Self {
            name: String::new(),
            kernel: kernel.into(),
            grid: [1; 3],
            block: [32, 1, 1],
            args,
            memory,
            expected: Vec::new(),
            sums: Vec::new(),
            bytes: Vec::new(),
        }
    }

    pub(crate) fn grid(self, grid: [u32; 3], block: [u32; 3]) -> Self {
        Self {
            grid,
            block,
            ..self
        }
    }

    pub(crate) fn named(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// The kernel stores `value` at `at`, which lies like `out`. Each number differs by `tolerance` times the greatest one at most; a
    /// few of 16 bits, for which that decides how they are rounded, may be neighbours instead.
    pub(crate) fn expect(mut self, at: u64, out: &Strided, value: Tensor, tolerance: f32) -> Self {
        assert_eq!(value.shape(), out.view().shape());
        self.expected.push(Expected {
            at,
            strides: out.strides(),
            value,
            tolerance,
        });
        self
    }

    /// The kernel stores f64 at `at`: for each number as many as there are `parts`, which add up to it, but for `tolerance` times it.
    pub(crate) fn expect_sums(mut self, at: u64, parts: usize, of: &[f64], tolerance: f64) -> Self {
        self.sums.push(ExpectedSums {
            at,
            parts,
            of: of.to_vec(),
            tolerance,
        });
        self
    }

    /// The kernel stores these bytes.
    pub(crate) fn expect_bytes(mut self, at: u64, bytes: &[u8]) -> Self {
        self.bytes.push((at, bytes.to_vec()));
        self
    }

    /// Runs the launch with the kernel of this text. `Err` says what is wrong: a report, or a result.
    pub(crate) fn run(&self, kernels: &Kernels, options: &Options) -> Result<(), String> {
        let mut memory = self.memory.0.clone();
        self.launch(&kernels.module, options, &mut memory)
            .map_err(|report| report.to_string())?;
        for expected in &self.expected {
            expected.compare(&mut memory)?;
        }
        for expected in &self.sums {
            expected.compare(&mut memory)?;
        }
        for (at, wanted) in &self.bytes {
            let got = memory.bytes(*at, wanted.len());
            let got = got.map_err(|fault| fault.message)?;
            if got != *wanted {
                return Err(format!("the bytes {got:?}, not {wanted:?}"));
            }
        }
        Ok(())
    }

    fn launch(
        &self,
        module: &Module,
        options: &Options,
        memory: &mut FlatMemory,
    ) -> Result<(), Report> {
        let variables = memory.put_variables(module);
        self.launched(module, &variables, |entry, call| {
            launch(entry, call, memory, options).map(drop)
        })
    }

    /// Calls `run` with the kernel and the launch.
    pub(crate) fn launched<R>(
        &self,
        module: &Module,
        variables: &[u64],
        run: impl FnOnce(&Entry, &Launch<'_>) -> R,
    ) -> R {
        let entry = module.entry(&self.kernel);
        let entry = entry.unwrap_or_else(|| panic!("no kernel {}", self.kernel));
        let params = self.args.bytes(entry);
        let call = Launch {
            grid: self.grid,
            block: self.block,
            shared_bytes: 0,
            params: &params,
            variables,
        };
        run(entry, &call)
    }

    /// Runs it under every schedule.
    pub(crate) fn check(&self, kernels: &Kernels) {
        self.check_under(kernels, &kernels.schedules());
    }

    pub(crate) fn check_under(&self, kernels: &Kernels, schedules: &[Options]) {
        for options in schedules {
            if let Err(what) = self.run(kernels, options) {
                panic!("{} {} under {options:?}: {what}", self.kernel, self.name);
            }
        }
    }
}

impl Expected {
    fn compare(&self, memory: &mut FlatMemory) -> Result<(), String> {
        let dtype = self.value.dtype();
        let wanted = numbers(&bytes(&self.value), dtype);
        let finite = wanted.iter().filter(|x| x.is_finite());
        let greatest = finite.fold(0f64, |most, x| most.max(x.abs()));
        let mut offsets = vec![0];
        for (&n, &stride) in self.value.shape().iter().zip(&self.strides) {
            let inner = |at| (0..n).map(move |i| at + i * stride);
            offsets = offsets.into_iter().flat_map(inner).collect();
        }
        let mut neighbours = 0;
        for (index, (offset, wanted)) in offsets.iter().zip(&wanted).enumerate() {
            let mut raw = vec![0; dtype.size()];
            let at = self.at + (offset * dtype.size()) as u64;
            memory
                .read(at, &mut raw)
                .map_err(|fault| format!("element {index}: {}", fault.message))?;
            let got = numbers(&raw, dtype)[0];
            // The distance to the neighbour in the dtype.
            let step = match dtype {
                DType::BF16 => wanted.abs() / 128.0,
                DType::F16 => (wanted.abs() / 1024.0).max(6e-8),
                _ => 0.0,
            };
            let far = f64::from(self.tolerance) * greatest;
            if got == *wanted || (got.is_nan() && wanted.is_nan()) || (got - wanted).abs() <= far {
                continue;
            }
            neighbours += 1;
            if !((got - wanted).abs() <= step && neighbours <= 1 + self.value.view().numel() / 32) {
                return Err(format!(
                    "element {index} of {:?} is {got}, not {wanted}",
                    self.value.shape()
                ));
            }
        }
        Ok(())
    }
}

/// A committed PTX text, loaded.
pub(crate) struct Kernels {
    pub(crate) module: Module,
    has_copies: bool,
}

/// Loads a text.
pub(crate) fn module(text: &str) -> Kernels {
    Kernels {
        module: Module::parse(text).unwrap_or_else(|e| panic!("{e}")),
        has_copies: text.contains("cp.async"),
    }
}

impl Kernels {
    /// Every order of warps; and with asynchronous copies, which complete early and late.
    pub(crate) fn schedules(&self) -> Vec<Options> {
        let orders = [
            WarpOrder::RoundRobin,
            WarpOrder::Greedy,
            WarpOrder::Random(1),
        ];
        let base = Options {
            budget: 20_000_000,
            ..Options::default()
        };
        let completions: &[Completion] = match self.has_copies {
            true => &[Completion::Early, Completion::Late],
            false => &[Completion::Early],
        };
        let of_order = |order: WarpOrder| {
            let base = base.with_order(order);
            completions
                .iter()
                .map(move |completion| base.with_completion(*completion))
        };
        orders.into_iter().flat_map(of_order).collect()
    }
}

/// Expects the seeded bug, `to` in place of each `from` in the kernel of the case, to be found under one schedule.
pub(crate) fn assert_found(text: &str, case: &Case, from: &str, to: &str) {
    let bug = Bug {
        kernel: &case.kernel,
        from,
        place: None,
        to,
    };
    bug.assert_found(text, |kernels, options| case.run(kernels, options));
}
