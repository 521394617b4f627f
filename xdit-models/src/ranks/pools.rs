//! Pools of compute threads.

use std::num::NonZero;

use crate::error::{Error, Result};
use crate::pipeline::memory_limit::refused_thread;

/// Returns the share of `threads` of one of several users, at least one.
pub(crate) fn share(threads: usize, among: usize, index: usize) -> usize {
    (threads / among + usize::from(index < threads % among)).max(1)
}

/// The largest number of threads. More are probably a mistake.
const MAX_THREADS: usize = 4096;

/// Creates a pool of compute threads, whose names begin with `name`.
pub(crate) fn pool(threads: Option<usize>, name: &str) -> Result<rayon::ThreadPool> {
    // The number of cores is read here, because rayon would read its environment variable.
    let threads =
        threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get));
    if !(1..=MAX_THREADS).contains(&threads) {
        return Err(Error::invalid(
            "threads",
            threads,
            format!("from 1 to {MAX_THREADS}"),
        ));
    }
    let name = name.to_owned();
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |i| format!("{name}.{i}"))
        .build()
        .map_err(|error| refused_thread(&format!("{threads} compute threads"), &error))
}

/// Runs `work` on a thread of each pool, at the same time, with the index of the pool from `first` on. It starts no thread.
pub(crate) fn on_each(
    first: usize,
    pools: &[rayon::ThreadPool],
    work: &(impl Fn(usize, &rayon::ThreadPool) + Sync),
) {
    if let [pool, others @ ..] = pools {
        pool.in_place_scope(|scope| {
            scope.spawn(move |_| work(first, pool));
            on_each(first + 1, others, work);
        });
    }
}
