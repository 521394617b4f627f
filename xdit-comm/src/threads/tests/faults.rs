//! A thousand faults: whatever a rank does wrong, wherever, everybody is told who it was, and soon.
//!
//! Every case is a fault proper: nobody can pass the end of its program without the rank that fails.

use super::{one, spec};
use crate::{
    Error, Group, Pending, ReduceOp, Result,
    threads::{Options, run_each},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use xdit_kernels::{DType, Device, Tensor};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// Its work returns an error.
    Error,
    Panic,
    /// An allocation that no machine can serve.
    Memory,
    /// It returns as if it were done.
    Leaves,
    /// Until the others have given up.
    Stall,
    /// Until the caller has gone on without it.
    Endless,
}

impl Fault {
    fn waits(self) -> bool {
        matches!(self, Self::Stall | Self::Endless)
    }
}

/// Where in a step a rank fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Place {
    /// Before it.
    Between,
    /// While operations that it has started are in flight.
    Started,
    /// In a group split off, which others have joined.
    Split,
}

/// A random but agreed program, and who fails where in it.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) world_size: usize,
    program: Vec<usize>,
    at: usize,
    culprits: Vec<(usize, Fault)>,
    place: Place,
}

/// splitmix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

impl Case {
    pub(super) fn draw(seed: usize, faults: &[Fault]) -> Self {
        let mut dice = Dice(seed as u64);
        let world_size = 2 + dice.below(4);
        let program: Vec<usize> = (0..1 + dice.below(7)).map(|_| dice.below(70)).collect();
        let first = dice.below(world_size);
        let culprits = faults.iter().enumerate();
        Self {
            at: dice.below(program.len()),
            place: [Place::Between, Place::Started, Place::Split][seed % 3],
            culprits: culprits
                .map(|(i, fault)| ((first + i) % world_size, *fault))
                .collect(),
            world_size,
            program,
        }
    }
}

/// One step that all ranks take together.
fn step(group: &Group, kind: usize) -> Result<()> {
    started(group, kind)?
        .into_iter()
        .try_for_each(|pending| pending.wait().map(drop))
}

/// Its operations, none of them waited for.
fn started(group: &Group, kind: usize) -> Result<Vec<Pending>> {
    let (n, me, t) = (group.world_size(), group.rank(), one());
    let (next, prev, root) = ((me + 1) % n, (me + n - 1) % n, kind / 10 % n);
    let all = vec![spec(); n];
    let alone = me == root;
    Ok(match kind % 10 {
        0 => vec![group.start_barrier()?],
        1 => vec![group.start_all_reduce(&t, ReduceOp::Sum)?],
        2 => vec![group.start_all_gather(&t, &all)?],
        3 => vec![group.start_all_to_all(vec![t; n], &all)?],
        4 => vec![group.start_send_recv(&t, next, spec(), prev)?],
        5 => vec![group.start_broadcast(alone.then_some(&t), spec(), root)?],
        6 => vec![group.start_scatter(alone.then(|| vec![t; n]), spec(), root)?],
        7 => vec![group.start_gather(&t, &all, root)?],
        8 => vec![group.start_reduce_scatter(vec![t; n], ReduceOp::Max)?],
        _ => vec![
            group.start_send_recv(&t, next, spec(), prev)?,
            group.start_all_gather(&t, &all)?,
            group.start_reduce_scatter(vec![t.clone(); n], ReduceOp::Sum)?,
        ],
    })
}

/// What tells a rank that waits for ever that the test is over.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) gave_up: AtomicUsize,
    pub(super) gone: AtomicBool,
}

