//! With a delay anywhere, a run ends with the same values.

use crate::naive::simulate;
use crate::run::{Groups, Model, Plan, comm_error, distance, on_rank};
use crate::toy::{Hook, noise};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;
use xdit_comm::threads::{Options, run_each};
use xdit_comm::{Backend, Call, Error, Group, Result, Ticket};
use xdit_kernels::Device;

/// How long a rank takes, each time anew: mostly nothing, sometimes long enough for the others to overtake it.
#[derive(Debug, Clone)]
struct Dice(Arc<AtomicU64>);

impl Dice {
    fn of(seed: u64, rank: usize) -> Self {
        Self(Arc::new(AtomicU64::new(seed ^ ((rank as u64 + 1) << 40))))
    }

    fn wait(&self) {
        let odd = 0x9e37_79b9_7f4a_7c15;
        let roll = self.0.fetch_add(odd, Ordering::Relaxed).wrapping_mul(odd);
        let roll = (roll ^ (roll >> 31)).wrapping_mul(odd) >> 40;
        if roll % 3 == 0 {
            sleep(Duration::from_micros(roll / 3 % 800));
        }
    }
}

/// A group that dawdles before every call and every wait.
#[derive(Debug)]
struct Dawdling {
    group: Group,
    dice: Dice,
}

impl Backend for Dawdling {
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
        self.dice.wait();
        let (ticket, dice) = (self.group.backend().start(batch)?, self.dice.clone());
        Ok(Box::new(Late { ticket, dice }))
    }

    fn start_control(
        &self,
        bytes: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<Box<dyn Ticket<Vec<Vec<u8>>>>> {
        self.dice.wait();
        let ticket = self.group.backend().start_control(bytes, deadline)?;
        let dice = self.dice.clone();
        Ok(Box::new(Late { ticket, dice }))
    }

    fn fail(&self, reason: &str) {
        self.group.backend().fail(reason);
    }

    fn progress(&self) -> Result<()> {
        self.group.progress()
    }

    fn split(&self, _color: usize, _key: usize) -> Result<Box<dyn Backend>> {
        Err(Error::Kernel("a pipeline does not split".into()))
    }
}

#[derive(Debug)]
struct Late<T> {
    ticket: Box<dyn Ticket<T>>,
    dice: Dice,
}

impl<T: std::fmt::Debug> Ticket<T> for Late<T> {
    fn wait(self: Box<Self>) -> Result<T> {
        self.dice.wait();
        self.ticket.wait()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn delays_anywhere_change_nothing(
        walk in 0..Model::all().count(),
        patches in 1usize..=7,
        steps in 0usize..=5,
        warmup_steps in 0usize..=6,
        limit in 0usize..3,
        seed in any::<u64>(),
    ) {
        let max_drift = [None, Some(0.0), Some(f32::INFINITY)][limit];
        let (model, stages) = Model::all().nth(walk).expect("one of them");
        let plan = Plan { stages, patches, steps, warmup_steps, max_drift, model };
        let deadline = Duration::from_secs(20);
        let outcomes = run_each(stages, Options::deadline(deadline), move |group| {
            let dice = Dice::of(seed, group.rank());
            let pipe = Group::new(Box::new(Dawdling { group, dice: dice.clone() }));
            let hooks: [Box<Hook<'_>>; 2] = [dice.clone(), dice].map(|dice| {
                Box::new(move |_, _| { dice.wait(); Ok(()) }) as Box<Hook<'_>>
            });
            on_rank(&plan, 1, Groups::stages(pipe), hooks, 0).map_err(comm_error)
        });
        let want = simulate(&plan, &noise(1));
        let mut last = None;
        for (stage, outcome) in outcomes.into_iter().enumerate() {
            let done = outcome.expect("it ends");
            prop_assert_eq!(&done.report.refreshed, &want.refreshed);
            if stage == plan.end() {
                last = Some(done);
            }
        }
        let last = last.expect("there is a stage");
        prop_assert_eq!(last.images.len(), steps);
        for (got, want) in last.images.iter().zip(&want.images) {
            prop_assert!(distance(got, want) <= 1e-6);
        }
    }
}
