//! MPI in this process: a feature of the build.

use xdit_comm::processes::{Peers, Transport};
use xdit_kernels::Device;

#[cfg(feature = "mpi")]
use xdit_comm::processes::mpi::{Mpi, MpiOptions};

use crate::launch::place::JobPlace;
use crate::report::failure::Failure;

/// MPI from its start to its end, where a launcher of MPI has started this process.
#[derive(Debug)]
pub(super) struct OwnMpi {
    #[cfg(feature = "mpi")]
    mpi: Mpi,
    /// Without the feature there is none.
    #[cfg(not(feature = "mpi"))]
    never: std::convert::Infallible,
}

impl OwnMpi {
    /// Initialises MPI if it is built in and its launcher has started this process.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the launcher is that of another MPI, or MPI cannot be initialised.
    #[cfg(feature = "mpi")]
    pub(super) fn init(place: &JobPlace) -> Result<Option<Self>, Failure> {
        if !place.by_mpi {
            return Ok(None);
        }
        let version = Mpi::version();
        let mpi = Mpi::init(MpiOptions::default())
            .map_err(|error| Failure::usage(format!("{version}: {error}")))?;
        let (rank, size) = (mpi.rank(), mpi.world_size());
        if (rank, size) != (place.rank, place.world_size) {
            return Err(Failure::usage(format!(
                "this xdit-cli was built with {version}, to which this is rank {rank} of {size}, and {} has started rank {} of {}: \
                 use the mpirun of that MPI, or build xdit-cli with this one",
                place.launcher, place.rank, place.world_size
            )));
        }
        tracing::info!("{version}");
        Ok(Some(Self { mpi }))
    }

    /// Without the feature there is no MPI.
    #[cfg(not(feature = "mpi"))]
    #[allow(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
    pub(super) fn init(_: &JobPlace) -> Result<Option<Self>, Failure> {
        Ok(None)
    }

    /// Makes the transport of the whole world.
    ///
    /// # Collective
    /// Every rank calls it.
    ///
    /// # Errors
    /// If MPI fails.
    #[cfg(feature = "mpi")]
    pub(super) fn transport(
        &self,
        peers: &Peers,
        device: &Device,
    ) -> xdit_comm::Result<Box<dyn Transport>> {
        self.mpi.transport(peers.rank(), peers.all().len(), device)
    }

    #[cfg(not(feature = "mpi"))]
    pub(super) fn transport(&self, _: &Peers, _: &Device) -> xdit_comm::Result<Box<dyn Transport>> {
        match self.never {}
    }

    /// Finalises MPI with all ranks, none of which has failed. Without it, launchers call the job failed.
    #[cfg(feature = "mpi")]
    pub(super) fn finalise(self) {
        if let Err(error) = self.mpi.finalise() {
            tracing::warn!("{error}");
        }
    }

    #[cfg(not(feature = "mpi"))]
    pub(super) fn finalise(self) {
        match self.never {}
    }
}
