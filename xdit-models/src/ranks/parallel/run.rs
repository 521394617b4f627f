//! Runs the work of a call on every rank of this process.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ranks::axes;
use crate::ranks::degrees::Degrees;
use xdit_comm::threads::{self, Caller};
use xdit_comm::{Group, Loss};
use xdit_kernels::Device;
use xdit_pipefusion::Placement;

use super::remote::{ObserverCall, Remote, Wishes};
use super::{Parallel, RankBackend};
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::pipeline::memory_limit::refused_thread;
use crate::ranks::compose::RankContext;
use crate::ranks::idle::{IdleRanks, KeptByRank};
use crate::ranks::pools::share;

/// The ranks of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunOn<'a> {
    pub(crate) parallel: &'a Parallel,
    /// The number of compute threads. Ranks that are threads divide them.
    pub(crate) threads: usize,
    /// The device of the pipeline. Ranks that are threads are on it, or on those of `parallel`; each has a queue over the memory of
    /// its device. Before they begin, their queues wait for what those of the devices were given.
    pub(crate) device: &'a Device,
    /// The idle ranks of the pipeline. Ranks that are threads come from here and return here.
    pub(crate) idle: &'a IdleRanks,
}

impl RunOn<'_> {
    /// Returns this process's rank in a call with this token, if it is one rank of a group.
    ///
    /// # Collective
    /// Every rank of the group calls it at the beginning of a call.
    pub(crate) fn join(
        self,
        placement: Placement,
        cancel: CancelToken,
    ) -> Result<Option<RankContext>> {
        let RankBackend::Group(group) = &self.parallel.backend else {
            return Ok(None);
        };
        let degrees = self.parallel.degrees;
        let member = RankContext::join(group, degrees, placement, self.device)?;
        Ok(Some(member.for_a_call(cancel)))
    }

    /// Runs `work` on each rank of this process and returns the results by rank. `placement` is that of the stages. `member` is
    /// what [`join`](Self::join) returned. `observer` observes the first rank of the first replica. It stays on this thread, and
    /// that rank waits for its answers.
    ///
    /// # Errors
    /// The error of the rank that was the cause, with its coordinates on the mesh ([`Error::Rank`]).
    pub(crate) fn run<T: Send + 'static>(
        self,
        placement: Placement,
        member: Option<RankContext>,
        work: impl Fn(&RankContext, &mut dyn Observer) -> Result<T> + Send + Sync + 'static,
        observer: &mut dyn Observer,
    ) -> Result<Vec<T>> {
        let (degrees, threads) = (self.parallel.degrees, self.threads);
        let cancel = observer.cancel_token();
        let is_watched =
            |rank_context: &RankContext| rank_context.leads() && rank_context.replica() == 0;
        if let Some(member) = member {
            member.wait_for_all()?;
            member.device().wait(&self.device.record());
            let watched = is_watched(&member);
            let mut silent = cancel;
            return Ok(vec![work(
                &member,
                if watched { observer } else { &mut silent },
            )?]);
        }
        let deadline = match &self.parallel.backend {
            RankBackend::Group(_) => unreachable!("a call over a group begins with `join`"),
            RankBackend::Threads { .. } if self.parallel.is_alone() => {
                return Ok(vec![work(
                    &RankContext::alone(self.device, cancel),
                    observer,
                )?]);
            }
            RankBackend::Threads { deadline } => *deadline,
        };
        let world = degrees.product().unwrap_or(1);
        // The first error that no other rank caused. The other ranks only report that they lost a peer.
        let cause: Arc<Mutex<Option<(usize, Error)>>> = Arc::default();
        let causes = cause.clone();
        let wishes = Wishes::of(observer);
        let broken = wishes.broken.clone();
        let (device, devices) = (
            self.device.clone(),
            self.parallel.device_of_each(self.device),
        );
        let mut bases = vec![&device];
        for base in &devices {
            if !bases.contains(&base) {
                bases.push(base);
            }
        }
        let ready: Vec<_> = bases.into_iter().map(Device::record).collect();
        let on_rank = move |group: &Group, kept: &mut KeptByRank, caller: Caller<ObserverCall>| {
            let rank = group.rank();
            let threads = share(threads, world, rank);
            let cancel = wishes.cancel.clone();
            let kept = kept.ready(group, degrees, placement, threads, &device, cancel);
            let outcome = kept.and_then(|(pool, rank_context)| {
                let queue = rank_context.device();
                ready.iter().for_each(|event| queue.wait(event));
                pool.install(|| match is_watched(&rank_context) {
                    true => work(&rank_context, &mut Remote::new(caller, wishes.clone())),
                    false => work(&rank_context, &mut rank_context.silent()),
                })
            });
            outcome.map_err(|error| match lost_peer(error) {
                Ok(lost) => lost,
                Err(own) => {
                    let told = xdit_comm::Error::Kernel(own.to_string());
                    let mut cause = causes.lock().unwrap_or_else(PoisonError::into_inner);
                    cause.get_or_insert((rank, own));
                    told
                }
            })
        };
        let mut placed = self.idle.take(devices);
        let ranks = &mut placed.ranks;
        ranks.set_options(threads::Options::deadline(deadline));
        let outcomes = ranks.call(on_rank, |asked| asked(observer));
        self.idle.give_back(placed);
        let place = |rank| RankCoordinates { degrees, rank }.to_string();
        let cause = cause.lock().unwrap_or_else(PoisonError::into_inner).take();
        match cause {
            Some((_, ended @ (Error::Stopped { .. } | Error::Cancelled))) => return Err(ended),
            Some((rank, source)) => {
                return Err(Error::Rank {
                    rank: place(rank),
                    source: Box::new(source),
                });
            }
            None => {}
        }
        let (done, failed): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        let failed: Vec<_> = failed.into_iter().filter_map(Result::err).collect();
        // If the observer panicked, its rank is not at fault: the same would happen on others.
        let ranks = match broken.load(Ordering::Relaxed) {
            true => Vec::new(),
            false => failed.iter().filter_map(lost).collect(),
        };
        // Without an error of its own, the rank at fault panicked, stopped answering, or was never started.
        match threads::cause(failed) {
            None => Ok(done.into_iter().flatten().collect()),
            Some(xdit_comm::Error::NoThread { rank, reason }) => {
                Err(refused_thread(&place(rank), &reason))
            }
            Some(error) => Err(match (error.culprit(), error.loss()) {
                // The coordinates name the rank, so the reason need not.
                (Some(rank), Some(loss)) => Error::Rank {
                    rank: place(rank),
                    source: Box::new(Error::Lost {
                        loss: loss.clone(),
                        ranks,
                    }),
                },
                _ => Error::Comm(error),
            }),
        }
    }
}

