//! The job that this process is a part of, from the start of the program to its end.

use std::cell::OnceCell;

use xdit_models::Degrees;

use crate::args::cli::Command;
use crate::args::device::ChosenDevice;
use crate::args::output::ReportArgs;
use crate::launch::identity;
use crate::launch::kind::OwnHost;
use crate::launch::place::{JobPlace, detect};
use crate::launch::world::{COURTESY, OpenDevice, RankWorld, WorldRequest};
use crate::report::failure::Failure;
use crate::report::voice;
use crate::run::environment::Environment;

/// The job of this process: of several processes, or of this one alone.
#[derive(Debug, Default)]
pub(crate) struct ProcessJob {
    place: Option<JobPlace>,
    world: OnceCell<RankWorld>,
}

impl ProcessJob {
    /// Looks whether a launcher has started this process as one of several. Other ranks than 0 are silent from then on.
    ///
    /// # Errors
    /// [`Failure::Usage`] for variables of a launcher that cannot be.
    pub(crate) fn find(command: &Command, environment: &Environment) -> Result<Self, Failure> {
        let Some(port) = command.rendezvous_port() else {
            return Ok(Self::default());
        };
        let host = OwnHost {
            name: identity::host(),
            parent: identity::parent(),
        };
        let place = detect(environment, port, &host)?;
        if let Some(place) = place.as_ref().filter(|place| place.rank > 0) {
            voice::silence(place.rank);
        }
        Ok(Self {
            place,
            world: OnceCell::new(),
        })
    }

    /// Returns whether this process prints and writes files.
    pub(crate) fn speaks(&self) -> bool {
        self.place.as_ref().is_none_or(|place| place.rank == 0)
    }

    /// Returns what to report: on a silent rank nothing.
    pub(crate) fn report(&self, asked: ReportArgs) -> ReportArgs {
        match self.speaks() {
            true => asked,
            false => ReportArgs {
                quiet: true,
                ..ReportArgs::default()
            },
        }
    }

    /// Returns the place of this process among several.
    pub(crate) fn place(&self) -> Option<&JobPlace> {
        self.place.as_ref()
    }

    /// Returns the world of the processes, once joined.
    pub(crate) fn world(&self) -> Option<&RankWorld> {
        self.world.get()
    }

    /// Checks that the degrees multiply to the number of ranks. It needs no other rank.
    ///
    /// # Errors
    /// [`Failure::Usage`] with the nearest legal plan.
    pub(crate) fn check(&self, degrees: Degrees) -> Result<(), Failure> {
        let Some(place) = &self.place else {
            return Ok(());
        };
        degrees.check(place.world_size).map_err(|error| {
            let (launcher, size) = (place.launcher, place.world_size);
            Failure::usage(format!("{launcher} has started {size} ranks: {error}"))
        })
    }

    /// Joins the world of the processes and opens the device of this one, if there are several.
    ///
    /// # Errors
    /// As [`check`](Self::check) and [`RankWorld::join`].
    pub(crate) fn join(
        &self,
        request: &WorldRequest<'_>,
        open: OpenDevice<'_>,
    ) -> Result<Option<(&RankWorld, ChosenDevice)>, Failure> {
        self.check(request.degrees)?;
        let Some(place) = &self.place else {
            return Ok(None);
        };
        let (world, device) = RankWorld::join(place, request, open)?;
        Ok(Some((self.world.get_or_init(|| world), device)))
    }

    /// Returns `own` if all ranks can go on ([`RankWorld::agree`]).
    ///
    /// # Collective
    /// Every rank calls it.
    ///
    /// # Errors
    /// The failure of a rank, on all ranks.
    pub(crate) fn agree<T>(
        &self,
        own: Result<T, Failure>,
        key: impl FnOnce(&T) -> String,
    ) -> Result<T, Failure> {
        match self.world() {
            Some(world) => world.agree(own, key),
            None => own,
        }
    }

    /// Leaves the job, in which this process has failed if there is a reason. Rank 0 has told its failure before.
    pub(crate) fn end(self, failed: Option<&str>) {
        match (self.world.into_inner(), failed, self.place) {
            (Some(world), Some(reason), _) => world.fail(reason),
            (None, Some(_), Some(place)) if place.rank > 0 => std::thread::sleep(COURTESY),
            // Dropping the world leaves it.
            _ => {}
        }
    }
}
