use super::*;
use crate::{Call, Group, ReduceOp, Spec, conformance};
use std::time::{Duration, Instant};
use xdit_kernels::{DType, Device, Tensor, Tier};

fn numbers(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, [values.len()], &Device::cpu()).expect("a few numbers")
}

fn spec() -> Spec {
    Spec::new([1], DType::F32)
}

/// The error that was the cause; panics if all ranks succeeded.
fn stuck(ranks: usize, work: impl Fn(Group) -> Result<()> + Send + Sync + 'static) -> String {
    let began = Instant::now();
    let error = run(ranks, &StrictOptions::default(), work).expect_err("it cannot go on");
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "found, not waited for"
    );
    error.to_string()
}

#[test]
fn conforms_at_every_size_with_any_delays() {
    for world_size in [1, 2, 3, 4, 5, 8] {
        for (name, check) in conformance::CHECKS {
            for seed in 0..3 {
                let options = StrictOptions::seed(seed);
                run(world_size, &options, |group| check(&group))
                    .unwrap_or_else(|e| panic!("{name} on {world_size} ranks, seed {seed}: {e}"));
            }
        }
    }
}

#[test]
fn a_send_waits_for_its_receiver_and_a_batch_does_not() {
    let sends_first = |group: Group| {
        let peer = 1 - group.rank();
        drop(group.start_send(&numbers(&[1.0]), peer)?);
        group.recv(spec(), peer).map(drop)
    };
    let text = stuck(2, sends_first);
    assert!(text.contains("deadlock"), "{text}");
    for rank in 0..2 {
        let peer = 1 - rank;
        let runs = format!("rank {rank}'s queue runs send to {peer}");
        let needs =
            format!("needs rank {peer}'s recv from {rank}, which is queued behind send to {rank}");
        assert!(text.contains(&runs) && text.contains(&needs), "{text}");
    }
    let batch = |group: Group| {
        let peer = 1 - group.rank();
        group.send_recv(&numbers(&[1.0]), peer, spec(), peer)
    };
    run(2, &StrictOptions::default(), batch).expect("a batch progresses together");
    let text = stuck(2, move |group| batch(unbatched(group)).map(drop));
    assert!(text.contains("queued behind"), "{text}");
}

#[test]
fn receives_posted_before_the_sends_they_need_are_found() {
    let text = stuck(3, |group| {
        let n = group.world_size();
        let (next, prev) = ((group.rank() + 1) % n, (group.rank() + n - 1) % n);
        let pending = group.start_recv(spec(), prev)?;
        drop(group.start_send(&numbers(&[1.0]), next)?);
        pending.wait().map(drop)
    });
    assert!(
        text.contains("runs recv from 2 and needs rank 2's send to 0"),
        "{text}"
    );
}

#[test]
fn groups_of_one_world_share_the_queue() {
    // Each group alone would go on: rank 0 starts the one first, rank 1 the other.
    let text = stuck(2, |group| {
        let (a, b) = (group.split(0, 0)?, group.split(0, 0)?);
        let (first, second) = if group.rank() == 0 {
            (&a, &b)
        } else {
            (&b, &a)
        };
        drop(first.start_barrier()?);
        second.barrier()
    });
    assert!(text.contains("barrier"), "{text}");
}

#[test]
fn a_dropped_receive_holds_up_the_queue() {
    let text = stuck(2, |group| {
        drop(group.start_recv(spec(), 1 - group.rank())?);
        group.barrier()
    });
    assert!(text.contains("recv from"), "{text}");
    // Even where its rank wants nothing more.
    let text = stuck(2, |group| match group.rank() {
        0 => group.start_recv(spec(), 1).map(drop),
        _ => Ok(()),
    });
    assert!(text.contains("rank 1 is lost: it has returned"), "{text}");
}

#[test]
fn a_circle_through_the_control_plane_is_found() {
    // Rank 0 waits for a tensor that rank 1 sends after an exchange that rank 0 has not joined.
    let text = stuck(2, |group| {
        if group.rank() == 0 {
            group.recv(spec(), 1)?;
            group.control().all_gather(&[]).map(drop)
        } else {
            group.control().all_gather(&[])?;
            group.send(&numbers(&[1.0]), 0)
        }
    });
    assert!(
        text.contains("rank 1 waits in an exchange of the control plane"),
        "{text}"
    );
    assert!(text.contains("rank 1 has not started"), "{text}");
}

