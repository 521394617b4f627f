//! The ranks of a pipeline: their number, their backend, and their options.

mod on_rank_loss;
mod pipefusion;
mod remote;
pub(crate) mod run;
mod survivors;

use std::time::Duration;

use crate::ranks::attended::attended;
use crate::ranks::axes;
use crate::ranks::degrees::Degrees;
use xdit_comm::{DEADLINE, Group};
use xdit_kernels::Device;
use xdit_pipefusion::Placement;

use crate::error::{Error, Result};
use crate::quote::{self, counted};

pub use on_rank_loss::OnRankLoss;
pub use pipefusion::{PipeFusion, StageSplit};

/// The largest number of ranks in one process. More are probably a mistake.
const MOST_RANKS: usize = 1024;

/// Degrees and a backend: how a pipeline distributes its work over ranks.
///
/// # Examples
/// ```
/// use xdit_models::Degrees;
/// use xdit_models::Parallel;
/// let parallel = Parallel::threads(Degrees { ulysses: 2, ring: 2, ..Degrees::default() });
/// assert_eq!(parallel.degrees.product(), Some(4));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Parallel {
    /// The number of ranks on each axis of the mesh. `data` replicas divide the images, `cfg` ranks the branches of guidance,
    /// `pipe` stages the blocks, and `ring` × `ulysses` ranks the tokens.
    pub degrees: Degrees,
    /// The kind of ranks.
    pub backend: RankBackend,
    /// The options of stages and patches. They have an effect with several stages or several patches.
    pub pipefusion: PipeFusion,
    /// Whether the ranks of a replica decode each image together in bands of rows. Otherwise its first rank decodes alone.
    pub vae: bool,
    /// What happens when a rank is lost. A group cannot replan by itself: its other ranks continue by [`Pipeline::run_from`].
    ///
    /// [`Pipeline::run_from`]: crate::Pipeline::run_from
    pub on_rank_loss: OnRankLoss,
    /// The devices of ranks that are threads, if they are not all on that of the pipeline.
    devices: Vec<Device>,
    /// Whether a single rank also runs on its own thread, with a deadline. True for one of several replicas, because others
    /// would wait for it.
    watched: bool,
}

/// The kind of ranks.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RankBackend {
    /// Threads of this process. The first call starts them, and they stay until the pipeline is dropped. They share one copy of
    /// the weights and divide the compute threads of the pipeline (at least one each).
    Threads {
        /// A rank that finishes no operation for longer than this ends the run with [`Error::Rank`]. Each kernel call counts as
        /// an operation; large calls run in pieces of about 4·10⁹ FLOPs per thread, each of which counts. Time in which the
        /// process is stopped or the observer runs does not count. A thread that never returns is left behind
        /// ([`xdit_comm::threads`]).
        deadline: Duration,
    },
    /// This process is one rank of a group that the caller created. Every rank of the group makes the same calls. The first rank of
    /// the first replica gets the images and latents of all replicas, the first rank of each other replica those of its own, and
    /// each other rank the latents of its replica. All ranks get what each rank has measured. The first rank of a replica also
    /// encodes the prompts for the others. A process that fails reports it to the group, which then makes no more calls.
    Group(Group),
}

impl Default for Parallel {
    /// One rank.
    fn default() -> Self {
        Self::threads(Degrees::default())
    }
}

impl Parallel {
    /// Creates ranks that are threads of this process.
    #[must_use]
    pub fn threads(degrees: Degrees) -> Self {
        Self {
            degrees,
            backend: RankBackend::Threads { deadline: DEADLINE },
            pipefusion: PipeFusion::default(),
            vae: true,
            on_rank_loss: OnRankLoss::Fail,
            devices: Vec::new(),
            watched: false,
        }
    }

    /// Creates ranks that a group connects. This process is one of them.
    #[must_use]
    pub fn group(degrees: Degrees, group: Group) -> Self {
        Self {
            degrees,
            backend: RankBackend::Group(group),
            pipefusion: PipeFusion::default(),
            vae: true,
            on_rank_loss: OnRankLoss::Fail,
            devices: Vec::new(),
            watched: false,
        }
    }

