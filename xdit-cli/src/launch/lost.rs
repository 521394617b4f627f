//! What a signal has to do with the other processes of a job. Launchers send SIGTERM to all of them when one is gone.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use xdit_comm::Group;

use crate::report::failure::Failure;
use crate::report::voice;

/// The ranks of this process's job, while there are some, and whether the others go on without this one.
static GROUP: Mutex<Option<(Group, bool)>> = Mutex::new(None);

/// How long it takes at most until all ranks know that the process of one has ended.
const KNOWN: Duration = Duration::from_secs(1);
/// How long a silent rank waits before it says that a signal has ended it. As a rule rank 0 gets the same signal and tells of it, or
/// of the lost rank for which the launcher has sent it.
const RANK_0_FIRST: Duration = Duration::from_millis(500);
/// How long the word of a rank that ends may take to rank 0.
const WORD: Duration = Duration::from_millis(50);

/// Takes note of the ranks of the job. `others_go_on`: they do if this one is lost.
pub(crate) fn remember(group: &Group, others_go_on: bool) {
    *GROUP.lock().unwrap_or_else(PoisonError::into_inner) = Some((group.clone(), others_go_on));
}

/// Takes note of the end of the ranks.
pub(crate) fn forget() {
    *GROUP.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Before this process ends by a signal: a silent rank tells the others that it was ended, and rank 0 returns the line about a rank
/// that was lost before, if there is one.
pub(crate) fn before_the_end() -> Option<String> {
    let known = GROUP.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Whoever goes on sees the end of this process, which is no failure then.
    let group = known.and_then(|(group, others_go_on)| (!others_go_on).then_some(group))?;
    if voice::is_silent() {
        std::thread::sleep(RANK_0_FIRST);
        group.control().fail("ended by a signal");
        std::thread::sleep(WORD);
        return None;
    }
    let began = Instant::now();
    while began.elapsed() < KNOWN {
        if let Err(error) = group.progress() {
            let failure = Failure::from(error);
            let is_lost = matches!(failure, Failure::LostRank { .. });
            return is_lost.then(|| failure.to_string());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}