fn fail(fault: Fault, others: usize, told: &Told) -> Result<bool> {
    let until = |over: &dyn Fn() -> bool| {
        while !over() {
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    match fault {
        Fault::Error => Err(Error::Kernel("injected".into())),
        // As a panic, without the message on stderr.
        Fault::Panic => std::panic::resume_unwind(Box::new("injected".to_owned())),
        Fault::Memory => {
            Tensor::zeros([1 << 46], DType::F32, &Device::cpu())?;
            Ok(true)
        }
        Fault::Leaves => Ok(false),
        Fault::Stall => {
            until(&|| {
                told.gave_up.load(Ordering::Acquire) >= others || told.gone.load(Ordering::Acquire)
            });
            Ok(true)
        }
        Fault::Endless => {
            until(&|| told.gone.load(Ordering::Acquire));
            Ok(true)
        }
    }
}

pub(super) fn rank(case: &Case, group: &Group, told: &Told) -> Result<()> {
    let own = case.culprits.iter().find(|(rank, _)| *rank == group.rank());
    let others = case.world_size - case.culprits.len();
    for (i, kind) in case.program.iter().enumerate() {
        let fault = own.filter(|_| i == case.at).map(|(_, fault)| *fault);
        // The culprit and its neighbours, or all: nobody is alone in it.
        let inner = match case.place {
            Place::Split if i == case.at => {
                Some(group.split(usize::from(case.world_size > 3 && group.rank() % 2 == 1), 0)?)
            }
            _ => None,
        };
        let at = inner.as_ref().unwrap_or(group);
        let pending = match (case.place, fault) {
            (Place::Started, Some(_)) => started(at, *kind)?,
            _ => vec![],
        };
        if let Some(fault) = fault
            && !fail(fault, others, told)?
        {
            return Ok(());
        }
        match pending.is_empty() {
            true => step(at, *kind)?,
            false => pending
                .into_iter()
                .try_for_each(|pending| pending.wait().map(drop))?,
        }
    }
    // Whatever the program was, nobody passes here without the culprit.
    group.barrier()
}

/// Injects the case's faults and judges what everybody is told.
fn inject(case: Case) {
    let stalls = case.culprits.iter().any(|(_, fault)| fault.waits());
    let mut options = Options::default();
    if stalls {
        // Long enough that a rank which is merely not scheduled on a busy machine is not taken for lost.
        options.deadline = Duration::from_millis(250);
        options.grace = Duration::from_millis(500);
    }
    let told = Arc::new(Told::default());
    let (shared, watch) = (case.clone(), told.clone());
    let start = Instant::now();
    let outcomes = run_each(case.world_size, options, move |group| {
        let outcome = rank(&shared, &group, &watch);
        watch.gave_up.fetch_add(1, Ordering::Release);
        outcome
    });
    let took = start.elapsed();
    told.gone.store(true, Ordering::Release);
    let limit = if stalls {
        options.deadline + options.grace
    } else {
        Duration::ZERO
    };
    // The rest is for a busy machine.
    assert!(
        took < limit + Duration::from_secs(5),
        "{case:?} took {took:?}"
    );
    let culprits: Vec<usize> = case.culprits.iter().map(|(rank, _)| *rank).collect();
    for (rank, outcome) in outcomes.into_iter().enumerate() {
        let own = case.culprits.iter().find(|(culprit, _)| *culprit == rank);
        match (outcome, own) {
            (Ok(()), Some((_, Fault::Leaves))) => {}
            (Ok(()), _) => panic!("rank {rank} passes {case:?}"),
            (Err(error), _) => {
                let named = error.culprit();
                assert!(
                    named.is_some_and(|named| culprits.contains(&named)),
                    "rank {rank}, {case:?}: {error}"
                );
                // Of two, one may hear of the other before it fails itself.
                let endless =
                    culprits.len() == 1 && own.is_some_and(|(_, fault)| *fault == Fault::Endless);
                let behind = error.to_string().ends_with("still runs and is left behind");
                assert!(!endless || behind, "rank {rank}, {case:?}: {error}");
            }
        }
    }
}

/// Faults that end at once, one after another.
fn each(seeds: std::ops::Range<usize>, faults: &[&[Fault]]) {
    for seed in seeds {
        for faults in faults {
            inject(Case::draw(seed, faults));
        }
    }
}

/// Faults that last: their ranks sleep, so that several worlds can at the same time.
fn together(seeds: std::ops::Range<usize>, faults: &[&[Fault]]) {
    let cases: Vec<Case> = seeds
        .flat_map(|seed| faults.iter().map(move |faults| Case::draw(seed, faults)))
        .collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    inject(case.clone());
                }
            });
        }
    });
}

// 4 · 180 + 2 · 108 + 4 · 24 = 1032 faults, which README.md states.

#[test]
fn what_fails_anywhere_is_named() {
    use Fault::{Error, Leaves, Memory, Panic};
    each(0..180, &[&[Error], &[Panic], &[Memory], &[Leaves]]);
}

#[test]
fn what_stalls_anywhere_is_named_at_the_deadline() {
    use Fault::{Endless, Stall};
    together(1000..1108, &[&[Stall], &[Endless]]);
}

#[test]
fn two_that_fail_anywhere_at_once_end_all_the_same() {
    use Fault::{Endless, Error, Memory, Panic, Stall};
    let pairs: [&[Fault]; 4] = [
        &[Error, Panic],
        &[Endless, Endless],
        &[Error, Endless],
        &[Stall, Memory],
    ];
    together(2000..2024, &pairs);
}
