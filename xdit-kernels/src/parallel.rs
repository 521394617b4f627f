//! Parallel loops that are compiled once.

use rayon::prelude::*;

/// Calls `task` with each index below `count`, on the current pool.
///
/// The task is a trait object: rayon's code for a loop is large, and every kernel has one for each dtype.
pub(crate) fn for_each_index(count: usize, task: &(dyn Fn(usize) + Sync)) {
    (0..count).into_par_iter().for_each(task);
}

/// The same, where every index may go to a thread of its own: for few and long tasks.
pub(crate) fn for_each_index_alone(count: usize, task: &(dyn Fn(usize) + Sync)) {
    (0..count).into_par_iter().with_max_len(1).for_each(task);
}
