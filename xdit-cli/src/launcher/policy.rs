//! What happens to the other processes when one has ended.

use crate::launcher::layout::LaunchSeat;
use crate::report::failure::RANK_LOST;

/// How a process has ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) seat: LaunchSeat,
    pub(super) how: How,
}

/// The end of a process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum How {
    /// With this exit code.
    Code(u8),
    /// It died of this signal.
    Signal(i32),
    /// Its ssh failed, or it died of a signal on its host: ssh has one code for both.
    Ssh,
    /// The others have lost it, for this reason, and it was killed.
    Lost(String),
}

/// The exit codes of a process that a signal has ended in order.
const SIGNALLED: std::ops::RangeInclusive<u8> = 129..=160;

/// Which of two failures is the cause, of a first and a later one: the first, unless it only says that another rank was lost.
pub(super) fn cause(first: Option<Ended>, later: Ended) -> Ended {
    match first {
        Some(first) if first.how != How::Code(RANK_LOST) => first,
        Some(first) if later.how == How::Code(RANK_LOST) => first,
        _ => later,
    }
}

impl Ended {
    /// Whether it failed. Nobody goes on without a rank that failed.
    pub(super) fn is_failure(&self) -> bool {
        self.how != How::Code(0)
    }

    /// Whether others can go on without it: it did not end by a failure of its own, which another rank would have too.
    pub(super) fn is_loss(&self) -> bool {
        match self.how {
            How::Code(code) => SIGNALLED.contains(&code),
            How::Signal(_) | How::Ssh | How::Lost(_) => true,
        }
    }

    /// The exit code of the job whose cause of failure this is.
    pub(super) fn exit_code(&self) -> u8 {
        match self.how {
            How::Code(code) => code,
            How::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
            How::Ssh => 1,
            How::Lost(_) => RANK_LOST,
        }
    }

    /// A line about a rank without which the others have finished.
    pub(super) fn line_of_loss(&self) -> String {
        let name = self.seat.name();
        let line = match self.how {
            How::Code(code) => format!("{name} ended with exit code {code}"),
            _ => self.line().unwrap_or(name),
        };
        format!("{line}; the others have finished without it")
    }

    /// A line about an end of which the process itself could not tell.
    pub(super) fn line(&self) -> Option<String> {
        let name = self.seat.name();
        match &self.how {
            How::Code(_) => None,
            How::Lost(reason) => Some(format!("{name} was lost and killed: {reason}")),
            How::Signal(signal) => {
                let signal = *signal;
                let known = signal_hook::low_level::signal_name(signal);
                let known = known.map_or_else(String::new, |known| format!(" ({known})"));
                Some(format!("{name} was killed by signal {signal}{known}"))
            }
            How::Ssh => Some(format!(
                "{name}: ssh ended with exit code 255: it could not reach the host, or the process was killed there"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(rank: usize, how: How) -> Ended {
        let seat = LaunchSeat {
            rank,
            local_rank: rank,
            host: None,
        };
        Ended { seat, how }
    }

    #[test]
    fn one_failure_ends_all() {
        assert!(!ended(1, How::Code(0)).is_failure());
        for how in [How::Code(5), How::Code(6), How::Signal(9), How::Ssh] {
            assert!(ended(1, how).is_failure());
        }
    }

    #[test]
    fn who_lost_another_is_not_the_cause() {
        let lost = || ended(0, How::Code(6));
        let killed = || ended(2, How::Signal(9));
        let failed = || ended(1, How::Code(5));
        let code = |first, later| cause(first, later).exit_code();
        assert_eq!(code(None, lost()), 6);
        assert_eq!(code(Some(lost()), killed()), 137);
        assert_eq!(code(Some(killed()), lost()), 137);
        assert_eq!(code(Some(failed()), killed()), 5);
        assert_eq!(cause(Some(lost()), ended(3, How::Code(6))).seat.rank, 0);
    }

    #[test]
    fn a_process_that_could_not_say_it_is_named() {
        assert_eq!(ended(1, How::Code(4)).line(), None);
        let line = ended(2, How::Signal(9)).line();
        assert_eq!(
            line.as_deref(),
            Some("rank 2 was killed by signal 9 (SIGKILL)")
        );
        assert!(ended(2, How::Ssh).line().unwrap().contains("ssh"));
    }

    #[test]
    fn others_go_on_without_a_rank_that_did_not_fail_by_itself() {
        for (how, line) in [
            (How::Signal(9), "rank 1 was killed by signal 9 (SIGKILL); "),
            (How::Code(143), "rank 1 ended with exit code 143; "),
            (
                How::Lost("it stopped".into()),
                "rank 1 was lost and killed: it stopped; ",
            ),
        ] {
            let ended = ended(1, how);
            assert!(
                ended.is_loss() && ended.line_of_loss().starts_with(line),
                "{ended:?}"
            );
        }
        for code in [1, 2, 5, 6, 101] {
            assert!(!ended(1, How::Code(code)).is_loss());
        }
    }
}
