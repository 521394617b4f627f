//! Runs that continue earlier ones, from what every stage received of their steps.

use crate::run::{Model, Plan, comm_error};
use crate::toy::{CHANNELS, Failure, ROW_TOKENS, ROWS, Toy, TwoStep, noise};
use std::collections::VecDeque;
use std::time::Duration;
use xdit_comm::strict::{self, StrictOptions};
use xdit_comm::threads::{self, Options};
use xdit_comm::{Call, Group, Op, Pending, Result, Spec};
use xdit_kernels::{Device, Tensor};
use xdit_pipefusion::{Driver, Kept, PatchPlan, Sampler, Schedule, Turn};

const STEPS: usize = 5;

/// What a finished step leaves, patch by patch.
#[derive(Debug, Clone)]
struct Left {
    finished: usize,
    latents: Vec<Tensor>,
    /// The state of the sampler.
    states: Vec<Option<Tensor>>,
}

/// A sampler that sends what each step leaves to the other stages.
struct Sending<'a> {
    own: TwoStep<'a>,
    begin: Left,
    states: Vec<Option<Tensor>>,
    /// The stages once more, and which of them has the sampler.
    stages: (Group, usize),
    under_way: VecDeque<(usize, Pending)>,
    left: Vec<Left>,
}

impl Sending<'_> {
    /// Exchanges latents and states. Looks at what came one step ago.
    fn exchange(&mut self, finished: usize, sent: Vec<Tensor>) -> Result<(), Failure> {
        self.collect(1)?;
        let root = self.stages.1;
        let specs = self.begin.latents.iter().map(Spec::of);
        let mut sent = sent.into_iter();
        let batch = specs.clone().chain(specs).map(|spec| Call {
            op: Op::Broadcast { root },
            gives: sent.next().into_iter().collect(),
            expects: vec![spec],
        });
        let begun = self.stages.0.start(batch.collect())?;
        self.under_way.push_back((finished, begun));
        Ok(())
    }

    fn collect(&mut self, left: usize) -> Result<(), Failure> {
        while self.under_way.len() > left {
            let (finished, begun) = self.under_way.pop_front().expect("some are left");
            let mut latents = begun.wait()?;
            let states = latents.split_off(latents.len() / 2);
            self.left.push(Left {
                finished,
                latents,
                states: states.into_iter().map(Some).collect(),
            });
        }
        Ok(())
    }
}

impl Sampler for Sending<'_> {
    type Error = Failure;
    type State = Option<Tensor>;

    fn begin(&self, first_step: usize, patch: usize) -> Self::State {
        assert_eq!(first_step, self.begin.finished);
        self.begin.states[patch].clone()
    }

    fn step(
        &mut self,
        turn: Turn,
        patch: usize,
        state: &mut Self::State,
        prediction: &Tensor,
        latents: &Tensor,
    ) -> Result<Tensor, Failure> {
        let stepped = self.own.step(turn, patch, state, prediction, latents)?;
        self.states[patch].clone_from(state);
        Ok(stepped)
    }

    fn step_end(&mut self, step: usize, latents: &[Tensor]) -> Result<(), Failure> {
        self.own.step_end(step - self.begin.finished, latents)?;
        let states = self.states.iter().flatten();
        self.exchange(step + 1, latents.iter().chain(states).cloned().collect())
    }

    fn step_over(&mut self, step: usize) -> Result<(), Failure> {
        self.exchange(step + 1, Vec::new())
    }
}

/// One stage of a run that continues after `begin`. Returns what all steps left there.
fn on_stage(plan: &Plan, begin: Left, pipe: Group) -> Result<Vec<Left>, Failure> {
    let patches = PatchPlan::new(ROWS, ROW_TOKENS, plan.patches)?;
    let kept = Kept::default();
    let hook = || Box::new(|_, _| Ok(()));
    let u_shaped = plan.model != Model::Straight;
    let stages = plan.model.stages(plan.stages)?;
    let mut stage = Toy::new(patches, stages, u_shaped, pipe.rank(), &kept, hook());
    let beside = pipe.split(0, pipe.rank())?;
    let mut sampler = Sending {
        own: TwoStep {
            hook: hook(),
            images: Vec::new(),
        },
        states: begin.states.clone(),
        begin: begin.clone(),
        stages: (beside, plan.end()),
        under_way: VecDeque::new(),
        left: Vec::new(),
    };
    let schedule = Schedule {
        steps: plan.steps,
        warmup_steps: plan.warmup_steps,
        patches: plan.patches,
    };
    let mut driver = Driver::new(schedule)
        .pipe(pipe)
        .placement(plan.model.placement())
        .kept(kept)
        .first_step(begin.finished);
    driver.max_drift = plan.max_drift;
    let (_, report) = driver.run(&mut stage, &mut sampler, begin.latents)?;
    sampler.collect(0)?;
    assert_eq!(report.drift.len(), plan.steps);
    assert!(report.drift[..begin.finished].iter().all(Option::is_none));
    assert_eq!(
        report.whole.first(),
        Some(&begin.finished).filter(|first| **first < plan.steps)
    );
    Ok(sampler.left)
}

