//! The programs of the ranks whose order shuttle chooses.

use crate::state::{Tick, WorldFailure};
use crate::{World, run_call, run_each, run_each_watched};
use shuttle::rand::{Rng, thread_rng};
use std::{sync::Arc, time::Duration};
use xdit_comm::{Error, Group, ReduceOp, Result, Spec, conformance};
use xdit_kernels::{DType, Device, Tensor};

fn one() -> Tensor {
    Tensor::from_slice(&[1f32], [1], &Device::cpu()).expect("one number")
}

fn spec() -> Spec {
    Spec::new([1], DType::F32)
}

/// One step that all ranks take together.
fn step(group: &Group, kind: usize) -> Result<()> {
    let (n, me, t) = (group.world_size(), group.rank(), one());
    let (next, prev) = ((me + 1) % n, (me + n - 1) % n);
    match kind % 6 {
        0 => group.barrier(),
        1 => group.all_reduce(&t, ReduceOp::Sum).map(drop),
        2 => group.all_gather(&t, &vec![spec(); n]).map(drop),
        3 => group.all_to_all(vec![t; n], &vec![spec(); n]).map(drop),
        4 => group.send_recv(&t, next, spec(), prev).map(drop),
        _ => group.split(me % 2, 0)?.barrier(),
    }
}

/// Every promise of a backend, in orders drawn by chance.
#[test]
fn promises_hold_in_any_order() {
    for (name, check) in conformance::CHECKS {
        let ranks = move || {
            for outcome in run_each(3, check).1 {
                outcome.unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        };
        shuttle::check_random(ranks, 300);
    }
}

/// The same in orders that are few changes away from running rank after rank (Burckhardt et al., "A Randomized Scheduler
/// with Probabilistic Guarantees of Finding Bugs", ASPLOS 2010).
#[test]
fn promises_hold_where_one_rank_lags() {
    for (name, check) in conformance::CHECKS {
        let ranks = move || {
            for outcome in run_each(2, check).1 {
                outcome.unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        };
        shuttle::check_pct(ranks, 300, 3);
    }
}

/// A rank that fails at any step of any program: each of the others ends with an error that names it.
fn one_fails() {
    let mut rng = thread_rng();
    let n = rng.gen_range(2..4);
    let (culprit, at) = (rng.gen_range(0..n), rng.gen_range(0..4usize));
    let program: Vec<usize> = (0..4).map(|_| rng.gen_range(0..6)).collect();
    let told = format!("rank {culprit} at {at} of {program:?}");
    let (_, outcomes) = run_each(n, move |group| {
        for (i, kind) in program.iter().enumerate() {
            if i == at && group.rank() == culprit {
                return Err(Error::Kernel("injected".into()));
            }
            step(group, *kind)?;
        }
        group.barrier()
    });
    for (rank, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.expect_err("nobody passes the last barrier");
        assert!(
            rank == culprit || error.culprit() == Some(culprit),
            "rank {rank}, {told}: {error}"
        );
    }
}

#[test]
fn a_failing_rank_is_named_in_any_order() {
    shuttle::check_random(one_fails, 5000);
    shuttle::check_pct(one_fails, 2000, 3);
}

/// Errors that a rank finds by looking at the others: it has returned, it waits in a circle, it calls something else.
#[test]
fn misuse_is_found_in_any_order() {
    let ranks = || {
        let (_, outcomes) = run_each(2, |group| match group.rank() {
            1 => Ok(()),
            _ => group.barrier(),
        });
        let culprit = outcomes[0].as_ref().map_err(Error::culprit);
        assert_eq!(culprit, Err(Some(1)));

        let (_, outcomes) = run_each(3, |group| {
            group.recv(spec(), (group.rank() + 1) % 3).map(drop)
        });
        for outcome in outcomes {
            let error = outcome.expect_err("each waits for the next");
            assert!(matches!(error, Error::Deadlock(_)), "{error}");
        }

        let (_, outcomes) = run_each(2, |group| match group.rank() {
            0 => group.barrier(),
            _ => group.all_reduce(&one(), ReduceOp::Sum).map(drop),
        });
        for outcome in outcomes {
            let error = outcome.expect_err("they disagree");
            assert!(matches!(error, Error::Disagree { .. }), "{error}");
        }
    };
    shuttle::check_random(ranks, 3000);
}

/// What was started and dropped stays nowhere, whichever of its two sides came first.
#[test]
fn nothing_stays_behind_in_any_order() {
    let ranks = || {
        let (world, outcomes) = run_each(2, |group| {
            drop(group.start_recv(spec(), 1 - group.rank())?);
            drop(group.start_send(&one(), 1 - group.rank())?);
            drop(group.start_all_gather(&one(), &[spec(); 2])?);
            group.barrier()
        });
        outcomes.into_iter().for_each(|o| o.expect("nothing fails"));
        let state = world.lock();
        let board = &state.boards[0];
        assert!(board.rounds.is_empty(), "{:?}", board.rounds);
        let empty = |l: &crate::board::MessageLane| l.arrived.is_empty() && l.abandoned.is_empty();
        assert!(board.lanes.values().all(empty), "{:?}", board.lanes);
    };
    shuttle::check_random(ranks, 3000);
}

/// A rank that stalls until it is given up: time finds it, whoever waits for it by then.
#[test]
fn a_stalling_rank_is_named_in_any_order() {
    let ranks = || {
        let over = Arc::new(shuttle::sync::Mutex::new(false));
        let told = over.clone();
        let watch = |world: &crate::World| {
            let tick = Duration::from_secs(1);
            let failure = loop {
                match world.tick(tick, 4 * tick) {
                    Tick::Failed(failure) => break failure,
                    Tick::Passed | Tick::Held => shuttle::thread::yield_now(),
                }
            };
            let WorldFailure::Lost { reason, .. } = failure else {
                panic!("{failure:?}");
            };
            assert!(reason.is_stall(), "{reason}");
            *told.lock().expect("nobody panics") = true;
        };
        let (_, outcomes) = run_each_watched(3, watch, move |group| {
            while group.rank() == 1 && !*over.lock().expect("nobody panics") {
                shuttle::thread::yield_now();
            }
            group.barrier()
        });
        // A rank that shuttle has not run for so long is as lost as the one that stalls.
        for outcome in outcomes {
            let error = outcome.expect_err("the barrier never passes");
            assert!(error.is_stall() && error.culprit().is_some(), "{error}");
        }
    };
    shuttle::check_random(ranks, 3000);
}

/// One call after another on the same world: none begins where the last one failed or left something behind.
#[test]
fn calls_follow_each_other_in_any_order() {
    let ranks = || {
        let mut rng = thread_rng();
        let world = World::new(2);
        for _ in 0..3 {
            let how = rng.gen_range(0..4);
            let outcomes = run_call(
                &world,
                2,
                |_| {},
                move |group| {
                    match (group.rank(), how) {
                        (1, 0) => return Err(Error::Kernel("injected".into())),
                        (1, 1) => drop(group.start_send(&one(), 0)?),
                        (1, 2) => drop(group.start_recv(spec(), 0)?),
                        _ => {}
                    }
                    (0..3).try_for_each(|kind| step(group, kind))
                },
            );
            assert_eq!(outcomes.iter().all(Result::is_ok), how != 0);
            assert_eq!(world.begin_again(), how == 3, "after {how}");
            if how != 3 {
                break;
            }
        }
    };
    shuttle::check_random(ranks, 3000);
}
