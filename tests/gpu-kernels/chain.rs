//! Launches that follow one another in one memory, and bugs at one place of a kernel.

use crate::case::{Case, module, schedules};
use ptx_interp::{Launch, Module, Options, launch};

/// A launch after others that write what it reads.
#[derive(Clone)]
pub(crate) struct Chain {
    /// Only their kernels, grids and parameters count: their memory is that of the last launch.
    pub(crate) before: Vec<Case>,
    pub(crate) last: Case,
}

impl Chain {
    /// As [`Case::run`].
    fn run(&self, module: &Module, options: &Options) -> Result<(), String> {
        let mut last = self.last.clone();
        let memory = &mut last.memory.0;
        for case in &self.before {
            let entry = module.entry(&case.kernel).expect("the kernel");
            let variables = memory.put_variables(module);
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
        last.run(module, options)
    }

    /// Runs all launches under every schedule.
    pub(crate) fn check(&self, module: &Module) {
        for options in schedules() {
            if let Err(what) = self.run(module, &options) {
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
        let start = text.find(&format!(".entry {kernel}("));
        let start = start.expect("the kernel");
        let end = text[start..].find("\n}").map_or(text.len(), |n| start + n);
        let at = text[start..end].match_indices(from).nth(place);
        let (at, _) = at.unwrap_or_else(|| panic!("{kernel} has no {from} number {place}"));
        let (before, rest) = text.split_at(start + at);
        let module = module(&format!("{before}{to}{}", &rest[from.len()..]));
        let mut schedules = schedules().into_iter();
        let found = schedules.any(|options| self.run(&module, &options).is_err());
        assert!(
            found,
            "nobody noticed {to} for {from} number {place} in {kernel}"
        );
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
