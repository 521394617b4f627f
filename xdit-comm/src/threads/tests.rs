use super::*;
use crate::{ReduceOp, Spec, conformance};
use proptest::prelude::*;
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};
use xdit_kernels::{DType, Tensor};

fn one() -> Tensor {
    Tensor::from_slice(&[1f32], [1]).expect("one number")
}

fn spec() -> Spec {
    Spec::new([1], DType::F32)
}

/// The error of each rank; panics if one succeeded.
fn errors<T: std::fmt::Debug>(outcomes: Vec<Result<T>>) -> Vec<Error> {
    outcomes
        .into_iter()
        .map(|o| o.expect_err("no rank can succeed"))
        .collect()
}

#[test]
fn conforms_at_every_size() {
    // miri takes minutes for three ranks.
    let sizes: &[usize] = if cfg!(miri) {
        &[2]
    } else {
        &[1, 2, 3, 4, 5, 8]
    };
    for &world_size in sizes {
        for (name, check) in conformance::CHECKS {
            run(world_size, |group| check(&group))
                .unwrap_or_else(|e| panic!("{name} on {world_size} ranks: {e}"));
        }
    }
}

#[test]
fn different_operations_show_both_sides() {
    let outcomes = run_each(2, Options::default(), |group| match group.rank() {
        0 => group.barrier(),
        _ => group.all_reduce(&one(), ReduceOp::Sum).map(drop),
    });
    for e in errors(outcomes) {
        let text = e.to_string();
        assert!(
            text.contains("barrier") && text.contains("all_reduce"),
            "{text}"
        );
    }
}

#[test]
fn different_shapes_show_both_sides() {
    let outcomes = run_each(3, Options::default(), |group| {
        let t = Tensor::from_slice(&vec![0f32; 2 + group.rank() / 2], [2 + group.rank() / 2])?;
        group.all_reduce(&t, ReduceOp::Sum).map(drop)
    });
    for e in errors(outcomes) {
        let text = e.to_string();
        assert!(
            text.contains("[2] f32") && text.contains("[3] f32"),
            "{text}"
        );
    }
}

#[test]
fn different_dtypes_between_two_show_both_sides() {
    let outcomes = run_each(2, Options::default(), |group| match group.rank() {
        0 => group.send(&one(), 1).and_then(|()| group.barrier()),
        _ => group.recv(Spec::new([1], DType::BF16), 0).map(drop),
    });
    for e in errors(outcomes) {
        let text = e.to_string();
        assert!(
            text.contains("[1] f32") && text.contains("[1] bf16"),
            "{text}"
        );
    }
}

