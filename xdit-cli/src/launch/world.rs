//! The world of the processes of a job: how this process joins it, and what it exchanges with the others.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use xdit_comm::Group;
use xdit_comm::processes::{self, JobSecret, ProcessOptions, ProcessWorld, RankPlace};
use xdit_models::{Degrees, quote};

use crate::args::device::ChosenDevice;
use crate::launch::agreement::{Readiness, agreed, exchange};
use crate::launch::facts::HostShare;
use crate::launch::own_mpi::OwnMpi;
use crate::launch::place::JobPlace;
use crate::launch::prepare::{OpenDevice, Prepared, prepare};
use crate::launch::rendezvous::Rendezvous;
use crate::launch::transport::NoTransport;
use crate::launch::{identity, lost, order};
use crate::report::failure::{BAD_MODEL, Failure};
use crate::run::environment::Environment;

/// How long other ranks wait with their end where rank 0 knows as much as they do and has yet to tell it.
pub(super) const COURTESY: Duration = Duration::from_secs(2);
/// How long ranks wait for each other at most if they come together without a lost one: all of them are there.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a rank that has failed waits for rank 0 to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a process needs in order to join.
#[derive(Debug)]
pub(crate) struct WorldRequest<'a> {
    /// The degrees, which multiply to the number of ranks.
    pub degrees: Degrees,
    /// What all ranks will do.
    pub plan: &'a serde_json::Value,
    /// How long ranks wait for each other.
    pub limit: Duration,
    /// Names NCCL's library.
    pub environment: &'a Environment,
    /// Whether ranks go on without a lost one.
    pub replans: bool,
}

/// The processes of a job, of which this one is a rank. Ranks that go on without a lost one count anew; messages and reports have
/// the numbers of the launcher.
#[derive(Debug)]
pub(crate) struct RankWorld {
    world: ProcessWorld,
    share: HostShare,
    /// The names of the hosts of all ranks.
    hosts: Vec<String>,
    /// The numbers of these hosts: two hosts may have one name.
    host_numbers: Vec<usize>,
    /// The launcher's number of each rank.
    numbers: Vec<usize>,
    /// Whether the ranks have agreed that they cannot go on.
    is_agreed: Cell<bool>,
    /// MPI ends after the world, whose tensors it may move.
    mpi: Option<OwnMpi>,
}

impl RankWorld {
    /// The most bytes that rank 0 can give to the others at once.
    pub(crate) const MOST_BYTES: u64 = 8 << 20;

    /// Joins the world of `place`, and opens the device of this process.
    ///
    /// # Errors
    /// The failure of the first rank that cannot open its device or has no transport; [`Failure::Rendezvous`] if the ranks do not
    /// come together.
    pub(super) fn join(
        place: &JobPlace,
        request: &WorldRequest<'_>,
        open: OpenDevice<'_>,
    ) -> Result<(Self, ChosenDevice), Failure> {
        let secret = secret_of(place)?;
        let mut mpi = OwnMpi::init(place)?;
        let rendezvous = match &mut mpi {
            Some(mpi) => mpi.rendezvous(place)?,
            None => place.rendezvous.clone(),
        };
        match place.numbers.is_empty() {
            true => tracing::info!(
                "{} has started {} ranks; this is rank {} on host {}; they meet at {rendezvous} (port: {})",
                place.launcher,
                place.world_size,
                place.rank,
                place.host,
                rendezvous.why
            ),
            false => tracing::info!(
                "ranks {} go on; they meet at {rendezvous}",
                quote::list(&place.numbers)
            ),
        }
        if rendezvous.host.is_none() {
            return Err(Failure::usage(format!(
                "{}: the ranks do not know the host of rank 0: set MASTER_ADDR to it for all of them (mpirun -x MASTER_ADDR=… or \
                 -env), or build xdit-cli with the feature mpi",
                place.launcher
            )));
        }
        let texts = [identity::build(), identity::plan(request.plan)];
        let rank_place = rank_place(place, &rendezvous, secret, texts);
        let options = ProcessOptions {
            rendezvous: match place.numbers.is_empty() {
                true => request.limit,
                false => request.limit.min(AGAIN),
            },
            deadline: request.limit,
            ..ProcessOptions::default()
        };
        let mut prepared = None;
        let mut failed = None;
        let joined = processes::join(&rank_place, options, |peers| {
            match prepare(peers, place, (mpi.as_ref(), request.environment), open)? {
                Ok(Prepared {
                    share,
                    host_numbers,
                    device,
                    transport,
                }) => {
                    prepared = Some((share, host_numbers, device));
                    Ok(transport)
                }
                Err(failure) => {
                    failed = Some(numbered(failure, &place.numbers));
                    Ok(Box::new(NoTransport))
                }
            }
        });
        match (joined, prepared, failed) {
            (Ok(world), Some((share, host_numbers, device)), _) => {
                lost::remember(world.group(), request.replans);
                let hosts = world.peers().iter().map(|peer| peer.host.clone());
                let own = Self {
                    hosts: hosts.collect(),
                    host_numbers,
                    numbers: match place.numbers.is_empty() {
                        true => (0..place.world_size).collect(),
                        false => place.numbers.clone(),
                    },
                    is_agreed: Cell::new(false),
                    world,
                    share,
                    mpi,
                };
                Ok((own, device))
            }
            (_, _, Some(failure)) => Err(failure),
            (Err(error), _, None) => Err(Failure::of_join(error, &rendezvous.why)),
            (Ok(_), None, None) => unreachable!("a world has a transport"),
        }
    }

