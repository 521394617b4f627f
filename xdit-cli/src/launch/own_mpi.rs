//! MPI in this process: a feature of the build.

use xdit_comm::processes::{Peers, Transport};
use xdit_kernels::Device;

#[cfg(feature = "mpi")]
use {
    crate::launcher::port::ReservedPort,
    std::fmt,
    xdit_comm::processes::mpi::{Mpi, MpiOptions},
};

use crate::launch::place::JobPlace;
use crate::launch::rendezvous::Rendezvous;
use crate::report::failure::Failure;

/// MPI from its start to its end, where a launcher of MPI has started this process.
#[derive(Debug)]
pub(super) struct OwnMpi {
    #[cfg(feature = "mpi")]
    mpi: Mpi,
    /// The port of the rendezvous, if this is rank 0 and has chosen it.
    #[cfg(feature = "mpi")]
    port: Option<ReservedPort>,
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
        Ok(Some(Self { mpi, port: None }))
    }

    /// Without the feature there is no MPI.
    #[cfg(not(feature = "mpi"))]
    #[allow(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
    pub(super) fn init(_: &JobPlace) -> Result<Option<Self>, Failure> {
        Ok(None)
    }

    /// Returns where the processes meet, as rank 0 says: what it has not been told is its own host and a port that is free there.
    ///
    /// # Collective
    /// Every rank calls it.
    ///
    /// # Errors
    /// If MPI fails, or the host of rank 0 has no free port.
    #[cfg(feature = "mpi")]
    pub(super) fn rendezvous(&mut self, place: &JobPlace) -> Result<Rendezvous, Failure> {
        let failed = |error: &dyn fmt::Display| {
            Failure::usage(format!("where the ranks meet, over MPI: {error}"))
        };
        let mut own = place.rendezvous.clone();
        if place.rank == 0 && own.is_free_choice {
            let port = ReservedPort::any().map_err(|error| failed(&error))?;
            own.port = port.number;
            own.why = "a free one of rank 0, which MPI tells the others".to_owned();
            self.port = Some(port);
        }
        own.host.get_or_insert_with(|| place.host.clone());
        let own = match place.rank {
            0 => serde_json::to_vec(&own).map_err(|error| failed(&error))?,
            _ => Vec::new(),
        };
        let told = self.mpi.bytes_of_rank_0(&own);
        let told = told.map_err(|error| failed(&error))?;
        serde_json::from_slice(&told).map_err(|error| failed(&error))
    }

    #[cfg(not(feature = "mpi"))]
    pub(super) fn rendezvous(&mut self, _: &JobPlace) -> Result<Rendezvous, Failure> {
        match self.never {}
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
        self.mpi.transport(peers, device)
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
