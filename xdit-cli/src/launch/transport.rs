//! What moves the tensors of processes: chosen once, by where they are and where they compute.

use std::fmt;

use xdit_comm::processes::{Transfer, Transport};
use xdit_comm::{Call, Error, Result};

/// What moves tensors between the processes of a job.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TransportKind {
    /// Unix sockets, on one host.
    Sockets,
    /// MPI.
    Mpi,
    /// NCCL, between GPUs.
    Nccl,
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sockets => "Unix sockets, because all ranks are on one host",
            Self::Mpi => "MPI, which has started the ranks",
            Self::Nccl => "NCCL, because the ranks compute on GPUs",
        })
    }
}

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransportNeeds {
    /// Whether ranks compute on GPUs.
    pub on_gpus: bool,
    /// Whether all ranks are on one host.
    pub is_one_host: bool,
    /// Whether MPI has been initialised in this process.
    pub has_mpi: bool,
    /// Whether an MPI launcher has started this process.
    pub by_mpi: bool,
}

/// Chooses the transport, or says in one line what is missing.
pub(super) fn choose(needs: TransportNeeds) -> Result<TransportKind, String> {
    if needs.on_gpus {
        return Ok(TransportKind::Nccl);
    }
    match (needs.has_mpi, needs.is_one_host, needs.by_mpi) {
        (true, ..) => Ok(TransportKind::Mpi),
        (false, true, _) => Ok(TransportKind::Sockets),
        (false, false, true) => Err(
            "ranks on processors of several hosts need MPI, which this xdit-cli was built without: cargo install --path xdit-cli --features mpi, or start all ranks on one host".into(),
        ),
        (false, false, false) => Err(
            "ranks on processors of several hosts need MPI, and no launcher of MPI has started them: start them by mpirun, or all on one host".into(),
        ),
    }
}

/// The transport of ranks that have agreed that they cannot go on. They leave as after a run, so that no rank hears of a failure of
/// another one before it knows what they have agreed on.
#[derive(Debug)]
pub(super) struct NoTransport;

impl Transport for NoTransport {
    fn receives_ahead(&self) -> bool {
        true
    }

    fn start(&self, _: Vec<Call>) -> Result<Box<dyn Transfer>> {
        Err(Error::other("the ranks cannot go on"))
    }

    fn subgroup(&self, _: usize, _: &[usize]) -> Result<Box<dyn Transport>> {
        Err(Error::other("the ranks cannot go on"))
    }

    fn abort(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_has_a_transport_or_a_reason() {
        let chosen = |on_gpus, is_one_host, has_mpi, by_mpi| {
            choose(TransportNeeds {
                on_gpus,
                is_one_host,
                has_mpi,
                by_mpi,
            })
        };
        assert_eq!(
            chosen(false, true, false, false),
            Ok(TransportKind::Sockets)
        );
        assert_eq!(chosen(false, true, false, true), Ok(TransportKind::Sockets));
        assert_eq!(chosen(false, true, true, true), Ok(TransportKind::Mpi));
        assert_eq!(chosen(false, false, true, true), Ok(TransportKind::Mpi));
        assert_eq!(chosen(true, true, false, false), Ok(TransportKind::Nccl));
        assert_eq!(chosen(true, false, true, true), Ok(TransportKind::Nccl));
        for (case, way_out) in [
            (chosen(false, false, false, true), "one host"),
            (chosen(false, false, false, false), "launcher of MPI"),
        ] {
            let reason = case.unwrap_err();
            assert!(
                reason.contains(way_out) && !reason.contains('\n'),
                "{reason}"
            );
        }
    }
}
