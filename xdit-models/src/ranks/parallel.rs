//! Ranks for a run: how many, on what, and what comes of them.

mod pipefusion;
mod remote;
pub(crate) mod run;

use std::time::Duration;

use crate::ranks::axes;
use crate::ranks::degrees::Degrees;
use xdit_comm::{DEADLINE, Group};

use crate::error::{Error, Result};

pub use pipefusion::{PipeFusion, StageSplit};

/// More ranks than this in one process are a mistake.
const MOST_RANKS: usize = 1024;

/// How a pipeline is spread over ranks: degrees and a backend in, the same images out.
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
    /// Ranks on each axis of the mesh. `data` replicas share out the images; `cfg` ranks guidance's branches, `pipe` stages the
    /// blocks, `ring` × `ulysses` ranks the tokens of each.
    pub degrees: Degrees,
    /// What the ranks are.
    pub backend: RankBackend,
    /// How stages of a pipeline work, with more than one on the axis `pipe`; or patches by themselves.
    pub pipefusion: PipeFusion,
    /// Whether the ranks of a replica decode row bands of each picture together; otherwise its first rank decodes alone.
    pub vae: bool,
    /// Whether a single rank is a thread of its own, which has a deadline: beside it others draw, who would wait for it.
    watched: bool,
}

/// What ranks are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RankBackend {
    /// Threads of this process. The first call starts them, and they stay until the pipeline is dropped. They share one copy of
    /// the weights, and the pipeline's compute threads are dealt out among them (at least one each).
    Threads {
        /// A rank that finishes no operation for longer than this ends the run with [`Error::Rank`]. What is told of: each call
        /// of a kernel, of large ones each piece of some 4·10⁹ FLOPs a thread. Time in which the process is stopped, or the observer is at
        /// work, does not count. A thread that never returns is left behind ([`xdit_comm::threads`]).
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
            watched: false,
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
            watched: false,
        }
    }

    /// Sets how long a rank may go without finishing an operation; for ranks that are threads.
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

    /// Whether there is one rank only, on the caller's thread.
    pub(crate) fn is_alone(&self) -> bool {
        self.degrees == Degrees::default()
            && matches!(self.backend, RankBackend::Threads { .. })
            && !self.watched
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
            RankBackend::Group(group) => Some(self.degrees.coord(group.rank(), axes::PIPE)),
        }
    }

    /// The ranks of one of its replicas; each of several is watched.
    pub(crate) fn one_replica(&self) -> Self {
        let mut one = self.clone();
        one.degrees.data = 1;
        one.watched |= self.degrees.data > 1;
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
}
