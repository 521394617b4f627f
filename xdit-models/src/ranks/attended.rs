//! Long work of a process on which the other ranks of its group wait: reading weights, encoding prompts.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use xdit_comm::Group;

use crate::error::Result;
use crate::pipeline::memory_limit::refused_thread;

/// How often a process that is busy reports to its group.
const BEAT: Duration = Duration::from_millis(50);

/// Runs `work`, and reports to the group meanwhile that this rank makes progress. The others decide how long they wait. A rank does
/// nothing else in the group at this time.
///
/// # Errors
/// If the system gives no thread.
pub(crate) fn attended<T>(group: &Group, work: impl FnOnce() -> T) -> Result<T> {
    let (done, over) = channel::<()>();
    std::thread::scope(|scope| {
        let report = move || {
            while let Err(RecvTimeoutError::Timeout) = over.recv_timeout(BEAT) {
                // The work itself meets a failure of another rank when it is done.
                group.progress().ok();
            }
        };
        let reporter = std::thread::Builder::new().name("busy".into());
        let started = reporter.spawn_scoped(scope, report);
        started.map_err(|error| refused_thread("the progress of a rank", &error))?;
        let made = work();
        drop(done);
        Ok(made)
    })
}
