//! `xdit-cli launch`: the same program several times, as ranks, on this host or on others through ssh.
//!
//! `layout` says which ranks there are and where, `start` starts their processes, `supervise` waits for them. What happens to the
//! others when one has ended is decided in `policy`. The other end of the pipe that each process watches is `run::control`.

#[cfg(unix)]
mod channel;
pub(crate) mod layout;
#[cfg(unix)]
mod policy;
#[cfg(unix)]
pub(crate) mod port;
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
