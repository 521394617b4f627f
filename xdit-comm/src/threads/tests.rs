mod devices;
mod faults;
mod kept;
mod time;

use super::{member::Member, state::World, *};
use crate::{Call, ReduceOp, Spec, conformance};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use xdit_kernels::{DType, Device, Tensor};

fn one() -> Tensor {
    Tensor::from_slice(&[1f32], [1], &Device::cpu()).expect("one number")
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
fn nobody_passes_a_barrier_early() {
    let come = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let all = come.clone();
    run(3, move |group| {
        for round in 1..=20 {
            all.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            group.barrier()?;
            let come = all.load(std::sync::atomic::Ordering::SeqCst);
            assert!(come >= 3 * round, "{come} in round {round}");
        }
        Ok(())
    })
    .expect("all come");
    assert_eq!(come.load(std::sync::atomic::Ordering::SeqCst), 60);
}

#[test]
fn an_exchange_of_the_control_plane_has_a_deadline_of_its_own() {
    // The last rank makes progress all the time, but takes no part.
    let options = Options::deadline(Duration::from_secs(20));
    let outcomes = run_each(3, options, |group| {
        let limit = Duration::from_millis(60);
        if group.rank() < 2 {
            return group.control().deadline(limit).all_gather(&[1]).map(drop);
        }
        loop {
            group.progress()?;
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    for e in errors(outcomes) {
        assert_eq!(e.culprit(), Some(2), "{e}");
        assert!(
            e.is_stall() && e.to_string().contains("control exchange"),
            "{e}"
        );
    }
}

#[test]
fn a_rank_that_says_that_it_has_failed_is_named() {
    let outcomes = run_each(3, Options::default(), |group| {
        if group.rank() == 1 {
            group.control().fail("out of luck");
            group.control().fail("a second reason");
        }
        group.barrier()
    });
    for e in errors(outcomes) {
        assert_eq!(e.culprit(), Some(1), "{e}");
        assert!(e.to_string().contains("rank 1 is lost: out of luck"), "{e}");
    }
}

#[test]
fn calls_that_no_rank_can_make_are_refused() {
    let refused = |call: Call| {
        let outcome = run(2, move |group| group.start(vec![call.clone()])?.wait());
        outcome.expect_err("it cannot be").to_string()
    };
    assert!(refused(Call::send(&one(), 2)).contains("a rank below 2, got 2"));
    let (op, gives) = (crate::Op::AllToAll, vec![one()]);
    let uneven = refused(Call {
        op,
        gives,
        expects: vec![spec()],
    });
    assert!(
        uneven.contains("expected 2 tensors to give and 2 to get on this rank"),
        "{uneven}"
    );
    let op = crate::Op::AllReduce(ReduceOp::Sum);
    let other = Spec::new([2], DType::F32);
    let reduced = refused(Call {
        op,
        gives: vec![one()],
        expects: vec![other],
    });
    assert!(reduced.contains("a result of [1] f32"), "{reduced}");
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
        let t = Tensor::from_slice(
            &vec![0f32; 2 + group.rank() / 2],
            [2 + group.rank() / 2],
            &Device::cpu(),
        )?;
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
    // Members outside of a run, so that their boards can be looked at.
    let world = World::new(2);
    let a = Member::of_world(world.clone(), 0, None);
    let b = Member::of_world(world.clone(), 1, None);
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
        drop(
            group
                .control()
                .start_all_gather(&[1])
                .expect("nothing failed"),
        );
    }
    let state = world.lock();
    for board in &state.boards[..2] {
        assert!(board.rounds.is_empty(), "{:?}", board.rounds);
    }
    assert!(
        state.boards[0]
            .lanes
            .values()
            .all(|l| l.arrived.is_empty() && l.abandoned.is_empty()),
        "{:?}",
        state.boards[0].lanes
    );
}

#[test]
fn an_error_of_the_users_own_comes_back_and_others_name_its_text() {
    use std::error::Error as _;
    let outcomes = run_each(3, Options::default(), |group| match group.rank() {
        1 => Err(Error::other("1,5".parse::<f32>().unwrap_err())),
        _ => group.barrier(),
    });
    let mut outcomes = outcomes.into_iter().map(Result::unwrap_err);
    let [first, own, third] = std::array::from_fn(|_| outcomes.next().unwrap());
    assert_eq!(own.to_string(), "rank 1: invalid float literal");
    let source = own.source().unwrap();
    assert!(source.is::<std::num::ParseFloatError>(), "{source:?}");
    for other in [&first, &third] {
        assert_eq!(other.culprit(), Some(1), "{other}");
        assert!(
            other
                .to_string()
                .ends_with("rank 1 is lost: invalid float literal"),
            "{other}"
        );
    }
    // The first cause is what a call on all ranks returns.
    let cause = cause(vec![first, own, third]).unwrap();
    assert!(
        cause
            .source()
            .is_some_and(|it| it.is::<std::num::ParseFloatError>())
    );
    // A panic has no error, and an error of this crate is its own source.
    let panics = |group: Group| match group.rank() {
        0 => panic!("as planned"),
        _ => group.barrier(),
    };
    assert!(run(2, panics).unwrap_err().source().is_none());
    let own = run(1, |group| {
        group
            .broadcast(None, Spec::new([1], DType::F32), 0)
            .map(drop)
    });
    assert!(own.unwrap_err().source().unwrap().is::<Error>());
}

#[test]
fn integers_are_not_reduced() {
    let results = run(2, |group| {
        let bytes = Tensor::from_slice(&[[200u8, 3], [255, 4]][group.rank()], [2], &Device::cpu())?;
        let ids = Tensor::from_slice(&[1u32], [1], &Device::cpu())?;
        let of = |x| group.all_reduce(x, ReduceOp::Sum).map(drop).unwrap_err();
        Ok([of(&bytes), of(&ids)].map(|error| error.to_string()))
    });
    for (error, dtype) in results
        .unwrap()
        .iter()
        .flat_map(|e| e.iter().zip(["u8", "u32"]))
    {
        assert!(error.contains(dtype), "{error}");
    }
}
