//! Settings.

use crate::DEADLINE;
use std::time::Duration;

/// Settings of the [transport](super::transport).
#[derive(Debug, Clone, Copy)]
pub struct NcclOptions {
    /// How long other ranks may take to make a group together.
    pub deadline: Duration,
    /// How long a rank that leaves waits for what it has started: other ranks may still receive it.
    pub grace: Duration,
}

impl NcclOptions {
    /// Why a group is not made when the deadline is over.
    pub(super) fn late(&self) -> String {
        let seconds = self.deadline.as_secs_f64();
        format!("not all ranks take part within {seconds:.1} s")
    }
}

impl Default for NcclOptions {
    /// The deadline [`DEADLINE`] and a grace of ten seconds.
    fn default() -> Self {
        Self {
            deadline: DEADLINE,
            grace: Duration::from_secs(10),
        }
    }
}
