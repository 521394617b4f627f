//! Ranks for a run: how many, on what, and what comes of them.

mod pipefusion;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use xdit_comm::{Axis, DEADLINE, Degrees, Group, threads};

use xdit_pipefusion::Placement;

use crate::compose::Team;
use crate::error::{Error, Result};
use crate::pipeline::{pool, share};

pub use pipefusion::{PipeFusion, StageSplit};

/// More ranks than this in one process are a mistake.
const MOST_RANKS: usize = 1024;

/// How a pipeline is spread over ranks: degrees and a backend in, the same images out.
///
/// # Examples
/// ```
/// use xdit_comm::Degrees;
/// use xdit_models::Parallel;
/// let parallel = Parallel::threads(Degrees { ulysses: 2, ring: 2, ..Degrees::default() });
/// assert_eq!(parallel.degrees.product(), Some(4));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Parallel {
    /// Ranks on each axis of the mesh. `data` replicas share out the images; `cfg` ranks guidance's branches, `pipe` stages the
    /// blocks, `ring` × `ulysses` ranks the tokens of each.
    pub degrees: Degrees,
    /// What the ranks are.
    pub backend: RankBackend,
    /// How stages of a pipeline work, with more than one on the axis `pipe`; or patches by themselves.
    pub pipefusion: PipeFusion,
    /// Whether the ranks of a replica decode row bands of each picture together; otherwise its first rank decodes alone.
    pub vae: bool,
}

/// What ranks are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RankBackend {
    /// Threads of this process, started by each call. They share one copy of the weights, and the pipeline's compute
    /// threads are dealt out among them (at least one each).
    Threads {
        /// A rank that keeps others waiting for longer than this ends the run with [`Error::Rank`].
        deadline: Duration,
    },
    /// This process is one rank of a group of the caller's. Every rank of it makes the same calls; each gets the latents
    /// of its replica's images, and the first rank of each replica gets the images.
    Group(Group),
}

impl Default for Parallel {
    /// One rank.
    fn default() -> Self {
        Self::threads(Degrees::default())
    }
}

impl Parallel {
    /// Ranks as threads of this process.
    #[must_use]
    pub fn threads(degrees: Degrees) -> Self {
        Self {
            degrees,
            backend: RankBackend::Threads { deadline: DEADLINE },
            pipefusion: PipeFusion::default(),
            vae: true,
        }
    }

    /// Ranks that a group connects; this process is one of them.
    #[must_use]
    pub fn group(degrees: Degrees, group: Group) -> Self {
        Self {
            degrees,
            backend: RankBackend::Group(group),
            pipefusion: PipeFusion::default(),
            vae: true,
        }
    }

    /// Sets how long a rank may keep others waiting; for ranks that are threads.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        if let RankBackend::Threads { deadline } = &mut self.backend {
            *deadline = limit;
        }
        self
    }

    /// Sets how stages and patches work.
    #[must_use]
    pub fn pipefusion(mut self, pipefusion: PipeFusion) -> Self {
        self.pipefusion = pipefusion;
        self
    }

    /// Sets whether pictures are decoded in row bands.
    #[must_use]
    pub fn vae(mut self, parallel: bool) -> Self {
        self.vae = parallel;
        self
    }

    /// Whether there is one rank only.
    pub(crate) fn is_alone(&self) -> bool {
        self.degrees == Degrees::default() && matches!(self.backend, RankBackend::Threads { .. })
    }

    /// Replicas that this process runs at the same time.
    pub(crate) fn replicas_here(&self) -> usize {
        match self.backend {
            RankBackend::Threads { .. } => self.degrees.data,
            RankBackend::Group(_) => 1,
        }
    }

    /// How many processes the ranks are.
    pub(crate) fn processes(&self) -> usize {
        match &self.backend {
            RankBackend::Threads { .. } => 1,
            RankBackend::Group(group) => group.world_size(),
        }
    }

    /// The stage that this process is, where it is one rank of a pipeline.
    pub(crate) fn stage_here(&self) -> Option<usize> {
        match &self.backend {
            RankBackend::Threads { .. } => None,
            RankBackend::Group(group) => Some(self.degrees.coord(group.rank(), Axis::Pipe)),
        }
    }

    /// The ranks of one of its replicas.
    pub(crate) fn one_replica(&self) -> Self {
        let mut one = self.clone();
        one.degrees.data = 1;
        one
    }

    /// Whether each picture is decoded by several ranks.
    pub(crate) fn shares_decode(&self) -> bool {
        self.vae && self.one_replica().degrees.product() != Some(1)
    }

    /// Whether a pipeline can be spread so; [`Pipeline::parallel`](crate::Pipeline::parallel) asks too.
    ///
    /// # Errors
    /// [`Error::Comm`] for degrees that no world has, [`Error::InvalidRequest`] for a limit of drift that is none.
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
        match self.pipefusion.max_drift {
            Some(drift) if drift.is_nan() || drift < 0.0 => {
                Err(Error::invalid("max_drift", drift, "a number from 0 up"))
            }
            _ => Ok(()),
        }
    }

    /// What `work` returns on each rank that this process runs, by rank. `threads` are dealt out among ranks that are
    /// threads; stages are placed as `placement` says.
    ///
    /// # Errors
    /// The error of the rank that was the cause, with its place on the mesh ([`Error::Rank`]).
    pub(crate) fn run<T: Send>(
        &self,
        threads: usize,
        placement: Placement,
        work: impl Fn(&Team) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let degrees = self.degrees;
        let deadline = match &self.backend {
            RankBackend::Group(group) => {
                return Ok(vec![work(&Team::join(group, degrees, placement)?)?]);
            }
            RankBackend::Threads { deadline } => *deadline,
        };
        let world = degrees.product().unwrap_or(1);
        // The first error that a rank came to by itself is the cause; the others only report that they lost a peer.
        let cause: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let outcomes = threads::run_each(world, threads::Options { deadline }, |group| {
            let rank = group.rank();
            let outcome = pool(Some(share(threads, world, rank)), &format!("rank {rank}"))
                .and_then(|pool| pool.install(|| work(&Team::join(&group, degrees, placement)?)));
            outcome.map_err(|error| match error.lost_peer() {
                Ok(lost) => lost,
                Err(own) => {
                    let told = xdit_comm::Error::Kernel(own.to_string());
                    let mut cause = cause.lock().unwrap_or_else(PoisonError::into_inner);
                    cause.get_or_insert((rank, own));
                    told
                }
            })
        });
        match cause.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, stopped @ Error::Stopped { .. })) => return Err(stopped),
            Some((rank, source)) => {
                return Err(Error::Rank {
                    rank: Place { degrees, rank }.to_string(),
                    source: Box::new(source),
                });
            }
            None => {}
        }
        let (done, failed): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        // Without an error of its own the cause panicked, or stopped answering.
        let mut failed: Vec<xdit_comm::Error> =
            failed.into_iter().filter_map(Result::err).collect();
        failed.sort_by_key(|error| !matches!(error, xdit_comm::Error::Rank { .. }));
        match failed.into_iter().next() {
            None => Ok(done.into_iter().flatten().collect()),
            Some(error) => Err(match error.culprit() {
                Some(rank) => Error::Rank {
                    rank: Place { degrees, rank }.to_string(),
                    source: Box::new(Error::Comm(error)),
                },
                None => Error::Comm(error),
            }),
        }
    }
}

