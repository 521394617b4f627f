//! What each process of a job reports at the end of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::launch::RankWorld;
use crate::report::failure::Failure;
use crate::run::compute::Compute;
use crate::run::memory;

/// The report of one process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ProcessReport {
    /// Its number among the processes, as its launcher counts them.
    pub rank: usize,
    /// Its host.
    pub host: String,
    /// Its rank on the mesh, by which `ranks` counts.
    pub mesh_rank: usize,
    /// Its device.
    pub device: String,
    /// Its compute threads.
    pub threads: usize,
    /// The peak of its memory.
    pub peak_memory_bytes: Option<u64>,
    /// The peak of its memory on GPUs.
    pub peak_device_memory_bytes: BTreeMap<String, u64>,
}

impl ProcessReport {
    /// Returns the reports of all processes, by their numbers.
    ///
    /// # Collective
    /// Every rank calls it.
    ///
    /// # Errors
    /// If another rank has failed.
    pub(crate) fn gather(world: &RankWorld, compute: &Compute) -> Result<Vec<Self>, Failure> {
        let rank = world.rank();
        // The processes are those of the launcher; without a lost one, the others count anew.
        let mesh_rank = compute
            .processes
            .iter()
            .position(|process| *process == rank);
        world.gather(&Self {
            rank: world.numbers()[rank],
            host: world.hosts()[rank].clone(),
            mesh_rank: mesh_rank.unwrap_or(rank),
            device: compute.device.names(),
            threads: compute.threads,
            peak_memory_bytes: memory::peak_bytes(),
            peak_device_memory_bytes: compute.device_peaks(),
        })
    }
}
