//! Ranks that serve call after call: what they keep, and that a call which failed does not matter to the next.

use super::{
    errors,
    faults::{Case, Fault, Told, rank},
    one, spec,
};
use crate::{
    Error, Group, ReduceOp, Result, conformance,
    threads::{Caller, Options, RankState, Ranks},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::ThreadId,
    time::{Duration, Instant},
};
use xdit_kernels::{Device, Tensor};

/// What a test sees a rank keep.
#[derive(Debug, Default)]
struct Seen {
    calls: usize,
    renewed: usize,
    /// Pairs of ranks, split from the group.
    pair: Option<Group>,
    /// Shared with whoever counts these.
    alive: Option<Arc<()>>,
}

impl RankState for Seen {
    fn group_renewed(&mut self) {
        self.renewed += 1;
        self.pair = None;
    }
}

type Kept = (ThreadId, usize, usize);

/// A call in which every rank meets all others, on its group and on one kept from call to call: its thread, and how many calls and
/// groups it has seen.
fn meet(ranks: &mut Ranks<Seen>) -> Vec<Kept> {
    let world_size = ranks.world_size();
    let work = move |group: &Group, seen: &mut Seen, _: Caller<()>| {
        let all = group
            .all_reduce(&one(), ReduceOp::Sum)?
            .to_vec_blocking::<f32>()
            .unwrap();
        assert_eq!(all, [world_size as f32]);
        let pair = match seen.pair.take() {
            Some(pair) => pair,
            None => group.split(group.rank() / 2, 0)?,
        };
        let number = Tensor::from_slice(&[group.rank() as f32], [1], &Device::cpu())?;
        let numbers = pair.all_gather(&number, &vec![spec(); pair.world_size()])?;
        assert_eq!(
            numbers[pair.rank()].to_vec_blocking::<f32>().unwrap(),
            [group.rank() as f32],
            "of this call"
        );
        seen.pair = Some(pair);
        seen.calls += 1;
        Ok((std::thread::current().id(), seen.calls, seen.renewed))
    };
    let outcomes = ranks.call(work, |()| {});
    outcomes
        .into_iter()
        .map(|outcome| outcome.expect("nothing fails"))
        .collect()
}

fn silent<T>(
    work: impl Fn(&Group) -> Result<T> + Send + Sync + 'static,
) -> impl Fn(&Group, &mut Seen, Caller<()>) -> Result<T> + Send + Sync + 'static {
    move |group, _, _| work(group)
}

