//! Starts a job and waits for its processes.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::launcher::crew::{Crew, CrewPhase};
use crate::launcher::layout::{LaunchJob, Outcome};
use crate::launcher::start::Starter;
use crate::report::failure::Failure;
use crate::run::control::Word;
use crate::run::signals;

/// What happens while processes run.
#[derive(Debug)]
enum CrewEvent {
    /// A signal has come; that of a process that has ended is one.
    Signal(i32),
    /// A rank has said something.
    Said(usize, Word),
}

/// Starts the processes of a job, waits until all have ended, and passes signals on to them.
///
/// # Errors
/// [`Failure::Start`] if a process cannot be started. Those that were started before have ended then.
pub(crate) fn run(job: &LaunchJob) -> Result<Outcome, Failure> {
    let (happens, events) = mpsc::channel();
    handle(happens.clone())?;
    let said = happens.clone();
    let hear = move |rank, word| drop(said.send(CrewEvent::Said(rank, word)));
    let mut crew = Crew::new(job, Starter::new(job, Arc::new(hear))?);
    for seat in job.seats() {
        if let Err(failure) = crew.start(seat) {
            crew.tell(SIGTERM);
            wait(&mut crew, &events);
            return Err(failure);
        }
    }
    wait(&mut crew, &events);
    Ok(crew.outcome())
}

/// Sends the signals of this process as they come. From now on none of them ends it.
fn handle(happens: Sender<CrewEvent>) -> Result<(), Failure> {
    let mut taken = signals::not_ignored(&[SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2]);
    taken.extend([SIGINT, SIGTERM, SIGCHLD]);
    let failed = |error| Failure::start("signals", &error);
    let mut handled = Signals::new(taken).map_err(failed)?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in handled.forever() {
                if happens.send(CrewEvent::Signal(signal)).is_err() {
                    return;
                }
            }
        })
        .map(drop)
        .map_err(failed)
}

/// Waits until all processes have ended.
fn wait(crew: &mut Crew<'_>, events: &Receiver<CrewEvent>) {
    loop {
        crew.collect();
        if crew.is_empty() {
            return;
        }
        let event = match crew.phase() {
            // This program holds the other end itself, so that it never ends.
            CrewPhase::Runs | CrewPhase::Killed => events.recv().map_err(RecvTimeoutError::from),
            CrewPhase::Loses(until)
            | CrewPhase::Finishes(until)
            | CrewPhase::Fails(until)
            | CrewPhase::Ends(until) => {
                events.recv_timeout(until.saturating_duration_since(Instant::now()))
            }
        };
        match event {
            Ok(CrewEvent::Signal(SIGCHLD)) => {}
            Ok(CrewEvent::Signal(signal)) => crew.interrupt(signal),
            Ok(CrewEvent::Said(rank, word)) => crew.hear(rank, word),
            Err(_) => crew.press(),
        }
    }
}