/// Returns the rank that is lost according to the result of its thread. One that was left behind after the failure of another rank may
/// still be well: another thread takes its place.
fn lost(outcome: &xdit_comm::Error) -> Option<usize> {
    match outcome {
        xdit_comm::Error::Rank {
            reason: Loss::LeftBehind { idle: None },
            ..
        } => None,
        xdit_comm::Error::Rank { rank, .. } => Some(*rank),
        _ => None,
    }
}

/// Returns the failure of another rank that this error reports, or the error itself if it is this rank's own.
fn lost_peer(error: Error) -> Result<xdit_comm::Error> {
    let is_of_another = error.is_of_another_rank();
    match error {
        Error::Comm(lost) if is_of_another => Ok(lost),
        own => Err(own),
    }
}

/// A rank and its coordinates on the axes that have more than one: `rank 3 (ring 1, ulysses 1)`.
struct RankCoordinates {
    degrees: Degrees,
    rank: usize,
}

impl fmt::Display for RankCoordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}", self.rank)?;
        let coordinates: Vec<String> = axes::ALL
            .into_iter()
            .filter(|axis| self.degrees.of(*axis) > 1)
            .map(|axis| format!("{axis} {}", self.degrees.coord(self.rank, axis)))
            .collect();
        write!(f, " ({})", coordinates.join(", "))
    }
}

#[cfg(test)]
mod tests;
