//! `xdit-cli launch`: the same program several times, as ranks, on this host or on others through ssh.
//!
//! `layout` says which ranks there are and where, `start` starts their processes, and `supervise` waits for what happens to them. `crew`
//! decides what that means for the others: `policy` says what the end of one is, and `rounds` which of them go on without it, and when.
//! `hearing` and `channel` are this end of the pipes of each process, `run::control` is the other.

#[cfg(unix)]
mod channel;
#[cfg(unix)]
mod crew;
#[cfg(unix)]
mod hearing;
pub(crate) mod layout;
#[cfg(unix)]
mod policy;
#[cfg(unix)]
pub(crate) mod port;
#[cfg(unix)]
mod rounds;
#[cfg(unix)]
mod start;
#[cfg(unix)]
mod supervise;

#[cfg(unix)]
pub(crate) use supervise::run;

/// Refuses.
///
/// # Errors
/// Always.
#[cfg(not(unix))]
pub(crate) fn run(
    _: &layout::LaunchJob,
) -> Result<layout::Outcome, crate::report::failure::Failure> {
    Err(crate::report::failure::Failure::usage(
        "launch needs a Unix system, such as Linux",
    ))
}
