mod faults;
mod kept;
mod time;

use super::{member::Member, state::World, *};
use crate::{ReduceOp, Spec, conformance};
use std::time::{Duration, Instant};
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
    let sent = t.clone();
    run(4, move |group| {
        let t = sent.clone();
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
    let world = World::new(2);
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
