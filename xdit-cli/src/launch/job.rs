//! The job that this process is a part of, from the start of the program to its end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use xdit_models::Degrees;

use crate::args::cli::{Command, RanksOf};
use crate::args::device::ChosenDevice;
use crate::args::output::ReportArgs;
use crate::launch::identity;
use crate::launch::kind::OwnHost;
use crate::launch::place::{JobPlace, detect, likely_rank};
use crate::launch::prepare::OpenDevice;
use crate::launch::world::{COURTESY, RankWorld, WorldRequest, cannot_join};
use crate::report::failure::Failure;
use crate::report::voice;
use crate::run::environment::Environment;

/// Silences this process if a launcher seems to have started it as another rank than 0. [`ProcessJob::find`] decides.
pub(crate) fn be_silent_at_first(environment: &Environment) {
    if let Some(rank) = likely_rank(environment).filter(|rank| *rank > 0) {
        voice::silence(rank);
    }
}

/// Waits on a silent rank that has failed before it has joined, so that rank 0 has time to say why: launchers end all processes
/// when one has failed.
pub(crate) fn be_courteous() {
    if voice::is_silent() {
        std::thread::sleep(COURTESY);
    }
}

/// The job of this process: of several processes, or of this one alone.
#[derive(Debug, Default)]
pub(crate) struct ProcessJob {
    place: Option<JobPlace>,
    world: RefCell<Option<Rc<RankWorld>>>,
    /// Whether ranks go on without a lost one, so that any of them may have to speak.
    replans: bool,
    /// Whether it has tried to join the others.
    has_tried: Cell<bool>,
    /// A failure that a command has told itself.
    noted: RefCell<Option<String>>,
}

impl ProcessJob {
    /// Looks whether a launcher has started this process as one of several. Other ranks than 0 are silent from then on.
    ///
    /// # Errors
    /// [`Failure::Usage`] for variables of a launcher that cannot be.
    pub(crate) fn find(command: &Command, environment: &Environment) -> Result<Self, Failure> {
        let port = match command.ranks() {
            RanksOf::Meet { port } => port,
            // It is silent already, if rank 0 does the same.
            RanksOf::RankZero => return Ok(Self::default()),
            RanksOf::Each => {
                voice::speak();
                return Ok(Self::default());
            }
        };
        let host = OwnHost {
            name: identity::host(),
            parent: identity::parent(),
        };
        let place = detect(environment, port, &host)?;
        match place.as_ref().map_or(0, |place| place.rank) {
            0 => voice::speak(),
            rank => voice::silence(rank),
        }
        Ok(Self {
            place,
            replans: command.replans(),
            ..Self::default()
        })
    }

    /// Returns whether this process prints and writes files.
    pub(crate) fn speaks(&self) -> bool {
        !voice::is_silent()
    }

    /// Returns what to report: on a silent rank nothing, unless it may have to speak later.
    pub(crate) fn report(&self, asked: ReportArgs) -> ReportArgs {
        match (self.speaks(), self.replans) {
            (true, _) => asked,
            (false, true) => ReportArgs {
                trace: None,
                ..asked
            },
            (false, false) => ReportArgs {
                quiet: true,
                ..ReportArgs::default()
            },
        }
    }

    /// Returns the place of this process among several.
    pub(crate) fn place(&self) -> Option<&JobPlace> {
        self.place.as_ref()
    }

    /// Returns whether ranks go on without a lost one.
    pub(crate) fn replans(&self) -> bool {
        self.replans
    }

    /// Returns the world of the processes, once joined.
    pub(crate) fn world(&self) -> Option<Rc<RankWorld>> {
        self.world.borrow().clone()
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
    ) -> Result<Option<(Rc<RankWorld>, ChosenDevice)>, Failure> {
        // Degrees that do not fit are so on all ranks: nobody need tell it.
        self.has_tried.set(true);
        self.check(request.degrees)?;
        let Some(place) = &self.place else {
            return Ok(None);
        };
        let (world, device) = RankWorld::join(place, request, open)?;
        Ok(Some((self.enter(world), device)))
    }

    fn enter(&self, world: RankWorld) -> Rc<RankWorld> {
        let world = Rc::new(world);
        *self.world.borrow_mut() = Some(world.clone());
        world
    }

    /// Leaves a world that has lost a rank, to go on without it.
    pub(crate) fn abandon(&self) {
        let world = self.world.take().and_then(Rc::into_inner);
        world.into_iter().for_each(RankWorld::abandon);
    }

    /// Joins the ranks that are left, as `place` says, with the device that this process has opened.
    ///
    /// # Errors
    /// As [`RankWorld::join`].
    pub(crate) fn rejoin(
        &self,
        place: &JobPlace,
        request: &WorldRequest<'_>,
        device: &ChosenDevice,
    ) -> Result<Rc<RankWorld>, Failure> {
        let (world, _) = RankWorld::join(place, request, &mut |_| Ok(device.clone()))?;
        Ok(self.enter(world))
    }

    /// Runs work of one rank for which the others, if there are some, wait any time.
    pub(crate) fn rest<T>(&self, work: impl FnOnce() -> T) -> T {
        match self.world() {
            Some(world) => world.rest(work),
            None => work(),
        }
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

    /// Takes note of a failure that a command has told itself, if there is one.
    pub(crate) fn note_failure(&self, failed: Option<String>) {
        *self.noted.borrow_mut() = failed;
    }

    /// Leaves the job, in which this process has failed if there is a reason. Rank 0 has told its failure before.
    pub(crate) fn end(self, failed: Option<&str>) {
        let noted = self.noted.into_inner();
        let world = self.world.into_inner().and_then(Rc::into_inner);
        match (world, failed.or(noted.as_deref())) {
            (Some(world), Some(reason)) => world.fail(reason),
            (None, Some(reason)) => match self.place {
                Some(place) if place.rank > 0 && !self.has_tried.get() => {
                    cannot_join(&place, reason);
                }
                _ => be_courteous(),
            },
            (Some(world), None) => world.leave(),
            (None, None) => {}
        }
    }
}
