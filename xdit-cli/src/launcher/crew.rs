//! The processes of a job, while they run.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};

use crate::launcher::layout::{LaunchJob, LaunchSeat, Outcome};
use crate::launcher::policy::{self, Ended, How};
use crate::launcher::rounds::RankRound;
use crate::launcher::start::{LaunchedProcess, Starter};
use crate::report::failure::{Failure, RANK_LOST};
use crate::run::control::{Order, Regroup, Word};

/// How long processes may take to end by themselves after one has failed. They learn of it within five seconds, rank 0 tells the
/// user, and those that failed wait for rank 0.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long processes may take to end after a signal.
const GRACE: Duration = Duration::from_secs(5);
/// How long after a first signal another one is one more.
const AGAIN: Duration = Duration::from_secs(1);
/// How long after its connections a process may end that is just ending.
const ENDING: Duration = Duration::from_millis(300);
/// How long the last lines of a process may take that has ended.
const LAST_LINES: Duration = Duration::from_secs(1);
/// The exit code of ssh if it fails itself, or if the process died of a signal there.
const OF_SSH: i32 = 255;
/// How often ranks may come together in vain before they end.
const ATTEMPTS: usize = 3;

/// What remains to be done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum CrewPhase {
    /// All processes run, or have ended well.
    #[default]
    Runs,
    /// One is lost. The others leave their round until then, to go on without it.
    Loses(Instant),
    /// The rank that prints and writes is done. The others end by themselves until then.
    Finishes(Instant),
    /// One has failed. The others end by themselves until then.
    Fails(Instant),
    /// All were told to end until then.
    Ends(Instant),
    /// All were killed.
    Killed,
}

/// The processes of a job.
pub(super) struct Crew<'j> {
    starter: Starter<'j>,
    running: Vec<LaunchedProcess>,
    phase: CrewPhase,
    /// The failure that the job ends with.
    cause: Option<Ended>,
    /// The first signal of this program, and when it came.
    interrupted: Option<(i32, Instant)>,
    /// Processes that did not end when they were told to.
    killed: Vec<LaunchSeat>,
    /// Which ranks go on without a lost one.
    round: RankRound,
    /// How long ranks may take to leave a round, if they go on without a lost one.
    patience: Option<Duration>,
    /// The ranks that this round has lost.
    lost: Vec<Ended>,
    /// Those without which the others have gone on.
    left_behind: Vec<Ended>,
    /// How many rounds in a row have begun without a loss.
    in_vain: usize,
    /// Whether the rank that prints and writes has ended well.
    is_finished: bool,
}

impl<'j> Crew<'j> {
    pub(super) fn new(job: &LaunchJob, starter: Starter<'j>) -> Self {
        Self {
            starter,
            running: Vec::new(),
            phase: CrewPhase::default(),
            cause: None,
            interrupted: None,
            killed: Vec::new(),
            round: RankRound::new(job.world_size()),
            patience: job.patience,
            lost: Vec::new(),
            left_behind: Vec::new(),
            in_vain: 0,
            is_finished: false,
        }
    }

    /// Starts a process.
    ///
    /// # Errors
    /// [`Failure::Start`] if the system refuses it.
    pub(super) fn start(&mut self, seat: LaunchSeat) -> Result<(), Failure> {
        self.running.push(self.starter.start(seat)?);
        Ok(())
    }

