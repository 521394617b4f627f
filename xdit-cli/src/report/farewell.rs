//! What is said when a signal ends the run: where that was and, of a prompt file, what was done.

use std::borrow::Cow;

use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::report::console::Console;
use crate::report::failure::RANK_LOST;
use crate::report::voice;
use crate::run::last_resort;

/// The last words about a signal that has an exit code here.
#[derive(Clone, Debug)]
pub(crate) struct Farewell {
    what: Cow<'static, str>,
    exit_code: i32,
}

impl Farewell {
    /// Those for `signal`; none for one of which the process dies as if it had no handler.
    pub(crate) fn of(signal: i32) -> Option<Self> {
        let what = match signal {
            SIGINT => "interrupted",
            SIGTERM => "terminated",
            SIGHUP => "hung up",
            _ => return None,
        };
        Some(Self {
            what: what.into(),
            exit_code: 128 + signal,
        })
    }

    /// The exit code of a run that has lost a rank.
    pub(crate) const LOST: i32 = RANK_LOST as i32;

    /// Those about a rank that was lost before the signal came.
    pub(crate) fn of_lost_rank(message: String) -> Self {
        Self {
            what: message.into(),
            exit_code: Self::LOST,
        }
    }

    /// Says them on standard error, and on standard output the totals of a prompt file or, with `--json`, an object. No lock is
    /// taken that another thread holds while it writes.
    pub(crate) fn say(self, console: &Console) {
        // Of the processes of a job, rank 0 tells that one is gone.
        if voice::is_silent() {
            return;
        }
        let standing = &console.standing;
        let message = match standing.place() {
            Some(place) if self.exit_code != Self::LOST => format!("{} {place}", self.what),
            _ => self.what.into_owned(),
        };
        last_resort::write_error(&format!("error: {message}\n"));
        let totals = standing.totals();
        if console.json {
            let mut object = totals.map_or_else(|| json!({}), |totals| totals.json());
            object["error"] = json!({"message": message, "exit_code": self.exit_code});
            last_resort::write_result(&format!("{object}\n"));
        } else if let Some(totals) = totals.filter(|_| !console.quiet) {
            last_resort::write_result(&format!("{}\n", totals.text()));
        }
    }
}