/// A rank and its coordinates on the axes that have more than one: `rank 3 (ring 1, ulysses 1)`.
struct Place {
    degrees: Degrees,
    rank: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}", self.rank)?;
        let coordinates: Vec<String> = Axis::ALL
            .into_iter()
            .filter(|axis| self.degrees.of(*axis) > 1)
            .map(|axis| format!("{axis} {}", self.degrees.coord(self.rank, axis)))
            .collect();
        write!(f, " ({})", coordinates.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use xdit_kernels::Tensor;
    use xdit_pipefusion::{Part, PatchPlan};

    use super::*;
    use crate::error::ErrorCategory;

    fn two_by_two() -> Parallel {
        Parallel::threads(Degrees {
            ring: 2,
            ulysses: 2,
            ..Degrees::default()
        })
        .deadline(Duration::from_secs(5))
    }

    /// Of a stream of four.
    fn first_row(team: &Team) -> usize {
        let patches = PatchPlan::new(1, 1, 1).unwrap();
        team.layout(4, patches).text(Part::Whole).unwrap().start
    }

    /// The text of four tokens, each rank giving one.
    fn gather(team: &Team) -> Result<Tensor> {
        let patches = PatchPlan::new(4, 1, 1).unwrap();
        let mine = Tensor::from_slice(&[0f32], [1, 1])?;
        team.gather(&team.layout(1, patches), &[mine])
    }

    #[test]
    fn threads_are_dealt_out() {
        let threads = two_by_two()
            .run(6, Placement::Linear, |_| Ok(rayon::current_num_threads()))
            .unwrap();
        assert_eq!(threads, [2, 2, 1, 1]);
        let fewer = two_by_two()
            .run(1, Placement::Linear, |_| Ok(rayon::current_num_threads()))
            .unwrap();
        assert_eq!(fewer, [1; 4]);
    }

    #[test]
    fn the_rank_that_fails_is_named_with_its_place() {
        let fail = |team: &Team| match first_row(team) {
            3 => Err(Error::OutOfMemory {
                what: "a test".into(),
                bytes: 7,
            }),
            _ => gather(team),
        };
        let error = two_by_two().run(1, Placement::Linear, fail).unwrap_err();
        assert_eq!(
            error.to_string(),
            "rank 3 (ring 1, ulysses 1): out of memory: a test needs 7 bytes"
        );
        assert_eq!(error.category(), ErrorCategory::OutOfMemory);
    }

    #[test]
    fn a_rank_that_panics_is_named_too() {
        let panics = |team: &Team| {
            assert!(first_row(team) != 2, "as planned");
            gather(team)
        };
        let error = two_by_two().run(1, Placement::Linear, panics).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("rank 2 (ring 1, ulysses 0): ") && message.contains("as planned"),
            "{message}"
        );
        assert_eq!(error.category(), ErrorCategory::RankLost);
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
}
