//! Ranks that are threads: their work, their failures, and that they stay.

use std::time::Duration;

use xdit_kernels::Tensor;
use xdit_pipefusion::{Part, PatchPlan};

use super::*;
use crate::error::ErrorCategory;

/// A call on ranks of its own.
fn run<T: Send + 'static>(
    parallel: &Parallel,
    threads: usize,
    work: impl Fn(&RankContext, &mut dyn Observer) -> Result<T> + Send + Sync + 'static,
    observer: &mut dyn Observer,
) -> Result<Vec<T>> {
    let run_on = RunOn {
        parallel,
        threads,
        device: &Device::cpu(),
        idle: &IdleRanks::default(),
    };
    run_on.run(Placement::Linear, None, work, observer)
}

fn two_by_two() -> Parallel {
    Parallel::threads(Degrees {
        ring: 2,
        ulysses: 2,
        ..Degrees::default()
    })
    .deadline(Duration::from_secs(5))
}

/// Of a stream of four.
fn first_row(rank_context: &RankContext) -> usize {
    let patches = PatchPlan::new(1, 1, 1).unwrap();
    rank_context
        .layout(4, patches)
        .text(Part::Whole)
        .unwrap()
        .start
}

/// The text of four tokens, each rank giving one.
fn gather(rank_context: &RankContext) -> Result<Tensor> {
    let patches = PatchPlan::new(4, 1, 1).unwrap();
    let mine = Tensor::from_slice(&[0f32], [1, 1], &Device::cpu())?;
    rank_context.gather(&rank_context.layout(1, patches), &[mine])
}

#[test]
fn threads_are_dealt_out() {
    let threads = run(
        &two_by_two(),
        6,
        |_, _| Ok(rayon::current_num_threads()),
        &mut (),
    )
    .unwrap();
    assert_eq!(threads, [2, 2, 1, 1]);
    let fewer = run(
        &two_by_two(),
        1,
        |_, _| Ok(rayon::current_num_threads()),
        &mut (),
    )
    .unwrap();
    assert_eq!(fewer, [1; 4]);
}

#[test]
fn the_rank_that_fails_is_named_with_its_place() {
    let fail = |rank_context: &RankContext, _: &mut dyn Observer| match first_row(rank_context) {
        3 => Err(Error::OutOfMemory {
            what: "a test".into(),
            bytes: 7,
            available: None,
            cure: String::new(),
        }),
        _ => gather(rank_context),
    };
    let error = run(&two_by_two(), 1, fail, &mut ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rank 3 (ring 1, ulysses 1): out of memory: a test needs 7 B"
    );
    assert_eq!(error.category(), ErrorCategory::OutOfMemory);
}

#[test]
fn a_rank_that_panics_is_named_too() {
    let panics = |rank_context: &RankContext, _: &mut dyn Observer| {
        assert!(first_row(rank_context) != 2, "as planned");
        gather(rank_context)
    };
    let error = run(&two_by_two(), 1, panics, &mut ()).unwrap_err();
    let message = error.to_string();
    assert!(
        message == "rank 2 (ring 1, ulysses 0): panicked: as planned",
        "{message}"
    );
    assert_eq!(error.category(), ErrorCategory::RankLost);
}

/// Knows on which thread it is called; not `'static`.
struct Here<'a>(&'a mut Vec<String>, std::thread::ThreadId);

impl Observer for Here<'_> {
    fn warning(&mut self, text: &str) {
        assert_eq!(std::thread::current().id(), self.1);
        // Longer than the deadline below: that of the ranks does not run meanwhile.
        std::thread::sleep(Duration::from_millis(600));
        self.0.push(text.to_owned());
    }
}

#[test]
fn the_observer_is_served_where_the_caller_is() {
    let mut told = Vec::new();
    let work = |rank_context: &RankContext, observer: &mut dyn Observer| {
        observer.warning(&format!("{:?}", rank_context.leads()));
        gather(rank_context).map(drop)
    };
    let parallel = two_by_two().deadline(Duration::from_millis(300));
    let observer = &mut Here(&mut told, std::thread::current().id());
    run(&parallel, 4, work, observer).unwrap();
    assert_eq!(told, ["true"], "of the first rank alone");
}

#[test]
fn a_rank_that_never_ends_is_named_and_left_behind() {
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = over.clone();
    let stalls = move |rank_context: &RankContext, _: &mut dyn Observer| {
        while first_row(rank_context) == 1 && !seen.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        gather(rank_context).map(drop)
    };
    let parallel = two_by_two().deadline(Duration::from_millis(300));
    let error = run(&parallel, 4, stalls, &mut ()).unwrap_err();
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    let message = error.to_string();
    assert!(
        message.starts_with("rank 1 (ring 0, ulysses 1): no progress for ")
            && message.ends_with("left behind"),
        "{message}"
    );
    assert!(error.is_stall());
    assert_eq!(error.category(), ErrorCategory::RankLost);
}

#[test]
fn ranks_keep_threads_and_pools_and_one_that_is_left_behind_is_replaced() {
    let idle = IdleRanks::default();
    let parallel = two_by_two();
    // The thread that each rank computes on.
    let threads = |parallel: &Parallel| {
        let work = |rank_context: &RankContext, _: &mut dyn Observer| {
            gather(rank_context)?;
            Ok(std::thread::current().id())
        };
        let run_on = RunOn {
            parallel,
            threads: 4,
            device: &Device::cpu(),
            idle: &idle,
        };
        run_on.run(Placement::Linear, None, work, &mut ()).unwrap()
    };
    let first = threads(&parallel);
    assert_eq!(threads(&parallel), first);
    // Another plan of as many ranks.
    let ring = Parallel::threads(Degrees {
        ring: 4,
        ..Degrees::default()
    });
    assert_eq!(threads(&ring), first);
    assert_eq!(threads(&parallel), first);
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = over.clone();
    let stalls = move |rank_context: &RankContext, _: &mut dyn Observer| {
        while first_row(rank_context) == 1 && !seen.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        gather(rank_context).map(drop)
    };
    let short = two_by_two().deadline(Duration::from_millis(300));
    let run_on = RunOn {
        parallel: &short,
        threads: 4,
        device: &Device::cpu(),
        idle: &idle,
    };
    let error = run_on
        .run(Placement::Linear, None, stalls, &mut ())
        .unwrap_err();
    assert!(error.is_stall(), "{error}");
    let second = threads(&parallel);
    for rank in [0, 2, 3] {
        assert_eq!(second[rank], first[rank], "of a rank that came back");
    }
    assert_ne!(second[1], first[1], "the old one is still at work");
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(threads(&parallel), second);
}

#[test]
fn what_ranks_send_is_counted_call_by_call() {
    let idle = IdleRanks::default();
    let parallel = two_by_two();
    let run_on = RunOn {
        parallel: &parallel,
        threads: 4,
        device: &Device::cpu(),
        idle: &idle,
    };
    for _ in 0..3 {
        let work = |rank_context: &RankContext, _: &mut dyn Observer| {
            gather(rank_context)?;
            Ok(rank_context.stats().unwrap())
        };
        for stats in run_on.run(Placement::Linear, None, work, &mut ()).unwrap() {
            let counted: Vec<_> = stats
                .iter()
                .map(|(op, total)| (op.0, total.calls))
                .collect();
            assert_eq!(counted, [("all_gather", 1)]);
        }
    }
}
