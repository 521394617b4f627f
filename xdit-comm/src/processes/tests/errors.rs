//! Errors are those of threads, with the host.

use super::support::{LONG, errors, one, run_each, run_over, spec};
use crate::{
    Call, Error, Group, Loss, ReduceOp, Result, Spec,
    processes::{ProcessOptions, Transfer, Transport},
    threads,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use xdit_kernels::{DType, Device, Tensor};

/// The texts of both backends, that of processes without the host.
fn both(world_size: usize, work: fn(&Group) -> Result<()>) -> Vec<(String, String)> {
    let of_threads = threads::run_each(world_size, threads::Options::default(), move |group| {
        work(&group)
    });
    let of_processes = errors(world_size, work);
    let mut pairs = vec![];
    for (threads, processes) in of_threads.into_iter().zip(of_processes) {
        let mut text = processes.to_string();
        for rank in 0..world_size {
            text = text.replace(
                &format!("rank {rank} (node{rank})"),
                &format!("rank {rank}"),
            );
        }
        pairs.push((threads.expect_err("no rank can succeed").to_string(), text));
    }
    pairs
}

/// The two sides of a disagreement, whoever was first.
fn sides(text: &str) -> Vec<&str> {
    let (_, calls) = text.split_once("disagree: ").unwrap_or_default();
    let mut sides: Vec<&str> = calls.split(", rank ").collect();
    sides
        .iter_mut()
        .for_each(|side| *side = side.trim_start_matches("rank "));
    sides.sort_unstable();
    sides
}

#[test]
fn different_operations_show_both_sides() {
    let work = |group: &Group| match group.rank() {
        0 => group.barrier(),
        _ => group.all_reduce(&one(), ReduceOp::Sum).map(drop),
    };
    for (threads, processes) in both(2, work) {
        assert_eq!(sides(&processes), sides(&threads), "{processes}");
        assert_eq!(sides(&threads).len(), 2, "{threads}");
    }
}

#[test]
fn different_shapes_show_both_sides() {
    let work = |group: &Group| {
        let len = 2 + group.rank();
        let t = Tensor::from_slice(&vec![0f32; len], [len], &Device::cpu())?;
        group.all_reduce(&t, ReduceOp::Sum).map(drop)
    };
    for (threads, processes) in both(2, work) {
        assert_eq!(sides(&processes), sides(&threads), "{processes}");
        assert!(
            threads.contains("[2] f32") && threads.contains("[3] f32"),
            "{threads}"
        );
    }
}

#[test]
fn different_dtypes_between_two_show_both_sides() {
    let work = |group: &Group| match group.rank() {
        0 => group.send(&one(), 1).and_then(|()| group.barrier()),
        _ => group.recv(Spec::new([1], DType::BF16), 0).map(drop),
    };
    for (threads, processes) in both(2, work) {
        assert_eq!(processes, threads);
    }
}

#[test]
fn a_split_beside_another_call_shows_both() {
    let work = |group: &Group| match group.rank() {
        0 => group.split(0, 0).map(drop),
        _ => group.barrier(),
    };
    for (threads, processes) in both(2, work) {
        assert_eq!(sides(&processes), sides(&threads), "{processes}");
    }
}

#[test]
fn waiting_for_each_other_is_found_at_once() {
    let began = Instant::now();
    for (threads, processes) in both(2, |group| group.recv(spec(), 1 - group.rank()).map(drop)) {
        assert_eq!(sides(&processes), sides(&threads), "{processes}");
    }
    let in_circle = |group: &Group| {
        let next = (group.rank() + 1) % 3;
        group.recv(spec(), next).map(drop)
    };
    for (threads, processes) in both(3, in_circle) {
        for text in [threads, processes] {
            assert!(
                text.starts_with("deadlock: each waits for the next: "),
                "{text}"
            );
            for rank in 0..3 {
                let call = format!("rank {rank} in recv from {}", (rank + 1) % 3);
                assert!(text.contains(&call), "{text}");
            }
        }
    }
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
}

#[test]
fn a_rank_that_says_that_it_has_failed_is_named() {
    let work = |group: &Group| {
        if group.rank() == 1 {
            group.control().fail("out of luck");
            group.control().fail("a second reason");
        }
        group.barrier()
    };
    for (threads, processes) in both(3, work) {
        let told = "rank 1 is lost: out of luck";
        assert!(
            threads.ends_with(told) && processes.ends_with(told),
            "{processes}"
        );
    }
    for error in errors(3, work) {
        assert_eq!(error.culprit(), Some(1), "{error}");
        assert!(
            error
                .to_string()
                .contains("rank 1 (node1) is lost: out of luck"),
            "{error}"
        );
    }
}

#[test]
fn an_error_of_one_rank_reaches_all() {
    let outcomes = run_each(4, ProcessOptions::default(), |world| {
        match world.group().rank() {
            2 => Err(Error::other("out of luck")),
            _ => world.group().barrier(),
        }
    });
    for (rank, outcome) in outcomes.into_iter().enumerate() {
        let text = outcome.expect_err("no rank can succeed").to_string();
        match rank {
            2 => assert_eq!(text, "out of luck"),
            _ => assert!(
                text.ends_with("rank 2 (node2) is lost: out of luck"),
                "{text}"
            ),
        }
    }
}

#[test]
fn a_rank_that_panics_is_named() {
    let outcomes = run_each(3, ProcessOptions::default(), |world| {
        assert_ne!(world.group().rank(), 1, "as planned");
        world.group().barrier()
    });
    for rank in [0, 2] {
        let text = outcomes[rank]
            .as_ref()
            .expect_err("it cannot pass")
            .to_string();
        assert!(text.ends_with("rank 1 (node1) is lost: panicked"), "{text}");
    }
}

#[test]
fn a_rank_that_returns_early_is_named() {
    for early in 0..3 {
        let outcomes = run_each(3, ProcessOptions::default(), move |world| {
            match world.group().rank() {
                rank if rank == early => Ok(()),
                _ => world.group().barrier(),
            }
        });
        for (rank, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(()) => assert_eq!(rank, early),
                Err(error) => {
                    assert_eq!(error.culprit(), Some(early), "{error}");
                    let told = "has returned, while others still call barrier";
                    assert!(error.to_string().contains(told), "{error}");
                }
            }
        }
    }
}