    /// Returns the part of this process in its host.
    pub(crate) fn share(&self) -> HostShare {
        self.share
    }

    /// Returns the names of the hosts of all ranks, in rank order.
    pub(crate) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Returns the number of the host of each rank, in rank order. Ranks of one host have one number.
    pub(crate) fn host_numbers(&self) -> &[usize] {
        &self.host_numbers
    }

    /// Returns the launcher's number of each rank, in rank order.
    pub(crate) fn numbers(&self) -> &[usize] {
        &self.numbers
    }

    /// Returns the group of all ranks.
    pub(crate) fn group(&self) -> &Group {
        self.world.group()
    }

    /// Returns the rank of this process.
    pub(crate) fn rank(&self) -> usize {
        self.group().rank()
    }

    /// Returns the same ranks in the order of the mesh, and of each rank of the mesh the number of its process. `end` is the stage
    /// where the model ends.
    ///
    /// # Collective
    /// Every rank calls it.
    ///
    /// # Errors
    /// If another rank has failed.
    pub(crate) fn in_mesh_order(
        &self,
        degrees: Degrees,
        end: usize,
    ) -> Result<(Group, Vec<usize>), Failure> {
        let ranks = order::mesh_ranks(degrees, &self.host_numbers, end);
        let mut processes = vec![0; ranks.len()];
        for (process, rank) in ranks.iter().enumerate() {
            processes[*rank] = process;
        }
        let group = match processes.is_sorted() {
            true => self.group().clone(),
            false => self
                .group()
                .split(0, ranks[self.rank()])
                .map_err(Failure::from)?,
        };
        Ok((group, processes))
    }

    /// Runs work for which the others may wait any time.
    pub(crate) fn rest<T>(&self, work: impl FnOnce() -> T) -> T {
        self.world.rest(work)
    }