/// The latents before the first step.
fn start(plan: &Plan) -> Left {
    let patches = PatchPlan::new(ROWS, ROW_TOKENS, plan.patches).expect("patches");
    let noise = noise(1);
    let rows = (0..plan.patches).map(|patch| patches.tokens(patch));
    let latents = rows.map(|rows| {
        let values = &noise[rows.start * CHANNELS..rows.end() * CHANNELS];
        Tensor::from_slice(values, [1, rows.len, CHANNELS], &Device::cpu()).expect("latents")
    });
    Left {
        finished: 0,
        latents: latents.collect(),
        states: vec![None; plan.patches],
    }
}

/// What each stage has of all steps, on threads or on the backend without receives ahead.
fn stages(plan: Plan, begin: &Left, without_receives_ahead: Option<u64>) -> Vec<Vec<Left>> {
    let begin = begin.clone();
    let work = move |pipe| on_stage(&plan, begin.clone(), pipe).map_err(comm_error);
    let done = match without_receives_ahead {
        None => threads::run_each(plan.stages, Options::default(), work),
        Some(seed) => {
            let options = StrictOptions {
                delay: Duration::from_micros(150),
                ..StrictOptions::seed(seed)
            };
            strict::run_each(plan.stages, &options, work)
        }
    };
    let done = done.into_iter();
    done.map(|left| left.unwrap_or_else(|error| panic!("{plan:?}: {error}")))
        .collect()
}

fn values(tensors: &[Tensor]) -> Vec<f32> {
    let values = tensors.iter().map(|x| x.to_vec_blocking::<f32>().unwrap());
    values.collect::<Vec<_>>().concat()
}

/// The latents after each step. Every stage has all of them.
fn latents(left: &[Vec<Left>]) -> Vec<Vec<f32>> {
    let of = |left: &[Left]| left.iter().map(|left| values(&left.latents)).collect();
    let first: Vec<Vec<f32>> = of(&left[0]);
    for other in left {
        assert_eq!(first, of(other));
    }
    first
}

fn plans(patches: usize, warmup_steps: usize, max_drift: Option<f32>) -> Vec<Plan> {
    let of = |(model, stages)| Plan {
        stages,
        patches,
        steps: STEPS,
        warmup_steps,
        max_drift,
        model,
    };
    Model::all().map(of).collect()
}

#[test]
fn an_exact_run_continues_to_the_bit_on_any_number_of_stages() {
    for (patches, warmup_steps) in [(1, 0), (3, STEPS)] {
        // The values do not depend on the number of stages, but on the model.
        for plan in plans(patches, warmup_steps, None) {
            let seed = (plan.stages > 2).then_some(plan.stages as u64);
            let all = stages(plan, &start(&plan), seed);
            let want = latents(&all);
            assert_eq!(want.len(), STEPS);
            for (step, left) in all[0].iter().enumerate() {
                assert_eq!(left.finished, step + 1);
                let others = Plan {
                    stages: 1 + (plan.stages + step) % 4,
                    ..plan
                };
                for seed in [None, Some(step as u64)] {
                    let got = latents(&stages(others, left, seed));
                    assert_eq!(got, want[step + 1..], "{plan:?} after {step}: {others:?}");
                }
            }
        }
    }
}

#[test]
fn a_stale_run_continues_alike_on_every_backend() {
    for max_drift in [None, Some(0.0), Some(f32::INFINITY)] {
        for plan in plans(3, 1, max_drift) {
            let all = stages(plan, &start(&plan), None);
            for left in [&all[0][0], &all[0][2], &all[0][STEPS - 1]] {
                let ahead = latents(&stages(plan, left, None));
                let strict = latents(&stages(plan, left, Some(plan.stages as u64)));
                assert_eq!(ahead, strict, "{plan:?} after {}", left.finished);
                assert_eq!(ahead.len(), STEPS - left.finished);
            }
        }
    }
}
