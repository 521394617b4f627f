//! `xdit-cli launch`: the same program several times, as ranks, on this host or on others through ssh.
//!
//! `layout` says which ranks there are and where, `start` starts their processes, `supervise` waits for them, a `crew`. What happens to the
//! others when one has ended is decided in `policy`; where they go on without it, `rounds` says when and which. The other end of the
//! pipes of each process is `run::control`.

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