    /// Returns `own` if all ranks can go on, and otherwise the failure of the first rank that cannot. The keys of all ranks must be
    /// equal.
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
        let all = exchange(&Readiness::of(&own, key), |bytes| {
            self.group().control().all_gather(bytes)
        });
        let all = all.map_err(Failure::from)?;
        let differs = "the files that it reads are not those of rank 0 (other digest)";
        let agreed = agreed(own, self.rank(), &all, &self.hosts, (differs, BAD_MODEL));
        self.is_agreed.set(agreed.is_err());
        agreed.map_err(|failure| numbered(failure, &self.numbers))
    }

    /// Runs `work` on the first rank of each host, and then on the others, which are told that they are later.
    ///
    /// # Collective
    /// Every rank calls it.
    ///
    /// # Errors
    /// The first failure of a first rank, on all ranks; the failure of this one.
    pub(crate) fn first_of_host<T>(
        &self,
        work: impl FnOnce(bool) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match self.share.is_first {
            true => {
                let done = self.rest(|| work(false));
                self.agree(done, |_| String::new())
            }
            false => {
                self.agree(Ok(()), |()| String::new())?;
                self.rest(|| work(true))
            }
        }
    }

    /// Returns the bytes of rank 0 on all ranks. Other ranks pass none.
    ///
    /// # Collective
    /// Every rank calls it.
    ///
    /// # Errors
    /// If another rank has failed.
    pub(crate) fn bytes_of_rank_0(&self, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
        self.group()
            .control()
            .broadcast(bytes, 0)
            .map_err(Failure::from)
    }

    /// Returns a value of each rank, in rank order.
    ///
    /// # Collective
    /// Every rank calls it.
    ///
    /// # Errors
    /// If another rank has failed.
    pub(crate) fn gather<T: Serialize + DeserializeOwned>(
        &self,
        own: &T,
    ) -> Result<Vec<T>, Failure> {
        exchange(own, |bytes| self.group().control().all_gather(bytes)).map_err(Failure::from)
    }

    /// Leaves after a run. All ranks do, and none has failed.
    pub(super) fn leave(self) {
        lost::forget();
        // MPI is finalised by all or by none, and waits for others without a deadline: only the control plane knows whether they come.
        let all_come = match &self.mpi {
            Some(_) => self.group().control().all_gather(&[]).map(drop),
            None => Ok(()),
        };
        drop(self.world);
        match (self.mpi, all_come) {
            (Some(mpi), Ok(())) => mpi.finalise(),
            (_, Err(error)) => tracing::warn!("MPI is not finalised: {error}"),
            (None, Ok(())) => {}
        }
    }

    /// Leaves because another rank is lost, and this one goes on without it.
    pub(super) fn abandon(self) {
        lost::forget();
    }

    /// Leaves after a failure, which rank 0 has told before. Other ranks give it time to do so: launchers end all processes when one
    /// has failed.
    pub(super) fn fail(self, reason: &str) {
        lost::forget();
        let rank = self.rank();
        if self.is_agreed.get() {
            // All know it and leave. A rank that calls it a failure of its own might be heard first.
            drop(self);
            if rank > 0 {
                std::thread::sleep(COURTESY);
            }
            return;
        }
        self.group().control().fail(reason);
        if rank > 0 {
            self.world.outlast_rank_0(LAST_WORDS);
        }
    }
}

/// A failure of a rank with the launcher's number of it.
fn numbered(failure: Failure, numbers: &[usize]) -> Failure {
    match failure {
        Failure::OfRank {
            rank,
            host,
            message,
            code,
        } => Failure::OfRank {
            // Without numbers, the rank has its own.
            rank: numbers.get(rank).copied().unwrap_or(rank),
            host,
            message,
            code,
        },
        other => other,
    }
}

fn secret_of(place: &JobPlace) -> Result<JobSecret, Failure> {
    let secret = JobSecret::new(&place.secret);
    secret.map_err(|error| Failure::usage(error.to_string()))
}

/// The place of a process among those of its job, which meet there.
fn rank_place(
    place: &JobPlace,
    rendezvous: &Rendezvous,
    secret: JobSecret,
    [build, plan]: [String; 2],
) -> RankPlace {
    RankPlace {
        rank: place.rank,
        world_size: place.world_size,
        host: place.host.clone(),
        rendezvous: rendezvous.to_string(),
        secret,
        restart: place.restart,
        build,
        plan,
        numbers: place.numbers.clone(),
    }
}

/// Tells rank 0, as soon as it listens, that this rank has failed before it could join. If rank 0 has failed too, it does not listen.
/// Then it has time to say why: launchers end all processes when one has failed.
pub(super) fn cannot_join(place: &JobPlace, reason: &str) {
    let began = Instant::now();
    // Where MPI tells it, this rank has not heard it.
    let is_known = place.rendezvous.host.is_some();
    let secret = secret_of(place).ok().filter(|_| is_known);
    let rank_place =
        secret.map(|secret| rank_place(place, &place.rendezvous, secret, Default::default()));
    let limit = match rank_place.is_some_and(|it| processes::cannot_join(&it, reason, LAST_WORDS)) {
        true => COURTESY,
        false => LAST_WORDS,
    };
    std::thread::sleep(limit.saturating_sub(began.elapsed()));
}
