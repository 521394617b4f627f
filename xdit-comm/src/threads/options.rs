//! The options of ranks that are threads.

use crate::DEADLINE;
use std::time::Duration;

/// Options of ranks that are threads.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A rank is lost if it finishes nothing for longer than this: no call, and no operation that it reports with
    /// [`Group::progress`](crate::Group::progress). Time in which it waits for other ranks does not count.
    pub deadline: Duration,
    /// How long the caller waits, after a failure, for ranks that can still return.
    pub grace: Duration,
}

impl Options {
    /// Creates options with this deadline and the default grace.
    pub fn deadline(deadline: Duration) -> Self {
        Self {
            deadline,
            ..Self::default()
        }
    }
}

impl Default for Options {
    /// The deadline [`DEADLINE`] and a grace of two seconds.
    fn default() -> Self {
        Self {
            deadline: DEADLINE,
            grace: Duration::from_secs(2),
        }
    }
}