/// Until `done` says so; the system ends threads in its own time.
fn soon(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn threads_groups_and_state_stay() {
    let mut ranks = Ranks::new(3, Options::default());
    let first = meet(&mut ranks);
    for calls in 2..20 {
        for (rank, (thread, seen, renewed)) in meet(&mut ranks).into_iter().enumerate() {
            assert_eq!((thread, seen, renewed), (first[rank].0, calls, 0));
        }
    }
}

#[test]
fn one_after_another_the_promises_hold_on_the_same_ranks() {
    // miri takes minutes for three ranks.
    let world_size = if cfg!(miri) { 2 } else { 3 };
    let mut ranks = Ranks::<Seen>::new(world_size, Options::default());
    for (name, check) in conformance::CHECKS {
        let outcomes = ranks.call(silent(check), |()| {});
        for outcome in outcomes {
            outcome.unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

#[test]
fn what_a_call_leaves_behind_does_not_reach_the_next() {
    let mut ranks = Ranks::<Seen>::new(2, Options::default());
    let number = |x: f32| Tensor::from_slice(&[x], [1], &Device::cpu()).expect("one number");
    meet(&mut ranks);
    // A message that nobody receives, and a receive that nobody waits for.
    for leaves in [0, 1] {
        let leave = silent(move |group: &Group| {
            match leaves == group.rank() {
                true => drop(group.start_send(&number(7.0), 1 - leaves)?),
                false if leaves == 1 => drop(group.start_recv(spec(), 1)?),
                false => {}
            }
            group.barrier()
        });
        let outcomes = ranks.call(leave, |()| {});
        outcomes.into_iter().for_each(|o| o.expect("nothing fails"));
        let next = silent(move |group: &Group| match group.rank() {
            0 => group.send(&number(8.0), 1).map(|()| vec![]),
            _ => Ok(group.recv(spec(), 0)?.to_vec_blocking::<f32>().unwrap()),
        });
        let mut outcomes = ranks.call(next, |()| {});
        let received = outcomes.pop().expect("two ranks").expect("nothing fails");
        assert_eq!(received, [8.0]);
    }
    assert!(meet(&mut ranks).iter().all(|(_, calls, _)| *calls == 2));
}

#[test]
fn after_each_kind_of_failure_the_next_call_works() {
    let mut ranks = Ranks::new(3, Options::default());
    let first = meet(&mut ranks);
    for (before, how) in ["error", "panic", "leaves", "disagrees"]
        .into_iter()
        .enumerate()
    {
        let fails = silent(move |group: &Group| match (group.rank(), how) {
            (1, "error") => Err(Error::Kernel("injected".into())),
            // As a panic, without the message on stderr.
            (1, "panic") => std::panic::resume_unwind(Box::new("injected".to_owned())),
            (1, "leaves") => Ok(()),
            (1, "disagrees") => group.all_reduce(&one(), ReduceOp::Sum).map(drop),
            _ => group.barrier(),
        });
        let outcomes = ranks.call(fails, |()| {});
        assert!(outcomes[0].is_err() && outcomes[2].is_err(), "{how}");
        let after = meet(&mut ranks);
        for rank in [0, 2] {
            let kept = (first[rank].0, before + 2, before + 1);
            assert_eq!(after[rank], kept, "rank {rank} after {how}");
        }
        assert_eq!(after[1].0, first[1].0, "its thread after {how}");
        // A state that a panic may have left half changed is given up.
        assert_eq!(after[1].1 == 1, how == "panic", "its state after {how}");
    }
}

#[test]
fn who_was_left_behind_is_replaced_and_ends_quietly() {
    let options = Options {
        deadline: Duration::from_millis(300),
        grace: Duration::from_millis(300),
    };
    let mut ranks = Ranks::new(2, options);
    let first = meet(&mut ranks);
    let over = Arc::new(AtomicBool::new(false));
    let (late, alive) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
    let (seen, told, held) = (over.clone(), late.clone(), alive.clone());
    let stalls = move |group: &Group, state: &mut Seen, _: Caller<()>| {
        state.alive = Some(held.clone());
        while group.rank() == 1 && !seen.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if group.rank() == 1 {
            // It knows nothing yet, and goes on as it was told.
            assert!(group.send(&one(), 0).is_err(), "the call is long over");
            assert!(group.split(0, 0).is_err());
            told.fetch_add(1, Ordering::Release);
        }
        group.barrier()
    };
    let outcomes = ranks.call(stalls, |()| {});
    for error in errors(outcomes) {
        assert!(error.is_stall() && error.culprit() == Some(1), "{error}");
    }
    let second = meet(&mut ranks);
    assert_eq!(second[0], (first[0].0, 2, 1));
    assert_ne!(second[1].0, first[1].0, "another thread");
    assert_eq!(
        (second[1].1, second[1].2),
        (1, 0),
        "which has everything before it"
    );
    // While the late rank wakes up, the others are at work: its message is not taken for one of theirs.
    let (seen, told) = (over.clone(), late.clone());
    let work = silent(move |group: &Group| {
        let pending = match group.rank() {
            0 => Some(group.start_recv(spec(), 1)?),
            _ => None,
        };
        seen.store(true, Ordering::Release);
        while told.load(Ordering::Acquire) == 0 {
            group.progress()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        match pending {
            Some(pending) => Ok(pending.wait_one()?.to_vec_blocking::<f32>().unwrap()),
            None => group
                .send(&Tensor::from_slice(&[5f32], [1], &Device::cpu())?, 0)
                .map(|()| vec![]),
        }
    });
    let mut outcomes = ranks.call(work, |()| {}).into_iter();
    let received = outcomes.next().expect("two ranks").expect("nothing fails");
    assert_eq!(received, [5.0]);
    assert_eq!(meet(&mut ranks), [(second[0].0, 3, 1), (second[1].0, 2, 0)]);
    // The late thread has ended and let its state go; rank 0 keeps its own, and the test has one.
    soon("the late thread keeps its state", || {
        Arc::strong_count(&alive) == 2
    });
}

#[test]
fn dropping_ends_the_threads_and_waits_for_none() {
    let options = Options {
        deadline: Duration::from_millis(300),
        grace: Duration::ZERO,
    };
    let over = Arc::new(AtomicBool::new(false));
    let alive = Arc::new(());
    let mut ranks = Ranks::new(3, options);
    let (seen, held) = (over.clone(), alive.clone());
    let stalls = move |group: &Group, state: &mut Seen, _: Caller<()>| {
        state.alive = Some(held.clone());
        while group.rank() == 1 && !seen.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    assert!(ranks.call(stalls, |()| {})[1].is_err());
    drop(ranks);
    // The work is held by the rank that is still at it.
    soon("idle threads end", || Arc::strong_count(&alive) == 3);
    over.store(true, Ordering::Release);
    soon("the late one ends too", || Arc::strong_count(&alive) == 1);
}

#[test]
fn a_caller_that_panics_takes_no_rank_with_it() {
    let mut ranks = Ranks::<Seen>::new(2, Options::default());
    meet(&mut ranks);
    let tells = |group: &Group, _: &mut Seen, caller: Caller<()>| {
        caller.send(());
        group.barrier()
    };
    let serve = |()| std::panic::resume_unwind(Box::new("injected"));
    let call = std::panic::AssertUnwindSafe(|| ranks.call(tells, serve));
    assert!(std::panic::catch_unwind(call).is_err());
    assert!(meet(&mut ranks).iter().all(|(_, calls, _)| *calls == 1));
}

/// One world of each size serves faults of all kinds, one after another, and a good call after each.
#[test]
fn a_fault_anywhere_leaves_the_next_call_working() {
    use Fault::{Endless, Leaves, Memory, Panic, Stall};
    let mut worlds = BTreeMap::new();
    for seed in 3000..3120 {
        let fault = match seed % 15 {
            0 => Stall,
            1 => Endless,
            other => [Fault::Error, Panic, Memory, Leaves][other % 4],
        };
        let case = Case::draw(seed, &[fault]);
        let options = Options {
            deadline: match fault {
                Stall | Endless => Duration::from_millis(100),
                _ => Options::default().deadline,
            },
            grace: Duration::from_millis(500),
        };
        let ranks = worlds
            .entry(case.world_size)
            .or_insert_with(|| Ranks::<Seen>::new(case.world_size, options));
        ranks.set_options(options);
        let told = Arc::new(Told::default());
        let (shared, watch) = (case.clone(), told.clone());
        let work = silent(move |group: &Group| {
            let outcome = rank(&shared, group, &watch);
            watch.gave_up.fetch_add(1, Ordering::Release);
            outcome
        });
        let outcomes = ranks.call(work, |()| {});
        assert!(outcomes.iter().any(Result::is_err), "{case:?}");
        ranks.set_options(Options::default());
        meet(ranks);
        // Only now those that were left behind come back.
        told.gone.store(true, Ordering::Release);
        meet(ranks);
    }
}
