//! Starts a job and waits for its processes.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::launcher::layout::{LaunchJob, LaunchSeat, Outcome};
use crate::launcher::policy::{self, Ended, How};
use crate::launcher::start::{LaunchedProcess, Starter};
use crate::report::failure::Failure;
use crate::run::control::Order;
use crate::run::signals;

/// How long processes may take to end by themselves after one has failed. They learn of it within five seconds, rank 0 tells the
/// user, and those that failed wait for rank 0.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long processes may take to end after a signal.
const GRACE: Duration = Duration::from_secs(5);
/// How long after a first signal another one is one more.
const AGAIN: Duration = Duration::from_secs(1);
/// How often to look after processes where no signals tell of their ends.
const LOOK: Duration = Duration::from_millis(50);
/// The exit code of ssh if it fails itself, or if the process died of a signal there.
const OF_SSH: i32 = 255;

/// What remains to be done.
#[derive(Clone, Copy, Debug, Default)]
enum CrewPhase {
    /// All processes run, or have ended well.
    #[default]
    Runs,
    /// One has failed. The others end by themselves until then.
    Fails(Instant),
    /// All were told to end until then.
    Ends(Instant),
    /// All were killed.
    Killed,
}

/// Starts the processes of a job, waits until all have ended, and passes signals on to them.
///
/// # Errors
/// [`Failure::Start`] if a process cannot be started. Those that were started before have ended then.
pub(crate) fn run(job: &LaunchJob) -> Result<Outcome, Failure> {
    let signals = handled()?;
    let starter = Starter::new(job)?;
    let mut crew = Crew::default();
    for seat in job.seats() {
        match starter.start(seat) {
            Ok(started) => crew.running.push(started),
            Err(failure) => {
                crew.tell(SIGTERM);
                crew.wait(&signals);
                return Err(failure);
            }
        }
    }
    crew.wait(&signals);
    Ok(crew.outcome())
}

/// Signals of this process, as they come. From now on none of them ends it.
fn handled() -> Result<mpsc::Receiver<i32>, Failure> {
    let mut taken = signals::not_ignored(&[SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2]);
    taken.extend([SIGINT, SIGTERM, SIGCHLD]);
    let failed = |error| Failure::start("signals", &error);
    let mut handled = Signals::new(taken).map_err(failed)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in handled.forever() {
                if sender.send(signal).is_err() {
                    return;
                }
            }
        })
        .map_err(failed)?;
    Ok(receiver)
}

/// The processes of a job, while they run.
#[derive(Debug, Default)]
struct Crew {
    running: Vec<LaunchedProcess>,
    phase: CrewPhase,
    /// The failure that the job ends with.
    cause: Option<Ended>,
    /// The first signal of this program, and when it came.
    interrupted: Option<(i32, Instant)>,
    /// Processes that did not end when they were told to.
    killed: Vec<LaunchSeat>,
}

impl Crew {
    /// Waits until all processes have ended.
    fn wait(&mut self, signals: &mpsc::Receiver<i32>) {
        loop {
            self.collect();
            if self.running.is_empty() {
                return;
            }
            let event = match self.phase {
                CrewPhase::Runs | CrewPhase::Killed => {
                    signals.recv().map_err(RecvTimeoutError::from)
                }
                CrewPhase::Fails(until) | CrewPhase::Ends(until) => {
                    signals.recv_timeout(until.saturating_duration_since(Instant::now()))
                }
            };
            match event {
                Ok(SIGCHLD) => {}
                Ok(signal) => self.interrupt(signal),
                Err(RecvTimeoutError::Timeout) => self.press(),
                // The thread of signals never ends. Without it nothing more would be heard of the processes.
                Err(RecvTimeoutError::Disconnected) => {
                    self.kill();
                    std::thread::sleep(LOOK);
                }
            }
        }
    }

    /// Takes the processes that have ended out, and decides what that means for the others.
    fn collect(&mut self) {
        for mut process in std::mem::take(&mut self.running) {
            match process.child.try_wait() {
                Ok(None) => self.running.push(process),
                Ok(Some(status)) => self.ended(process.seat, Some(status)),
                Err(_) => self.ended(process.seat, None),
            }
        }
    }

    fn ended(&mut self, seat: LaunchSeat, status: Option<ExitStatus>) {
        let how = how(status, seat.host.is_some());
        let ended = Ended { seat, how };
        let by_itself = matches!(self.phase, CrewPhase::Runs | CrewPhase::Fails(_));
        if !by_itself {
            return;
        }
        if ended.is_failure() {
            if matches!(self.phase, CrewPhase::Runs) {
                self.phase = CrewPhase::Fails(Instant::now() + PATIENCE);
            }
            self.cause = Some(policy::cause(self.cause.take(), ended));
        }
    }

    /// Passes a signal on. A user who presses Ctrl-C once more has no patience. Other signals often come twice: to this process and
    /// to its group.
    fn interrupt(&mut self, signal: i32) {
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
    fn press(&mut self) {
        match self.phase {
            CrewPhase::Fails(_) => self.tell(SIGTERM),
            _ => self.kill(),
        }
    }

    fn tell(&mut self, signal: i32) {
        for process in &self.running {
            process.channel.tell(Order::Signal(signal));
        }
        self.phase = CrewPhase::Ends(Instant::now() + GRACE);
    }

    /// Kills whoever still runs. Of another host, that is its ssh: the process loses its pipe and ends.
    fn kill(&mut self) {
        if matches!(self.phase, CrewPhase::Killed) {
            return;
        }
        self.phase = CrewPhase::Killed;
        for process in &mut self.running {
            self.killed.push(process.seat.clone());
            process.child.kill().ok();
        }
    }

    fn outcome(self) -> Outcome {
        let of_cause = self.cause.as_ref().map(Ended::exit_code);
        let of_signal = self
            .interrupted
            .and_then(|(signal, _)| u8::try_from(128 + signal).ok());
        let killed: Vec<String> = self.killed.iter().map(LaunchSeat::name).collect();
        let killed = (!killed.is_empty()).then(|| {
            let names = killed.join(", ");
            format!("{names}: did not end when told to, and was killed")
        });
        let is_silent = |ended: &Ended| ended.seat.rank == 0 && ended.line().is_some();
        Outcome {
            exit_code: of_signal.or(of_cause).unwrap_or(0),
            is_silent: self.cause.as_ref().is_some_and(is_silent)
                || self.killed.iter().any(|seat| seat.rank == 0),
            line: self.cause.as_ref().and_then(Ended::line).or(killed),
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
