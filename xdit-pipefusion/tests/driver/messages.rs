//! A fault at any message of a pipeline, at its start or during its wait. All ranks get the number of the failed rank.

use crate::run::{Groups, Model, Plan, comm_error, no_hooks, on_rank};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use xdit_comm::threads::{Options, run_each};
use xdit_comm::{Backend, Call, Error, Group, Result, Ticket};
use xdit_kernels::{DType, Device, Tensor};
use xdit_pipefusion::Placement;

const PLANS: [Plan; 4] = [
    Plan {
        stages: 3,
        patches: 3,
        steps: 3,
        warmup_steps: 1,
        max_drift: None,
        model: Model::Straight,
    },
    Plan {
        stages: 2,
        patches: 4,
        steps: 4,
        warmup_steps: 0,
        max_drift: Some(f32::INFINITY),
        model: Model::Straight,
    },
    Plan {
        stages: 4,
        patches: 2,
        steps: 3,
        warmup_steps: 0,
        max_drift: None,
        model: Model::UShaped(Placement::Linear),
    },
    Plan {
        stages: 3,
        patches: 3,
        steps: 3,
        warmup_steps: 0,
        max_drift: Some(f32::INFINITY),
        model: Model::UShaped(Placement::Folded),
    },
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Error,
    Panic,
    /// An allocation that no machine can serve.
    Memory,
    /// Until the caller has gone.
    Endless,
}

/// At which call of a rank what happens; starts and waits are counted together.
#[derive(Debug, Clone)]
struct Trap {
    at: Option<(usize, Fault)>,
    calls: Arc<AtomicUsize>,
    gone: Arc<AtomicBool>,
}

impl Trap {
    fn call(&self) -> Result<()> {
        let now = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.at {
            Some((at, fault)) if at == now => match fault {
                Fault::Error => Err(Error::Kernel("injected".into())),
                // As a panic, without the message on stderr.
                Fault::Panic => std::panic::resume_unwind(Box::new("injected".to_owned())),
                Fault::Memory => {
                    Ok(Tensor::zeros([1 << 46], DType::F32, &Device::cpu()).map(drop)?)
                }
                Fault::Endless => {
                    while !self.gone.load(Ordering::Acquire) {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(Error::Kernel("injected".into()))
                }
            },
            _ => Ok(()),
        }
    }
}

/// A group with a trap.
#[derive(Debug)]
struct Trapped {
    group: Group,
    trap: Trap,
}

impl Backend for Trapped {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn world_size(&self) -> usize {
        self.group.world_size()
    }

    fn device(&self) -> Option<&Device> {
        self.group.device()
    }

    fn receives_ahead(&self) -> bool {
        self.group.receives_ahead()
    }

    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Ticket>> {
        self.trap.call()?;
        let (ticket, trap) = (self.group.backend().start(batch)?, self.trap.clone());
        Ok(Box::new(Waited { ticket, trap }))
    }

    fn start_control(
        &self,
        bytes: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<Box<dyn Ticket<Vec<Vec<u8>>>>> {
        self.trap.call()?;
        let ticket = self.group.backend().start_control(bytes, deadline)?;
        let trap = self.trap.clone();
        Ok(Box::new(Waited { ticket, trap }))
    }

    fn fail(&self, reason: &str) {
        self.group.backend().fail(reason);
    }

    fn split(&self, _color: usize, _key: usize) -> Result<Box<dyn Backend>> {
        Err(Error::Kernel("a pipeline does not split".into()))
    }
}

#[derive(Debug)]
struct Waited<T> {
    ticket: Box<dyn Ticket<T>>,
    trap: Trap,
}

impl<T: std::fmt::Debug> Ticket<T> for Waited<T> {
    fn wait(self: Box<Self>) -> Result<T> {
        self.trap.call()?;
        self.ticket.wait()
    }
}

/// What each rank returns, and how many calls it made.
fn run(plan: Plan, trap: Option<(usize, usize, Fault)>) -> Vec<(Result<()>, usize)> {
    let calls: Vec<Arc<AtomicUsize>> = (0..plan.stages).map(|_| Arc::default()).collect();
    let gone = Arc::new(AtomicBool::new(false));
    let mut options = Options::default();
    if matches!(trap, Some((_, _, Fault::Endless))) {
        // Long enough that a rank which is merely not scheduled on a busy machine is not taken for lost.
        options.deadline = Duration::from_millis(300);
    }
    let (counted, over) = (calls.clone(), gone.clone());
    let began = Instant::now();
    let outcomes = run_each(plan.stages, options, move |group| {
        let rank = group.rank();
        let trap = Trap {
            at: trap.and_then(|(culprit, at, fault)| (culprit == rank).then_some((at, fault))),
            calls: counted[rank].clone(),
            gone: over.clone(),
        };
        let trapped = Trapped {
            group: group.clone(),
            trap,
        };
        let pipe = Group::new(Box::new(trapped));
        on_rank(&plan, 1, Groups::stages(pipe), no_hooks(), 0).map_err(comm_error)?;
        // Nobody passes here without the culprit, whoever needed its message.
        group.barrier()
    });
    gone.store(true, Ordering::Release);
    // Far below the minute after which a silent rank is given up.
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{plan:?} {trap:?}"
    );
    let calls = calls.iter().map(|calls| calls.load(Ordering::Relaxed));
    outcomes.into_iter().zip(calls).collect()
}

/// Faults of these kinds in turn, at every so many-th call of every rank; how many there were.
fn at_calls(stride: usize, faults: &[Fault]) -> usize {
    let cases: Vec<_> = PLANS
        .into_iter()
        .flat_map(|plan| {
            let calls = run(plan, None).into_iter().enumerate();
            calls.flat_map(move |(rank, (outcome, calls))| {
                outcome.expect("nothing is injected");
                (rank % stride..calls)
                    .step_by(stride)
                    .map(move |at| (plan, rank, at))
            })
        })
        .collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((plan, culprit, at)) = cases.get(index).copied() else {
                        break;
                    };
                    let fault = faults[index % faults.len()];
                    for (rank, (outcome, _)) in run(plan, Some((culprit, at, fault)))
                        .into_iter()
                        .enumerate()
                    {
                        let error = outcome.expect_err("nobody ends without the culprit");
                        let text =
                            format!("{plan:?} {culprit} {at} {fault:?}, rank {rank}: {error}");
                        assert_eq!(error.culprit(), Some(culprit), "{text}");
                        let own = matches!(error, Error::Rank { .. });
                        assert_eq!(own, rank == culprit, "{text}");
                        assert_eq!(error.is_stall(), fault == Fault::Endless, "{text}");
                    }
                }
            });
        }
    });
    cases.len()
}

#[test]
fn a_fault_at_any_message_is_named_by_all() {
    let count = at_calls(1, &[Fault::Error, Fault::Panic, Fault::Memory]);
    // README.md states it.
    assert_eq!(count, 338);
}

#[test]
fn a_rank_that_never_returns_from_a_message_is_named_by_all() {
    let count = at_calls(9, &[Fault::Endless]);
    assert_eq!(count, 40);
}
