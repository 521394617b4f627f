//! Runs the work of a call on every rank of this process.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ranks::axes;
use crate::ranks::degrees::Degrees;
use xdit_comm::Group;
use xdit_comm::threads::{self, Caller};
use xdit_kernels::Device;
use xdit_pipefusion::Placement;

use super::remote::{ObserverCall, Remote, Wishes};
use super::{Parallel, RankBackend};
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
    /// Returns this process's rank, if it is one rank of a group.
    ///
    /// # Collective
    /// Every rank of the group calls it at the beginning of a call.
    pub(crate) fn join(self, placement: Placement) -> Result<Option<RankContext>> {
        let RankBackend::Group(group) = &self.parallel.backend else {
            return Ok(None);
        };
        let degrees = self.parallel.degrees;
        RankContext::join(group, degrees, placement, self.device).map(Some)
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
            let rank_context = member.for_a_call(cancel.clone());
            rank_context.device().wait(&self.device.record());
            let watched = is_watched(&rank_context);
            let mut silent = cancel;
            return Ok(vec![work(
                &rank_context,
                if watched { observer } else { &mut silent },
            )?]);
        }
        let deadline = match &self.parallel.backend {
            // Every call of a member joins it.
            RankBackend::Group(group) => {
                let never = format!("a rank of a group of {} that joined it", group.world_size());
                return Err(xdit_kernels::Error::shape("ranks", never, "one that did not").into());
            }
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
            outcome.map_err(|error| match error.lost_peer() {
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
        let failed = failed.into_iter().filter_map(Result::err).collect();
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
                    source: Box::new(Error::Lost(loss.clone())),
                },
                _ => Error::Comm(error),
            }),
        }
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
mod tests {
    use std::time::Duration;

    use xdit_kernels::Tensor;
    use xdit_pipefusion::{Part, PatchPlan};

    use super::*;
    use crate::error::ErrorCategory;