#[test]
fn waiting_for_each_other_is_found_at_once() {
    let start = Instant::now();
    let outcomes = run_each(2, Options::default(), |group| {
        group.recv(spec(), 1 - group.rank()).map(drop)
    });
    for e in errors(outcomes) {
        assert!(matches!(e, Error::Disagree { .. }), "{e}");
    }
    let outcomes = run_each(3, Options::default(), |group| {
        group.recv(spec(), (group.rank() + 1) % 3).map(drop)
    });
    for e in errors(outcomes) {
        assert!(e.to_string().contains("each waits for the next"), "{e}");
    }
    // Far below the deadline of 60 s; a loaded machine may take a while to run three threads.
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_rank_that_returns_early_is_named() {
    let outcomes = run_each(3, Options::default(), |group| {
        if group.rank() == 1 {
            Ok(())
        } else {
            group.barrier()
        }
    });
    for (rank, outcome) in outcomes.into_iter().enumerate() {
        match rank {
            1 => outcome.expect("it returned"),
            _ => assert_eq!(
                outcome.expect_err("the barrier cannot pass").culprit(),
                Some(1)
            ),
        }
    }
}

#[test]
fn nothing_stays_on_the_boards() {
    let t = one();
    run(4, |group| {
        let specs = [spec(); 4];
        for _ in 0..10 {
            drop(group.start_all_gather(&t, &specs)?);
            drop(group.start_recv(spec(), (group.rank() + 1) % 4)?);
            drop(group.start_send(&t, (group.rank() + 3) % 4)?);
        }
        group.barrier()
    })
    .expect("started operations may be dropped");
    // The tensor is shared by handles: if the boards had kept one, its memory would still be counted.
    let world = World::new(2, DEADLINE);
    let a = Member::of_world(world.clone(), 0);
    let b = Member::of_world(world.clone(), 1);
    for member in [a, b] {
        let group = Group::new(Box::new(member));
        drop(
            group
                .start_send(&t, 1 - group.rank())
                .expect("nothing failed"),
        );
        drop(
            group
                .start_all_gather(&t, &[spec(); 2])
                .expect("nothing failed"),
        );
        drop(
            group
                .start_recv(spec(), 1 - group.rank())
                .expect("nothing failed"),
        );
    }
    let state = world.lock();
    assert!(
        state.boards[0].rounds.is_empty(),
        "{:?}",
        state.boards[0].rounds
    );
    assert!(
        state.boards[0]
            .lanes
            .values()
            .all(|l| l.arrived.is_empty() && l.abandoned.is_empty()),
        "{:?}",
        state.boards[0].lanes
    );
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Error,
    Panic,
    /// Longer than the deadline: until the others have given up.
    Stall,
    /// Shorter than the deadline: nothing may happen.
    Delay,
}

/// One step of a random but agreed program.
fn step(group: &Group, kind: usize) -> Result<()> {
    let n = group.world_size();
    let t = one();
    match kind % 7 {
        0 => group.barrier(),
        1 => group.all_reduce(&t, ReduceOp::Sum).map(drop),
        2 => group.all_gather(&t, &vec![spec(); n]).map(drop),
        3 => group.all_to_all(vec![t; n], &vec![spec(); n]).map(drop),
        4 => {
            let (next, prev) = ((group.rank() + 1) % n, (group.rank() + n - 1) % n);
            group.send_recv(&t, next, spec(), prev).map(drop)
        }
        5 => {
            let root = kind / 7 % n;
            group
                .broadcast((group.rank() == root).then_some(&t), spec(), root)
                .map(drop)
        }
        _ => group.split(group.rank() % 2, 0)?.barrier(),
    }
}

fn inject(world_size: usize, program: &[usize], culprit: usize, at: usize, fault: Fault) {
    let deadline = match fault {
        // Long enough that a rank which is merely not scheduled on a busy machine is not taken for lost.
        Fault::Stall => Duration::from_millis(150),
        _ => DEADLINE,
    };
    let start = Instant::now();
    let gave_up = AtomicUsize::new(0);
    let outcomes = run_each(world_size, Options { deadline }, |group| {
        let run = || {
            for (i, kind) in program.iter().enumerate() {
                if i == at && group.rank() == culprit {
                    match fault {
                        Fault::Error => return Err(Error::Kernel("injected".into())),
                        // As a panic, without the message on stderr.
                        Fault::Panic => std::panic::resume_unwind(Box::new("injected".to_owned())),
                        Fault::Stall => {
                            while gave_up.load(Ordering::Acquire) + 1 < world_size {
                                std::thread::sleep(Duration::from_millis(5));
                            }
                        }
                        Fault::Delay => std::thread::sleep(Duration::from_millis(3)),
                    }
                }
                step(&group, *kind)?;
            }
            // Whatever the program was, nobody passes here without the culprit.
            group.barrier()
        };
        let outcome = run();
        gave_up.fetch_add(1, Ordering::Release);
        outcome
    });
    let limit = if fault == Fault::Stall {
        deadline
    } else {
        Duration::ZERO
    } + Duration::from_secs(2);
    assert!(
        start.elapsed() < limit,
        "{fault:?} took {:?}",
        start.elapsed()
    );
    for (rank, outcome) in outcomes.into_iter().enumerate() {
        if fault == Fault::Delay {
            outcome.expect("a delay is no failure");
            continue;
        }
        let error = outcome.expect_err("the culprit holds everybody up");
        assert_eq!(
            error.culprit(),
            Some(culprit),
            "rank {rank}, {fault:?} at {at} of {program:?}: {error}"
        );
    }
}

fn faults(cases: u32, kinds: &[Fault]) {
    let inputs = (
        2usize..6,
        prop::collection::vec(0usize..50, 1..8),
        0usize..6,
        0usize..8,
    );
    let config = ProptestConfig {
        cases,
        ..ProptestConfig::default()
    };
    proptest!(config, |((world_size, program, culprit, at) in inputs)| {
        for fault in kinds {
            inject(world_size, &program, culprit % world_size, at % program.len(), *fault);
        }
    });
}

// Together a thousand injections.
#[test]
fn errors_panics_and_delays_anywhere_are_told_apart() {
    faults(300, &[Fault::Error, Fault::Panic, Fault::Delay]);
}

#[test]
fn a_stall_anywhere_is_named_at_the_deadline() {
    faults(100, &[Fault::Stall]);
}
