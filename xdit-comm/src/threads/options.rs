//! How ranks are run as threads.

use crate::DEADLINE;
use std::time::Duration;

/// How ranks are run as threads.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A rank that finishes nothing for longer than this is lost: no call, and no operation of its own that it tells of by
    /// [`Group::progress`](crate::Group::progress). Time in which it waits for others does not count.
    pub deadline: Duration,
    /// How long after a failure the caller waits for ranks that can still return.
    pub grace: Duration,
}

impl Options {
    /// The default grace with this deadline.
    pub fn deadline(deadline: Duration) -> Self {
        Self {
            deadline,
            ..Self::default()
        }
    }
}

impl Default for Options {
    /// [`DEADLINE`], and a grace of two seconds.
    fn default() -> Self {
        Self {
            deadline: DEADLINE,
            grace: Duration::from_secs(2),
        }
    }
}
