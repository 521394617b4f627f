//! Launches that follow one another in one memory, and bugs at one place of a kernel.

use crate::{
    case::{Case, Kernels},
    seed::Bug,
};
use ptx_interp::{Launch, Options, launch};

/// A launch after others that write what it reads.
#[derive(Clone)]
pub(crate) struct Chain {
    /// Only their kernels, grids and parameters count: their memory is that of the last launch.
    pub(crate) before: Vec<Case>,
    pub(crate) last: Case,
}

impl Chain {
    /// As [`Case::run`].
    fn run(&self, kernels: &Kernels, options: &Options) -> Result<(), String> {
        let mut last = self.last.clone();
        let memory = &mut last.memory.0;
        for case in &self.before {
            let entry = kernels.module.entry(&case.kernel).expect("the kernel");
            let variables = memory.put_variables(&kernels.module);
            let params = case.args.bytes(entry);
            let call = Launch {
                grid: case.grid,
                block: case.block,
                shared_bytes: 0,
                params: &params,
                variables: &variables,
            };
            launch(entry, &call, memory, options).map_err(|report| report.to_string())?;
        }
        last.run(kernels, options)
    }

    /// Runs all launches under every schedule.
    pub(crate) fn check(&self, kernels: &Kernels) {
        for options in kernels.schedules() {
            if let Err(what) = self.run(kernels, &options) {
                panic!("{} under {options:?}: {what}", self.last.name);
            }
        }
    }

    /// Expects a bug to be found under one schedule: in `kernel`, `to` in place of one of the `from`, which are counted from 0.
    pub(crate) fn assert_found(
        &self,
        text: &str,
        kernel: &str,
        (from, place): (&str, usize),
        to: &str,
    ) {
        let bug = Bug {
            kernel,
            from,
            place: Some(place),
            to,
        };
        bug.assert_found(text, |kernels, options| self.run(kernels, options));
    }
}

impl From<Case> for Chain {
    fn from(last: Case) -> Self {
        Self {
            before: Vec::new(),
            last,
        }
    }
}
