//! Whose time counts: that of ranks which finish nothing while the process runs.

use super::{errors, one, spec};
use crate::{
    Error, Group, Loss, Result,
    threads::{Caller, Options, run_each, run_serving},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const SHORT: Duration = Duration::from_millis(300);

fn sleep(of_deadline: u32) {
    std::thread::sleep(SHORT * of_deadline / 4);
}

#[test]
fn a_slow_rank_that_tells_of_its_work_is_not_lost() {
    let outcomes = run_each(3, Options::deadline(SHORT), |group| {
        // Twice the deadline, a quarter at a time.
        for _ in 0..8 {
            if group.rank() == 1 {
                sleep(1);
                group.progress()?;
            }
        }
        group.barrier()
    });
    outcomes
        .into_iter()
        .for_each(|outcome| outcome.expect("nobody is lost"));
}

#[test]
fn what_one_rank_tells_does_not_help_another() {
    let outcomes = run_each(3, Options::deadline(SHORT), |group| {
        match group.rank() {
            0 => {
                while group.progress().is_ok() {
                    std::thread::sleep(SHORT / 16);
                }
            }
            1 => sleep(12),
            _ => {}
        }
        group.barrier()
    });
    for error in errors(outcomes) {
        assert_eq!(error.culprit(), Some(1), "{error}");
    }
}

#[test]
fn who_stalls_after_all_others_are_done_is_lost_too() {
    let over = Arc::new(AtomicBool::new(false));
    let seen = over.clone();
    let start = Instant::now();
    let mut outcomes = run_each(2, Options::deadline(SHORT), move |group| {
        group.barrier()?;
        while group.rank() == 1 && !seen.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(group.rank())
    });
    assert!(
        start.elapsed() < SHORT + Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    over.store(true, Ordering::Release);
    let error = outcomes.pop().expect("two").expect_err("it never returns");
    let stalled = matches!(&error, Error::Rank { rank: 1, reason: Loss::LeftBehind { idle: Some(idle) }, .. } if *idle >= SHORT);
    assert!(stalled && error.is_stall(), "{error:?}");
    assert_eq!(outcomes.pop().expect("one").expect("it was done"), 0);
}

#[test]
fn who_does_not_return_after_a_failure_is_left_behind() {
    let over = Arc::new(AtomicBool::new(false));
    let seen = over.clone();
    let options = Options {
        grace: SHORT,
        ..Options::default()
    };
    let start = Instant::now();
    let outcomes = run_each(3, options, move |group| -> Result<()> {
        while group.rank() == 2 && !seen.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        match group.rank() {
            0 => Err(Error::Kernel("injected".into())),
            _ => group.barrier(),
        }
    });
    assert!(
        start.elapsed() < SHORT + Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    over.store(true, Ordering::Release);
    let culprits: Vec<_> = errors(outcomes)
        .iter()
        .map(|e| (e.culprit(), e.is_stall()))
        .collect();
    assert_eq!(
        culprits,
        [(Some(0), false), (Some(0), false), (Some(2), false)]
    );
}

#[test]
fn while_the_caller_serves_no_deadline_runs() {
    let work = |group: Group, caller: Caller<std::sync::mpsc::Sender<u32>>| {
        if group.rank() == 0 {
            let (answer, answered) = std::sync::mpsc::channel();
            assert!(caller.send(answer));
            assert_eq!(answered.recv(), Ok(7));
        }
        group.barrier()
    };
    let serve = |answer: std::sync::mpsc::Sender<u32>| {
        sleep(8);
        answer.send(7).expect("it waits");
    };
    let outcomes = run_serving(2, Options::deadline(SHORT), work, serve);
    outcomes
        .into_iter()
        .for_each(|outcome| outcome.expect("the caller was slow, not a rank"));
}

#[test]
fn all_that_a_rank_sends_is_served() {
    let mut sum = 0;
    let work =
        |group: Group, caller: Caller<usize>| Ok((0..100).all(|i| caller.send(i + group.rank())));
    let outcomes = run_serving(3, Options::default(), work, |i| sum += i);
    assert!(outcomes.into_iter().all(|sent| sent.is_ok_and(|sent| sent)));
    assert_eq!(sum, 3 * 4950 + 300);
}

/// Not a test by itself: ranks at work, for [`stopping_the_process_loses_no_rank`].
#[test]
#[ignore = "run by another test, in a process of its own"]
fn at_work() {
    let outcomes = run_each(3, Options::deadline(SHORT), |group| {
        let mine = group.start_all_gather(&one(), &[spec(); 3])?;
        for _ in 0..16 {
            sleep(1);
            group.progress()?;
        }
        mine.wait()?;
        group.barrier()
    });
    outcomes
        .into_iter()
        .for_each(|outcome| outcome.expect("nobody is lost"));
}

#[cfg(all(unix, not(miri)))]
#[test]
fn stopping_the_process_loses_no_rank() {
    use std::process::{Command, Stdio};
    let program = std::env::current_exe().expect("this test has a file");
    let mut child = Command::new(program)
        .args(["--ignored", "--exact", "threads::tests::time::at_work"])
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let tell = |signal: &str| {
        let sent = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(sent.expect("there is kill").success());
    };
    sleep(2);
    for _ in 0..2 {
        tell("-STOP");
        sleep(8);
        tell("-CONT");
        sleep(2);
    }
    assert!(child.wait().expect("it ends").success());
}