    /// Sets the deadline: how long a rank may go without finishing an operation. It applies to ranks that are threads.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        if let RankBackend::Threads { deadline } = &mut self.backend {
            *deadline = limit;
        }
        self
    }

    /// Sets the options of stages and patches.
    #[must_use]
    pub fn pipefusion(mut self, pipefusion: PipeFusion) -> Self {
        self.pipefusion = pipefusion;
        self
    }

    /// Sets whether the ranks of a replica decode images together in bands of rows.
    #[must_use]
    pub fn vae(mut self, parallel: bool) -> Self {
        self.vae = parallel;
        self
    }

    /// Spreads ranks that are threads over these devices: ranks whose numbers are near are on one device. Each device gets the
    /// weights that its ranks read, once. The first device is that of the pipeline ([`LoadOptions::device`]), which also encodes
    /// prompts and gets the images; a pipeline refuses another one, and GPUs beside the processor. Without devices, all ranks
    /// are on it.
    ///
    /// [`LoadOptions::device`]: crate::LoadOptions::device
    #[must_use]
    pub fn on(mut self, devices: Vec<Device>) -> Self {
        self.devices = devices;
        self
    }

    /// Returns the devices of the ranks if they were spread, and none otherwise.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Returns the device of each rank that is a thread. `own` is that of the pipeline.
    pub(crate) fn device_of_each(&self, own: &Device) -> Vec<Device> {
        let world = self.degrees.product().unwrap_or(1);
        (0..world)
            .map(|rank| match self.devices.len() {
                0 => own.clone(),
                // No overflow: `check` allows few ranks, and no more devices than ranks.
                count => self.devices[rank * count / world].clone(),
            })
            .collect()
    }

    /// Returns whether there is only one rank, on the caller's thread.
    pub(crate) fn is_alone(&self) -> bool {
        self.degrees.product() == Some(1)
            && matches!(self.backend, RankBackend::Threads { .. })
            && !self.watched
            && self.devices.is_empty()
    }

    /// Returns the number of replicas that this process runs at the same time.
    pub(crate) fn replicas_here(&self) -> usize {
        match self.backend {
            RankBackend::Threads { .. } => self.degrees.data,
            RankBackend::Group(_) => 1,
        }
    }

    /// Returns the number of processes of the ranks.
    pub(crate) fn processes(&self) -> usize {
        match &self.backend {
            RankBackend::Threads { .. } => 1,
            RankBackend::Group(group) => group.world_size(),
        }
    }

    /// Returns the stage of this process, if it is one rank of a pipeline.
    pub(crate) fn stage_here(&self) -> Option<usize> {
        match &self.backend {
            RankBackend::Threads { .. } => None,
            RankBackend::Group(group) => Some(self.degrees.coord(group.rank(), axes::PIPE)),
        }
    }

    /// Runs long work of this process, such as reading weights. The other ranks of its group, if it is in one, may wait for it
    /// ([`attended`]).
    pub(crate) fn attended<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        match &self.backend {
            RankBackend::Threads { .. } => Ok(work()),
            RankBackend::Group(group) => attended(group, work),
        }
    }

    /// Reports an error of this process to the other ranks of its group, if it is in one. They may wait for it.
    pub(crate) fn tell_group(&self, error: &Error) {
        if let RankBackend::Group(group) = &self.backend
            && !error.is_of_another_rank()
        {
            group.control().fail(&error.to_string());
        }
    }

    /// Returns whether this process encodes prompts. `placement` is that of the stages. In a group, the first rank of each replica
    /// does it for the others.
    pub(crate) fn encodes_here(&self, placement: Placement) -> bool {
        let RankBackend::Group(group) = &self.backend else {
            return true;
        };
        self.degrees.place_in_replica(group.rank(), placement) == 0
    }

    /// Returns the ranks of one replica. If there are several replicas, each has a deadline.
    pub(crate) fn one_replica(&self, replica: usize) -> Self {
        let mut one = self.clone();
        one.degrees.data = 1;
        one.watched |= self.degrees.data > 1;
        if let Some(first) = self.devices.first() {
            let all = self.device_of_each(first).into_iter().enumerate();
            let own = all.filter(|(rank, _)| self.degrees.coord(*rank, axes::DATA) == replica);
            one.devices = own.map(|(_, device)| device).collect();
        }
        one
    }

    /// Returns whether several ranks decode each image together.
    pub(crate) fn shares_decode(&self) -> bool {
        self.vae && self.degrees.ranks_of_replica() > 1
    }

    /// Like [`check`](Self::check), for a pipeline on this device, which must be that of a group, and the first of several.
    pub(crate) fn check_on(&self, own: &Device) -> Result<()> {
        self.check()?;
        let refused =
            |given: String, allowed: String| Err(Error::invalid("device", given, allowed));
        if let RankBackend::Group(group) = &self.backend
            && let Some(device) = group.device().filter(|device| *device != own)
        {
            let allowed = format!("{own}, the device of the pipeline, for this rank of the group");
            return refused(device.to_string(), allowed);
        }
        match self.devices.first() {
            Some(first) if first != own => {
                let given = quote::joined(&self.devices, ", ");
                refused(given, format!("{own}, the device of the pipeline, first"))
            }
            _ => Ok(()),
        }
    }

    /// Checks that a pipeline can use these ranks. [`Pipeline::parallel`](crate::Pipeline::parallel) calls it too.
    ///
    /// # Errors
    /// [`Error::Comm`] for degrees that form no world, [`Error::InvalidRequest`] for an invalid limit of drift, and over a group for
    /// devices and [`OnRankLoss::Replan`].
    pub fn check(&self) -> Result<()> {
        let degrees = self.degrees;
        let world = match &self.backend {
            RankBackend::Threads { .. } => degrees.product().unwrap_or(usize::MAX).max(1),
            RankBackend::Group(group) => group.world_size(),
        };
        if world > MOST_RANKS && matches!(self.backend, RankBackend::Threads { .. }) {
            return Err(Error::Comm(xdit_comm::Error::Degrees(format!(
                "{degrees}: at most {MOST_RANKS} ranks in one process"
            ))));
        }
        degrees.check(world)?;
        if self.on_rank_loss != OnRankLoss::Fail && matches!(self.backend, RankBackend::Group(_)) {
            let allowed = "fail over a group, whose other ranks continue by `Pipeline::run_from` in a group of their own";
            return Err(Error::invalid("on_rank_loss", "replan", allowed));
        }
        if !self.devices.is_empty() && matches!(self.backend, RankBackend::Group(_)) {
            let given = quote::joined(&self.devices, ", ");
            let allowed = "none over a group: each process has its own";
            return Err(Error::invalid("device", given, allowed));
        }
        // The memory of the processor and that of a GPU are counted apart.
        let cpus = self.devices.iter().filter(|device| device.is_cpu()).count();
        if 0 < cpus && cpus < self.devices.len() {
            let given = quote::joined(&self.devices, ", ");
            let allowed = "the processor alone, or GPUs alone";
            return Err(Error::invalid("device", given, allowed));
        }
        if self.devices.len() > world {
            let given = quote::joined(&self.devices, ", ");
            let allowed = format!("at most {}: each needs a rank", counted(world, "device"));
            return Err(Error::invalid("device", given, allowed));
        }
        match self.pipefusion.max_drift {
            Some(drift) if !(drift.is_finite() && drift >= 0.0) => {
                let allowed = "a finite number from 0 up";
                Err(Error::invalid("max_drift", drift, allowed))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_by_two() -> Parallel {
        Parallel::threads(Degrees {
            ring: 2,
            ulysses: 2,
            ..Degrees::default()
        })
        .deadline(Duration::from_secs(5))
    }

    #[test]
    fn plans_that_cannot_be_are_refused() {
        let plan = |degrees| Parallel::threads(degrees).check().unwrap_err().to_string();
        let none = plan(Degrees {
            ulysses: 0,
            ..Degrees::default()
        });
        assert!(
            none.contains("ulysses 0") && none.contains("nearest"),
            "{none}"
        );
        let many = plan(Degrees {
            ring: usize::MAX,
            ulysses: 2,
            ..Degrees::default()
        });
        assert!(many.contains("at most 1024"), "{many}");
        let cfg = plan(Degrees {
            cfg: 3,
            ..Degrees::default()
        });
        assert!(cfg.contains("cfg at most 2"), "{cfg}");
        let drift = two_by_two().pipefusion(PipeFusion::default().max_drift(f32::NAN));
        assert!(drift.check().unwrap_err().to_string().contains("max_drift"));
        assert!(two_by_two().check().is_ok());
    }

    #[test]
    fn a_group_of_another_device_is_refused() {
        use xdit_comm::threads::{Caller, Options, Ranks};
        use xdit_kernels::Tier;
        let portable = Device::cpu_with(Tier::Portable).unwrap();
        let others = Tier::available().filter(|tier| *tier != Tier::Portable);
        for other in others.map(|tier| Device::cpu_with(tier).unwrap()) {
            let mut ranks = Ranks::<()>::on(vec![portable.clone()], Options::default());
            let (own, pipeline) = (portable.clone(), other.clone());
            let checked = move |group: &Group, (): &mut (), _: Caller<()>| {
                let parallel = Parallel::group(Degrees::default(), group.clone());
                let check = |device| parallel.check_on(device).map_err(|e| e.to_string());
                Ok((check(&own), check(&pipeline)))
            };
            let mut done = ranks.call(checked, |()| {});
            let (right, wrong) = done.remove(0).unwrap();
            assert_eq!(right, Ok(()));
            let told = format!(
                "`device` = {portable}: must be {other}, the device of the pipeline, for this rank of the group"
            );
            assert_eq!(wrong, Err(told));
        }
    }
}
