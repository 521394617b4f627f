//! Whether this process speaks. Of the processes of a job, rank 0 alone prints and writes files, or the first that is left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The rank of a silent process, or this number if the process speaks.
static RANK: AtomicUsize = AtomicUsize::new(SPEAKS);
const SPEAKS: usize = usize::MAX;

/// The rank that speaks for the others.
static SPEAKER: AtomicUsize = AtomicUsize::new(0);

/// What the panic of this process said.
static FAULT: Mutex<Option<String>> = Mutex::new(None);

/// Until it speaks again, this process prints nothing: it is rank `rank`, and rank 0 speaks for it.
pub(crate) fn silence(rank: usize) {
    RANK.store(rank, Ordering::Relaxed);
}

/// From now on this process speaks.
pub(crate) fn speak() {
    RANK.store(SPEAKS, Ordering::Relaxed);
}

/// From now on rank `rank` speaks for the others, if they are silent.
pub(crate) fn set_speaker(rank: usize) {
    SPEAKER.store(rank, Ordering::Relaxed);
}

/// Returns the rank that speaks for the others.
pub(crate) fn speaker() -> usize {
    SPEAKER.load(Ordering::Relaxed)
}

/// Returns the rank of this process if it is silent.
pub(crate) fn silent_rank() -> Option<usize> {
    let rank = RANK.load(Ordering::Relaxed);
    (rank != SPEAKS).then_some(rank)
}

/// Returns whether this process is silent.
pub(crate) fn is_silent() -> bool {
    silent_rank().is_some()
}

/// Keeps what a panic says, for rank 0 to tell it.
pub(crate) fn keep_fault(text: String) {
    let mut kept = FAULT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.get_or_insert(text);
}

/// Returns what a panic has said.
pub(crate) fn fault() -> Option<String> {
    FAULT.lock().unwrap_or_else(PoisonError::into_inner).take()
}