#[test]
fn no_order_of_a_reduction_is_promised() {
    // Sums of these differ with the order; all ranks have the same all the same.
    let values = [1e8f32, 1.0, -1e8];
    let sum = |seed| {
        let sums = run(3, &StrictOptions::seed(seed), move |group| {
            let mine = numbers(&[values[group.rank()]]);
            Ok(group
                .all_reduce(&mine, ReduceOp::Sum)?
                .to_vec_blocking::<f32>()?[0])
        });
        let sums = sums.expect("it conforms");
        assert!(
            sums.iter().all(|sum| sum.to_bits() == sums[0].to_bits()),
            "{sums:?}"
        );
        sums[0].to_bits()
    };
    let sums: std::collections::HashSet<u32> = (0..8).map(sum).collect();
    assert!(sums.len() > 1, "one order only");
}

#[test]
fn a_rank_that_fails_panics_or_stays_silent_is_named() {
    let text = stuck(3, |group| match group.rank() {
        1 => Err(crate::Error::Kernel("out of luck".into())),
        _ => group.barrier(),
    });
    assert!(text.contains("rank 1: out of luck"), "{text}");
    let outcomes = run_each(3, &StrictOptions::default(), |group| {
        if group.rank() == 2 {
            // As a panic, without the message on stderr.
            std::panic::resume_unwind(Box::new("as planned".to_owned()));
        }
        group.barrier()
    });
    for outcome in outcomes {
        assert_eq!(outcome.expect_err("nobody passes").culprit(), Some(2));
    }
    let text = stuck(2, |group| {
        if group.rank() == 0 {
            let limit = Duration::from_millis(50);
            return group.control().deadline(limit).all_gather(&[]).map(drop);
        }
        loop {
            group.progress()?;
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(
        text.contains("rank 1") && text.contains("control exchange"),
        "{text}"
    );
}

#[test]
fn what_does_not_fit_shows_both_sides() {
    let text = stuck(2, |group| match group.rank() {
        0 => group.barrier(),
        _ => group.all_reduce(&numbers(&[1.0]), ReduceOp::Sum).map(drop),
    });
    assert!(
        text.contains("barrier") && text.contains("all_reduce"),
        "{text}"
    );
    let text = stuck(2, |group| {
        let peer = 1 - group.rank();
        let batch = vec![
            Call::send(&numbers(&[1.0]), peer),
            Call::recv(Spec::new([2], DType::F32), peer),
        ];
        group.start(batch)?.wait().map(drop)
    });
    assert!(
        text.contains("[1] f32") && text.contains("[2] f32"),
        "{text}"
    );
}

#[test]
fn tensors_of_another_device_are_refused() {
    let ours = Device::cpu();
    // On a processor with one tier there is no other device.
    let Some(other) = Tier::available().find(|tier| *tier != ours.tier()) else {
        println!("left out: this processor has one tier");
        return;
    };
    let options = StrictOptions {
        device: Device::cpu_with(other).expect("it is available"),
        ..Default::default()
    };
    let outcomes = run_each(2, &options, |group| {
        group.start_send(&numbers(&[1.0]), 0).map(drop)
    });
    for outcome in outcomes {
        let text = outcome.expect_err("it is of another device").to_string();
        assert!(
            text.contains("send") && text.contains("expected tensors of"),
            "{text}"
        );
    }
}

#[test]
fn a_rank_that_stalls_is_named_and_the_others_are_told() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let over = Arc::new(AtomicBool::new(false));
    let seen = over.clone();
    let options = StrictOptions {
        deadline: Duration::from_millis(300),
        ..StrictOptions::default()
    };
    let outcomes = run_each(3, &options, move |group| {
        while group.rank() == 2 && !seen.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        group.barrier()
    });
    over.store(true, Ordering::Release);
    for (rank, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.expect_err("nobody passes");
        assert_eq!(error.culprit(), Some(2), "{error}");
        assert!(
            rank == 2 || matches!(error, Error::PeerLost { .. }),
            "{error}"
        );
    }
}