    pub(super) fn phase(&self) -> CrewPhase {
        self.phase
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Takes the processes that have ended out, and decides what that means for the others.
    pub(super) fn collect(&mut self) {
        for mut process in std::mem::take(&mut self.running) {
            match process.child.try_wait() {
                Ok(None) => self.running.push(process),
                Ok(Some(status)) => self.ended(process, Some(status)),
                Err(_) => self.ended(process, None),
            }
        }
        self.go_on();
    }

    fn ended(&mut self, process: LaunchedProcess, status: Option<ExitStatus>) {
        let began = Instant::now();
        let speaks = |heard: &JoinHandle<()>| !heard.is_finished();
        while process.heard.as_ref().is_some_and(speaks) && began.elapsed() < LAST_LINES {
            std::thread::sleep(Duration::from_millis(5));
        }
        let seat = process.seat;
        self.round.ended(seat.rank);
        let how = match process.lost {
            Some(reason) => How::Lost(reason),
            None => how(status, seat.host.is_some()),
        };
        let ended = Ended { seat, how };
        let is_good = !ended.is_failure();
        if is_good && ended.seat.rank == self.round.speaker() {
            self.is_finished = true;
            if matches!(self.phase, CrewPhase::Runs | CrewPhase::Loses(_)) {
                self.phase = CrewPhase::Finishes(self.later());
            }
        }
        match self.phase {
            _ if is_good => {}
            // It has lost the one that was done.
            CrewPhase::Finishes(_) if ended.how == How::Code(RANK_LOST) => {}
            CrewPhase::Runs | CrewPhase::Loses(_) | CrewPhase::Finishes(_)
                if self.patience.is_some() && ended.is_loss() =>
            {
                self.lost.push(ended);
                self.await_others();
            }
            CrewPhase::Runs | CrewPhase::Loses(_) | CrewPhase::Finishes(_) => {
                self.phase = CrewPhase::Fails(Instant::now() + PATIENCE);
                self.fail(ended);
            }
            CrewPhase::Fails(_) => self.fail(ended),
            CrewPhase::Ends(_) | CrewPhase::Killed => {}
        }
    }

    /// Takes note of a failure, and that nobody goes on without the ranks that were lost before.
    fn fail(&mut self, ended: Ended) {
        for ended in self.lost.drain(..).chain([ended]) {
            self.cause = Some(policy::cause(self.cause.take(), ended));
        }
    }

    /// Waits until the other ranks have left their round.
    fn await_others(&mut self) {
        if matches!(self.phase, CrewPhase::Runs) {
            self.phase = CrewPhase::Loses(self.later());
        }
    }

    /// When ranks that have something to do must have done it.
    fn later(&self) -> Instant {
        Instant::now() + self.patience.unwrap_or(PATIENCE)
    }

    /// A process has said something.
    pub(super) fn hear(&mut self, rank: usize, word: Word) {
        match word {
            Word::Pid(pid) => {
                let mut own = self.running.iter_mut();
                if let Some(process) = own.find(|process| process.seat.rank == rank) {
                    process.pid = Some(pid);
                }
            }
            Word::Left { round, lost } => {
                let matters = matches!(
                    self.phase,
                    CrewPhase::Runs | CrewPhase::Loses(_) | CrewPhase::Finishes(_)
                );
                if matters && self.patience.is_some() && self.round.left(rank, round) {
                    self.await_others();
                    if let Some((lost, reason)) = lost {
                        self.lose(lost, &reason);
                    }
                }
            }
        }
    }

    /// Kills a process that the others have lost, if it has not ended.
    fn lose(&mut self, rank: usize, reason: &str) {
        let mut all = self.running.iter_mut();
        if let Some(process) = all.find(|process| process.seat.rank == rank)
            && self.round.lose(rank)
        {
            // One that is just ending has a reason of its own: its connections end first.
            let began = Instant::now();
            while matches!(process.child.try_wait(), Ok(None)) {
                if began.elapsed() >= ENDING {
                    process.lost = Some(reason.to_owned());
                    self.starter.kill(process);
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// If all that are left have left their round, tells them where the next one begins.
    fn go_on(&mut self) {
        match self.phase {
            CrewPhase::Loses(_) => {}
            // The images are there, and nobody needs those that would go on.
            CrewPhase::Finishes(_) if self.round.is_over() => return self.tell(SIGTERM),
            _ => return,
        }
        let Some(ranks) = self.round.next() else {
            return;
        };
        self.in_vain = match self.lost.is_empty() {
            true => self.in_vain + 1,
            false => 0,
        };
        let first = self
            .running
            .iter()
            .find(|process| process.seat.rank == ranks[0]);
        let Some(first) = first.filter(|_| self.in_vain < ATTEMPTS) else {
            return self.tell(SIGTERM);
        };
        let (host, port) = self.starter.meet_again(&first.seat);
        let order = Order::Regroup(Regroup {
            round: self.round.number(),
            host,
            port,
            ranks,
        });
        for process in &self.running {
            process.channel.tell(&order);
        }
        self.left_behind.append(&mut self.lost);
        self.phase = CrewPhase::Runs;
    }

    /// Passes a signal on. A user who presses Ctrl-C once more has no patience. Other signals often come twice: to this process and
    /// to its group.
    pub(super) fn interrupt(&mut self, signal: i32) {
        match self.interrupted {
            Some((_, first)) => {
                if [SIGINT, SIGQUIT].contains(&signal) && first.elapsed() >= AGAIN {
                    self.kill();
                }
            }
            None => {
                self.interrupted = Some((signal, Instant::now()));
                self.tell(signal);
            }
        }
    }

    /// Whoever still runs had enough time.
    pub(super) fn press(&mut self) {
        match (self.phase, self.patience) {
            // Others wait for ranks that do not know of the loss.
            (CrewPhase::Loses(_), Some(patience)) if self.round.is_over() => {
                let seconds = patience.as_secs();
                let reason = format!("it did not leave the others within {seconds} s after a loss");
                for rank in self.round.working() {
                    self.lose(rank, &reason);
                }
                self.phase = CrewPhase::Loses(Instant::now() + patience);
            }
            (CrewPhase::Loses(_) | CrewPhase::Finishes(_) | CrewPhase::Fails(_), _) => {
                self.tell(SIGTERM);
            }
            _ => self.kill(),
        }
    }

    /// Tells all processes to end by a signal.
    pub(super) fn tell(&mut self, signal: i32) {
        for process in &self.running {
            process.channel.tell(&Order::Signal(signal));
        }
        self.phase = CrewPhase::Ends(Instant::now() + GRACE);
    }

    /// Kills whoever still runs. A process of another host loses its pipe and ends, if it runs.
    fn kill(&mut self) {
        if matches!(self.phase, CrewPhase::Killed) {
            return;
        }
        self.phase = CrewPhase::Killed;
        for process in &mut self.running {
            self.killed.push(process.seat.clone());
            self.starter.kill(process);
        }
    }

    /// How the job has ended, when all processes have.
    pub(super) fn outcome(mut self) -> Outcome {
        match self.is_finished {
            true => self.left_behind.append(&mut self.lost),
            // Nobody has answered.
            false => {
                for ended in std::mem::take(&mut self.lost) {
                    self.fail(ended);
                }
            }
        }
        let of_cause = self.cause.as_ref().map(Ended::exit_code);
        let of_signal = self
            .interrupted
            .and_then(|(signal, _)| u8::try_from(128 + signal).ok());
        let killed: Vec<String> = self.killed.iter().map(LaunchSeat::name).collect();
        let killed = (!killed.is_empty()).then(|| {
            let names = killed.join(", ");
            format!("{names}: did not end when told to, and was killed")
        });
        let speaker = self.round.speaker();
        let is_silent = |ended: &Ended| ended.seat.rank == speaker && ended.line().is_some();
        // Ranks that come together in vain leave no cause behind.
        let in_vain = (self.in_vain >= ATTEMPTS).then_some(RANK_LOST);
        let apart = in_vain.map(|_| "the ranks that are left do not come together".to_owned());
        Outcome {
            exit_code: of_signal.or(of_cause).or(in_vain).unwrap_or(0),
            is_silent: self.cause.as_ref().is_some_and(is_silent)
                || in_vain.is_some()
                || self.killed.iter().any(|seat| seat.rank == speaker),
            line: self
                .cause
                .as_ref()
                .and_then(Ended::line)
                .or(apart)
                .or(killed),
            // Otherwise the ranks that are left have said who is lost.
            lost: match self.is_finished {
                true => self.left_behind.iter().map(Ended::line_of_loss).collect(),
                false => Vec::new(),
            },
        }
    }
}

/// How a process has ended. Of one that ran through ssh, the code is that of ssh.
fn how(status: Option<ExitStatus>, through_ssh: bool) -> How {
    let Some(status) = status else {
        return How::Code(1);
    };
    match (status.code(), status.signal()) {
        (Some(OF_SSH), _) if through_ssh => How::Ssh,
        (Some(code), _) => How::Code(u8::try_from(code).unwrap_or(1)),
        (None, signal) => How::Signal(signal.unwrap_or_default()),
    }
}
