//! How a run computes: dtype, devices, threads, ranks.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use xdit_kernels::DType;
use xdit_models::{OnRankLoss, Parallel, RankBackend, RunPlan};

use crate::args::compute::RunArgs;
use crate::args::device::{ChosenDevice, DeviceSettings, unused_settings};
use crate::args::ranks::{LossPolicy, ParallelArgs};
use crate::launch::{HostShare, ProcessJob, WorldRequest};
use crate::report::failure::Failure;
use crate::run::memory;
use crate::run::session::Session;

/// The options of a computation.
#[derive(Clone, Debug)]
pub(crate) struct Compute {
    /// The dtype of weights and activations.
    pub dtype: DType,
    /// The device, or several.
    pub device: ChosenDevice,
    /// Whether a GPU may round the operands of products in f32 to TF32.
    pub allow_tf32: bool,
    /// Flags about the device that change nothing on it.
    pub unused: Vec<String>,
    /// The number of threads.
    pub threads: usize,
    /// Whether to drop the text encoders before reading the other models.
    pub low_memory: bool,
    /// The ranks, and their devices if there are several.
    pub parallel: Parallel,
    /// Of ranks that are processes, the number of each one's process, by rank of the mesh.
    pub processes: Vec<usize>,
}

impl Compute {
    /// What the flags ask for. If the ranks are processes of `job`, they come together here, to do `what`.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a device that there is not, and what the flags of ranks are refused for; the errors of
    /// [`ProcessJob::join`].
    pub(crate) fn new(
        run: &RunArgs,
        parallel: &ParallelArgs,
        session: &Session,
        (job, what): (&ProcessJob, &Value),
    ) -> Result<Self, Failure> {
        let dtype = run.dtype.into();
        let settings = |share: Option<&HostShare>| DeviceSettings {
            tier: run.threads.cpu_tier,
            allow_tf32: run.allow_tf32,
            local_rank: share.map(|share| share.local_rank),
            environment: &session.environment,
        };
        let open = |share: Option<&HostShare>| run.device.clone().open(settings(share));
        let limit = Duration::from_secs(parallel.rank_timeout);
        let replans = parallel.on_rank_loss == LossPolicy::Replan;
        let mut parallel = parallel.plan()?;
        let request = WorldRequest {
            degrees: parallel.degrees,
            plan: what,
            limit,
            replans,
            environment: &session.environment,
        };
        let joined = job.join(&request, &mut |share| open(Some(share)))?;
        let (device, share) = match joined {
            None => (open(None)?, None),
            Some((world, device)) => {
                parallel.backend = RankBackend::Group(world.group().clone());
                // The caller of the library brings the others together again (`run::survivors`).
                parallel.on_rank_loss = OnRankLoss::Fail;
                (device, Some(world.share()))
            }
        };
        Ok(Self {
            dtype,
            unused: unused_settings(&device.device, dtype, settings(None)),
            parallel: device.spread(parallel),
            device,
            allow_tf32: run.allow_tf32,
            threads: session.threads(&run.threads, share),
            low_memory: run.low_memory,
            processes: Vec::new(),
        })
    }

    /// Brings ranks that are processes into the order of the mesh, now that a plan says where the model ends.
    ///
    /// # Collective
    /// Every rank of the job calls it.
    ///
    /// # Errors
    /// If another rank has failed.
    pub(crate) fn arrange(&mut self, planned: &RunPlan, job: &ProcessJob) -> Result<(), Failure> {
        let Some(world) = job.world() else {
            return Ok(());
        };
        let degrees = self.parallel.degrees;
        let end = planned.placement.end(degrees.pipe);
        let (group, processes) = world.in_mesh_order(degrees, end)?;
        self.parallel.backend = RankBackend::Group(group);
        self.processes = processes;
        Ok(())
    }

    /// Returns the number of compute threads of all ranks.
    pub(crate) fn all_threads(&self) -> usize {
        self.threads * self.processes.len().max(1)
    }

    /// Returns whether a rank that is a process has failed, so that the ranks draw nothing any more.
    pub(crate) fn is_over(&self) -> bool {
        match &self.parallel.backend {
            RankBackend::Group(group) => group.progress().is_err(),
            _ => false,
        }
    }

    /// Logs why the device is this one, if the choice was left to the program.
    pub(crate) fn log_device(&self) {
        if let Some(note) = &self.device.note {
            tracing::info!("{note}");
        }
    }

    /// A failure of this computation. If the program chose a GPU and that failed, it names the flag that chooses the processor.
    pub(crate) fn explained(&self, failure: Failure) -> Failure {
        match self.device.is_automatic_gpu && failure.is_of_device() {
            true => Failure::AutomaticGpu {
                device: self.device.names(),
                source: Box::new(failure),
            },
            false => failure,
        }
    }

    /// Returns the peak memory of each GPU.
    pub(crate) fn device_peaks(&self) -> BTreeMap<String, u64> {
        let peaks = match &self.device.several[..] {
            [] => memory::device_peaks([&self.device.device]),
            several => memory::device_peaks(several),
        };
        peaks.into_iter().collect()
    }
}
