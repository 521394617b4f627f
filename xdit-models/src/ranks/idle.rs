//! Idle ranks between calls, and the state that each rank keeps.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::ThreadPool;
use xdit_comm::Group;
use xdit_comm::threads::{Options, RankState, Ranks};
use xdit_kernels::Device;
use xdit_pipefusion::Placement;

use crate::cancel::CancelToken;
use crate::error::Result;
use crate::ranks::compose::RankContext;
use crate::ranks::degrees::Degrees;
use crate::ranks::pools::pool;

/// The state that a rank keeps between calls: its compute threads, and its contexts on the meshes of these calls.
#[derive(Debug, Default)]
pub(crate) struct KeptByRank {
    pool: Option<ThreadPool>,
    contexts: Vec<(Degrees, Placement, RankContext)>,
}

impl RankState for KeptByRank {
    fn group_renewed(&mut self) {
        self.contexts.clear();
    }
}

impl KeptByRank {
    /// Returns the compute threads, and this rank's context on a mesh over `world`, in a call with this token. `device` is that
    /// of the pipeline.
    ///
    /// # Collective
    /// Every rank of the world calls it with the same degrees and placement.
    pub(crate) fn ready(
        &mut self,
        world: &Group,
        degrees: Degrees,
        placement: Placement,
        threads: usize,
        device: &Device,
        cancel: CancelToken,
    ) -> Result<(&ThreadPool, RankContext)> {
        let pool = match self.pool.take() {
            Some(kept) if kept.current_num_threads() == threads => kept,
            _ => pool(Some(threads), &format!("rank {}", world.rank()))?,
        };
        let pool = self.pool.insert(pool);
        let mut known = self.contexts.iter();
        let context = match known.find(|(d, p, _)| (*d, *p) == (degrees, placement)) {
            Some((_, _, context)) => context.clone(),
            None => {
                let context = RankContext::join(world, degrees, placement, device)?;
                self.contexts.push((degrees, placement, context.clone()));
                context
            }
        };
        Ok((pool, context.for_a_call(cancel)))
    }
}

/// The largest number of idle ranks that stay. The ranks of the last call always stay. An idle rank uses only its threads.
const MOST_IDLE_RANKS: usize = 64;

/// The idle ranks of a pipeline. A call takes ranks on the same devices, or creates new ones, and returns them at its end.
/// Simultaneous calls therefore have separate ranks.
#[derive(Debug, Default)]
pub(crate) struct IdleRanks(Mutex<Vec<PlacedRanks>>);

/// Ranks, and the device of each: they compute on forks of these.
#[derive(Debug)]
pub(crate) struct PlacedRanks {
    pub(crate) ranks: Ranks<KeptByRank>,
    devices: Vec<Device>,
}

impl IdleRanks {
    /// Returns the most recently used ranks on these devices, or new ones. Each has a queue of its own over the memory of its
    /// device.
    pub(crate) fn take(&self, devices: Vec<Device>) -> PlacedRanks {
        let mut idle = self.lock();
        let fits = |idle: &PlacedRanks| idle.devices == devices;
        match idle.iter().rposition(fits) {
            Some(i) => idle.remove(i),
            None => {
                let ended = make_room(&mut idle, devices.len());
                drop(idle);
                drop(ended);
                let queues = devices.iter().map(Device::fork).collect();
                PlacedRanks {
                    ranks: Ranks::on(queues, Options::default()),
                    devices,
                }
            }
        }
    }

    /// Keeps ranks for the next call.
    pub(crate) fn give_back(&self, ranks: PlacedRanks) {
        let mut idle = self.lock();
        let ended = make_room(&mut idle, ranks.devices.len());
        idle.push(ranks);
        drop(idle);
        drop(ended);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PlacedRanks>> {
        // Only whole values are moved in and out.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the ranks that were unused for longest until `more` ranks fit. Dropping them waits for their threads, which must not
/// happen under the lock.
fn make_room(idle: &mut Vec<PlacedRanks>, more: usize) -> Vec<PlacedRanks> {
    let count = |idle: &[PlacedRanks]| idle.iter().map(|it| it.devices.len()).sum::<usize>();
    let mut ended = Vec::new();
    while !idle.is_empty() && count(idle) + more > MOST_IDLE_RANKS {
        ended.push(idle.remove(0));
    }
    ended
}

#[cfg(test)]
mod tests {
    use xdit_kernels::Tier;

    use super::*;

    #[test]
    fn idle_ranks_are_bounded_and_the_last_used_stay() {
        let idle = IdleRanks::default();
        let on = |world_size| vec![Device::cpu(); world_size];
        for world_size in [40, 20, 2, 1000] {
            let ranks = idle.take(on(world_size));
            idle.give_back(ranks);
        }
        let sizes = |idle: &IdleRanks| {
            let kept = idle.lock();
            let sizes = kept.iter().map(|idle| idle.ranks.world_size());
            sizes.collect::<Vec<_>>()
        };
        assert_eq!(sizes(&idle), [1000]);
        for world_size in [2, 4, 8, 4] {
            let ranks = idle.take(on(world_size));
            idle.give_back(ranks);
        }
        assert_eq!(sizes(&idle), [2, 8, 4]);
        // Two calls at the same time have ranks of their own.
        let both = [idle.take(on(4)), idle.take(on(4))];
        both.into_iter().for_each(|ranks| idle.give_back(ranks));
        assert_eq!(sizes(&idle), [2, 8, 4, 4]);
    }

    #[test]
    fn ranks_serve_calls_on_their_devices_alone() {
        let tiers: Vec<_> = Tier::available().collect();
        let [portable, .., widest] = tiers[..] else {
            // A processor with one tier is one device.
            return;
        };
        let [a, b] = [portable, widest].map(|tier| Device::cpu_with(tier).unwrap());
        let idle = IdleRanks::default();
        let ranks = idle.take(vec![a.clone(), b.clone()]);
        idle.give_back(ranks);
        // As many ranks, on other devices or in another order.
        for other in [vec![a.clone(), a.clone()], vec![b.clone(), a.clone()]] {
            let ranks = idle.take(other.clone());
            assert_eq!(ranks.devices, other);
            assert_eq!(idle.lock().len(), 1, "{other:?}");
        }
        let again = idle.take(vec![a.clone(), b.clone()]);
        assert_eq!((again.devices, idle.lock().len()), (vec![a, b], 0));
    }
}