#[test]
fn an_exchange_has_a_deadline_of_its_own() {
    // Rank 0 makes progress all the time, but takes no part. It is the first of those that are missing, whoever begins last.
    for error in errors(3, |group| {
        let limit = Duration::from_millis(200);
        if group.rank() > 0 {
            return group.control().deadline(limit).all_gather(&[1]).map(drop);
        }
        loop {
            group.progress()?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }) {
        assert_eq!(error.culprit(), Some(0), "{error}");
        assert!(
            error.is_stall() && error.to_string().contains("control exchange"),
            "{error}"
        );
    }
}

#[test]
fn a_rank_that_makes_no_progress_is_named() {
    let short = ProcessOptions {
        deadline: Duration::from_secs(1),
        ..ProcessOptions::default()
    };
    let over = Arc::new(AtomicBool::new(false));
    let outcomes = run_each(3, short, move |world| {
        match world.group().rank() {
            1 => {
                while !over.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            // Rests, which no deadline ends.
            2 => world.rest(|| std::thread::sleep(Duration::from_millis(1500))),
            _ => {}
        }
        let passed = world.group().barrier();
        over.store(true, Ordering::Release);
        passed
    });
    for error in outcomes
        .into_iter()
        .map(|outcome| outcome.expect_err("it cannot pass"))
    {
        assert_eq!(error.culprit(), Some(1), "{error}");
        assert!(matches!(error.loss(), Some(Loss::NoProgress(_))), "{error}");
    }
}

#[test]
fn a_slow_rank_that_tells_of_its_work_or_rests_is_not_lost() {
    let short = ProcessOptions {
        deadline: Duration::from_secs(2),
        ..ProcessOptions::default()
    };
    let outcomes = run_each(3, short, |world| {
        match world.group().rank() {
            0 => world.rest(|| std::thread::sleep(Duration::from_millis(2500))),
            1 => {
                for _ in 0..25 {
                    std::thread::sleep(Duration::from_millis(100));
                    world.group().progress()?;
                }
            }
            _ => {}
        }
        world.group().barrier()
    });
    outcomes
        .into_iter()
        .for_each(|outcome| outcome.expect("nobody is lost"));
}

#[test]
fn calls_after_the_world_fail() {
    let outcomes = run_each(2, ProcessOptions::default(), |world| {
        world.group().barrier()?;
        Ok(world.group().clone())
    });
    for outcome in outcomes {
        let group = outcome.expect("the barrier passes");
        let refused = group
            .start(vec![Call::send(&one(), 0)])
            .expect_err("it has left");
        assert!(
            refused.to_string().contains("it has left the world"),
            "{refused}"
        );
    }
}

#[test]
fn too_large_an_exchange_is_refused() {
    let outcomes = run_each(1, ProcessOptions::default(), |world| {
        world
            .group()
            .control()
            .all_gather(&vec![0; (16 << 20) + 1])
            .map(drop)
    });
    let error = outcomes
        .into_iter()
        .next()
        .expect("one")
        .expect_err("too large");
    assert!(error.to_string().contains("at most 16777216"), "{error}");
}

#[test]
fn a_send_waits_for_nobody() {
    let outcomes = run_each(3, ProcessOptions::default(), |world| {
        let group = world.group();
        match group.rank() {
            0 => {
                let batch = vec![Call::send(&one(), 1), Call::recv(spec(), 2)];
                group.start(batch)?.wait()?;
                group.barrier()
            }
            // Takes what rank 0 has sent only after the barrier, which rank 0 reaches when rank 2 has computed.
            1 => group
                .barrier()
                .and_then(|()| group.recv(spec(), 0).map(drop)),
            _ => {
                std::thread::sleep(Duration::from_millis(200));
                group.send(&one(), 0)?;
                group.barrier()
            }
        }
    });
    for outcome in outcomes {
        outcome.expect("nobody waits for a send");
    }
}

/// A transport whose calls never end.
#[derive(Debug)]
struct Stuck;

impl Transport for Stuck {
    fn receives_ahead(&self) -> bool {
        true
    }

    fn start(&self, _: Vec<Call>) -> Result<Box<dyn Transfer>> {
        Ok(Box::new(Self))
    }

    fn subgroup(&self, _: usize, _: &[usize]) -> Result<Box<dyn Transport>> {
        Ok(Box::new(Self))
    }

    fn abort(&self) {}
}

impl Transfer for Stuck {
    fn poll(&mut self) -> Result<Option<Vec<Tensor>>> {
        Ok(None)
    }
}

#[test]
fn a_transport_that_brings_nothing_does_not_hang() {
    let short = ProcessOptions {
        deadline: Duration::from_secs(1),
        ..ProcessOptions::default()
    };
    let began = Instant::now();
    let outcomes = run_over(
        2,
        short,
        |_| Ok(Box::new(Stuck)),
        |world| world.group().barrier(),
    );
    for outcome in outcomes {
        let error = outcome.expect_err("it cannot pass").to_string();
        let told =
            "its transport did not finish a call within 1.0 s, though every rank has started it";
        assert!(error.contains(told), "{error}");
    }
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
}
