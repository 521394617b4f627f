//! The launchers that are known, and what a process knows without them.

use std::fmt;

/// Who has started the processes of a job.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LauncherKind {
    /// `xdit-cli launch`.
    Own,
    /// PyTorch's torchrun.
    Torchrun,
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `mpirun` of MPICH, Intel MPI and others, whose processes learn their place by PMI.
    Pmi,
    /// SLURM's `srun`.
    Slurm,
    /// A group of a Kubernetes LeaderWorkerSet.
    LeaderWorkerSet,
    /// An indexed job of Kubernetes.
    IndexedJob,
    /// Whoever has set RANK and WORLD_SIZE.
    Variables,
}

impl fmt::Display for LauncherKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "xdit-cli launch",
            Self::Torchrun => "torchrun",
            Self::OpenMpi => "mpirun (Open MPI)",
            Self::Pmi => "mpirun (PMI)",
            Self::Slurm => "srun",
            Self::LeaderWorkerSet => "LeaderWorkerSet",
            Self::IndexedJob => "an indexed job of Kubernetes",
            Self::Variables => "RANK and WORLD_SIZE",
        })
    }
}

/// What this process knows of its host without asking a launcher.
#[derive(Clone, Debug)]
pub(crate) struct OwnHost {
    /// The name of the host.
    pub name: String,
    /// The number of the process that has started this one.
    pub parent: u32,
}