    /// A call on ranks of its own.
    fn run<T: Send + 'static>(
        parallel: &Parallel,
        threads: usize,
        work: impl Fn(&RankContext, &mut dyn Observer) -> Result<T> + Send + Sync + 'static,
        observer: &mut dyn Observer,
    ) -> Result<Vec<T>> {
        let run_on = RunOn {
            parallel,
            threads,
            device: &Device::cpu(),
            idle: &IdleRanks::default(),
        };
        run_on.run(Placement::Linear, None, work, observer)
    }

    fn two_by_two() -> Parallel {
        Parallel::threads(Degrees {
            ring: 2,
            ulysses: 2,
            ..Degrees::default()
        })
        .deadline(Duration::from_secs(5))
    }

    /// Of a stream of four.
    fn first_row(rank_context: &RankContext) -> usize {
        let patches = PatchPlan::new(1, 1, 1).unwrap();
        rank_context
            .layout(4, patches)
            .text(Part::Whole)
            .unwrap()
            .start
    }

    /// The text of four tokens, each rank giving one.
    fn gather(rank_context: &RankContext) -> Result<Tensor> {
        let patches = PatchPlan::new(4, 1, 1).unwrap();
        let mine = Tensor::from_slice(&[0f32], [1, 1], &Device::cpu())?;
        rank_context.gather(&rank_context.layout(1, patches), &[mine])
    }

    #[test]
    fn threads_are_dealt_out() {
        let threads = run(
            &two_by_two(),
            6,
            |_, _| Ok(rayon::current_num_threads()),
            &mut (),
        )
        .unwrap();
        assert_eq!(threads, [2, 2, 1, 1]);
        let fewer = run(
            &two_by_two(),
            1,
            |_, _| Ok(rayon::current_num_threads()),
            &mut (),
        )
        .unwrap();
        assert_eq!(fewer, [1; 4]);
    }

    #[test]
    fn the_rank_that_fails_is_named_with_its_place() {
        let fail = |rank_context: &RankContext, _: &mut dyn Observer| match first_row(rank_context)
        {
            3 => Err(Error::OutOfMemory {
                what: "a test".into(),
                bytes: 7,
                available: None,
                cure: String::new(),
            }),
            _ => gather(rank_context),
        };
        let error = run(&two_by_two(), 1, fail, &mut ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "rank 3 (ring 1, ulysses 1): out of memory: a test needs 7 B"
        );
        assert_eq!(error.category(), ErrorCategory::OutOfMemory);
    }

    #[test]
    fn a_rank_that_panics_is_named_too() {
        let panics = |rank_context: &RankContext, _: &mut dyn Observer| {
            assert!(first_row(rank_context) != 2, "as planned");
            gather(rank_context)
        };
        let error = run(&two_by_two(), 1, panics, &mut ()).unwrap_err();
        let message = error.to_string();
        assert!(
            message == "rank 2 (ring 1, ulysses 0): panicked: as planned",
            "{message}"
        );
        assert_eq!(error.category(), ErrorCategory::RankLost);
    }

    /// Knows on which thread it is called; not `'static`.
    struct Here<'a>(&'a mut Vec<String>, std::thread::ThreadId);

    impl Observer for Here<'_> {
        fn warning(&mut self, text: &str) {
            assert_eq!(std::thread::current().id(), self.1);
            // Longer than the deadline below: that of the ranks does not run meanwhile.
            std::thread::sleep(Duration::from_millis(600));
            self.0.push(text.to_owned());
        }
    }

    #[test]
    fn the_observer_is_served_where_the_caller_is() {
        let mut told = Vec::new();
        let work = |rank_context: &RankContext, observer: &mut dyn Observer| {
            observer.warning(&format!("{:?}", rank_context.leads()));
            gather(rank_context).map(drop)
        };
        let parallel = two_by_two().deadline(Duration::from_millis(300));
        let observer = &mut Here(&mut told, std::thread::current().id());
        run(&parallel, 4, work, observer).unwrap();
        assert_eq!(told, ["true"], "of the first rank alone");
    }

    #[test]
    fn a_rank_that_never_ends_is_named_and_left_behind() {
        let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = over.clone();
        let stalls = move |rank_context: &RankContext, _: &mut dyn Observer| {
            while first_row(rank_context) == 1 && !seen.load(std::sync::atomic::Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            gather(rank_context).map(drop)
        };
        let parallel = two_by_two().deadline(Duration::from_millis(300));
        let error = run(&parallel, 4, stalls, &mut ()).unwrap_err();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        let message = error.to_string();
        assert!(
            message.starts_with("rank 1 (ring 0, ulysses 1): no progress for ")
                && message.ends_with("left behind"),
            "{message}"
        );
        assert!(error.is_stall());
        assert_eq!(error.category(), ErrorCategory::RankLost);
    }

    #[test]
    fn ranks_keep_threads_and_pools_and_one_that_is_left_behind_is_replaced() {
        let idle = IdleRanks::default();
        let parallel = two_by_two();
        // The thread that each rank computes on.
        let threads = |parallel: &Parallel| {
            let work = |rank_context: &RankContext, _: &mut dyn Observer| {
                gather(rank_context)?;
                Ok(std::thread::current().id())
            };
            let run_on = RunOn {
                parallel,
                threads: 4,
                device: &Device::cpu(),
                idle: &idle,
            };
            run_on.run(Placement::Linear, None, work, &mut ()).unwrap()
        };
        let first = threads(&parallel);
        assert_eq!(threads(&parallel), first);
        // Another plan of as many ranks.
        let ring = Parallel::threads(Degrees {
            ring: 4,
            ..Degrees::default()
        });
        assert_eq!(threads(&ring), first);
        assert_eq!(threads(&parallel), first);
        let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = over.clone();
        let stalls = move |rank_context: &RankContext, _: &mut dyn Observer| {
            while first_row(rank_context) == 1 && !seen.load(std::sync::atomic::Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            gather(rank_context).map(drop)
        };
        let short = two_by_two().deadline(Duration::from_millis(300));
        let run_on = RunOn {
            parallel: &short,
            threads: 4,
            device: &Device::cpu(),
            idle: &idle,
        };
        let error = run_on
            .run(Placement::Linear, None, stalls, &mut ())
            .unwrap_err();
        assert!(error.is_stall(), "{error}");
        let second = threads(&parallel);
        for rank in [0, 2, 3] {
            assert_eq!(second[rank], first[rank], "of a rank that came back");
        }
        assert_ne!(second[1], first[1], "the old one is still at work");
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(threads(&parallel), second);
    }

    #[test]
    fn what_ranks_send_is_counted_call_by_call() {
        let idle = IdleRanks::default();
        let parallel = two_by_two();
        let run_on = RunOn {
            parallel: &parallel,
            threads: 4,
            device: &Device::cpu(),
            idle: &idle,
        };
        for _ in 0..3 {
            let work = |rank_context: &RankContext, _: &mut dyn Observer| {
                gather(rank_context)?;
                Ok(rank_context.stats().unwrap())
            };
            for stats in run_on.run(Placement::Linear, None, work, &mut ()).unwrap() {
                let counted: Vec<_> = stats
                    .iter()
                    .map(|(op, total)| (op.0, total.calls))
                    .collect();
                assert_eq!(counted, [("all_gather", 1)]);
            }
        }
    }
}
