//! A model that computes nothing and takes a given time.

use crate::clock::{Clock, Speed, Stamps, Timed};
use std::sync::Arc;
use xdit_comm::{Error, Group, Spec, Stats, threads};
use xdit_kernels::{DType, Device, Tensor};
use xdit_pipefusion::{Driver, Kept, Part, PatchPlan, Placement, Sampler, Schedule, Stage, Turn};

pub(crate) const TEXT: usize = 4;
/// Rows of one token.
pub(crate) const IMAGE: usize = 240;

/// Links, in units of a patch's compute on a stage of cost 1: how long a message is under way beyond its transfer, and how
/// long the hidden states of a patch keep a link busy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    latency: f64,
    transfer: f64,
    one_port: bool,
}

impl Pace {
    pub(crate) const fn new(latency: f64, transfer: f64) -> Self {
        Self {
            latency,
            transfer,
            one_port: false,
        }
    }

    /// The same where a rank has one link for all that comes to it.
    pub(crate) const fn through_one_port(self) -> Self {
        Self {
            one_port: true,
            ..self
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) patches: usize,
    /// Of each stage, on all its legs together.
    pub(crate) costs: Vec<f64>,
    pub(crate) placement: Placement,
    /// Tokens of text.
    pub(crate) text: usize,
    /// How many outputs of blocks each leg hands to each later one, where these are of different stages.
    pub(crate) skips: Vec<(usize, usize, usize)>,
    pub(crate) pace: Pace,
    pub(crate) steps: usize,
    pub(crate) warmup_steps: usize,
    pub(crate) posts_late: bool,
    pub(crate) max_drift: Option<f32>,
}

pub(crate) struct Outcome {
    /// Of each stage: its turns on its last leg and when it was done with each.
    pub(crate) turns: Vec<Vec<(Turn, f64)>>,
    /// The stage with the sampler.
    end: usize,
    /// Of each stage, on the links alone.
    pub(crate) stats: Vec<Stats>,
}

impl Outcome {
    /// How long a step takes when the pipeline is full: the mean of the second half of the steps, where the sampler is, without
    /// the last, during which a folded pipeline runs empty.
    pub(crate) fn step_time(&self) -> f64 {
        let turns = &self.turns[self.end];
        let end = |step| {
            let of_step = turns.iter().filter(|(turn, _)| turn.step == step);
            of_step.map(|(_, end)| *end).fold(0.0, f64::max)
        };
        let steps = turns.last().map_or(0, |(turn, _)| turn.step);
        (end(steps - 1) - end(steps / 2)) / (steps - 1 - steps / 2) as f64
    }
}

impl Case {
    /// Bytes of a token: hidden states are `[1, l, 16]`, latents `[1, l, 2]`, of f32.
    pub(crate) const HIDDEN: usize = 64;
    pub(crate) const LATENT: usize = 8;

    fn plan(&self) -> PatchPlan {
        PatchPlan::new(IMAGE, 1, self.patches).expect("rows enough")
    }

    /// Tokens of a part, text included.
    fn tokens(&self, part: Part) -> usize {
        let patches = part.patches(self.patches);
        let image: usize = patches.map(|patch| self.plan().tokens(patch).len).sum();
        image + if part.has_text() { self.text } else { 0 }
    }

    /// What so many tokens take on a stage of cost 1: the mean patch 1.
    pub(crate) fn token(&self, tokens: f64) -> f64 {
        tokens * self.patches as f64 / IMAGE as f64
    }

    pub(crate) fn compute(&self, cost: f64, patch: usize) -> f64 {
        cost * self.token(self.tokens(Part::Patch(patch)) as f64)
    }

    pub(crate) fn hidden_bytes(&self, patch: usize) -> f64 {
        (self.tokens(Part::Patch(patch)) * Self::HIDDEN) as f64
    }

    pub(crate) fn latent_bytes(&self, patch: usize) -> f64 {
        (self.plan().tokens(patch).len * Self::LATENT) as f64
    }

    pub(crate) fn latency(&self) -> f64 {
        self.pace.latency
    }

    /// Whether links take no time.
    pub(crate) fn is_free(&self) -> bool {
        self.pace.latency + self.pace.transfer == 0.0
    }

    pub(crate) fn byte(&self) -> f64 {
        self.pace.transfer / (IMAGE as f64 / self.patches as f64 * Self::HIDDEN as f64)
    }

    /// How long a message of a mean patch takes to arrive: of latents at the first stage, else of hidden states.
    pub(crate) fn transfer(&self, first: bool) -> f64 {
        let part = if first { Self::LATENT } else { Self::HIDDEN };
        self.pace.latency + self.pace.transfer * part as f64 / Self::HIDDEN as f64
    }

    pub(crate) fn run(&self) -> Outcome {
        let stamps: [Arc<Stamps>; 2] = Default::default();
        let speed = Speed {
            latency: self.latency(),
            byte: self.byte(),
            one_port: self.pace.one_port,
        };
        let case = self.clone();
        let ranks = threads::run(self.costs.len(), move |world| {
            let clock = Clock::default();
            let timed = |group: Group, stamps: &Arc<Stamps>| {
                Timed::new(group, clock.clone(), speed, stamps.clone())
            };
            let mut links = timed(world.split(0, world.rank())?, &stamps[0]);
            links.posts_late = case.posts_late;
            let pipe = Group::new(Box::new(links));
            let mut stage = Busy {
                case: &case,
                legs: case.placement.legs_of(world.rank(), case.costs.len()),
                cost: case.costs[world.rank()],
                clock: clock.clone(),
                turns: Vec::new(),
            };
            let driver = Driver {
                schedule: Schedule {
                    steps: case.steps,
                    warmup_steps: case.warmup_steps,
                    patches: case.patches,
                },
                pipe: Some(pipe.clone()),
                placement: case.placement,
                replica: Some(Group::new(Box::new(timed(world, &stamps[1])))),
                max_drift: case.max_drift,
                kept: Kept::default(),
                first_step: 0,
            };
            let latents = (0..case.patches).map(|patch| latents(case.plan().tokens(patch).len));
            let latents = latents.collect::<Result<_, _>>()?;
            driver
                .run(&mut stage, &mut Still, latents)
                .map_err(|e| Error::Kernel(e.to_string()))?;
            Ok((stage.turns, pipe.stats()))
        });
        let (turns, stats) = ranks.expect("no rank fails").into_iter().unzip();
        let end = self.placement.end(self.costs.len());
        Outcome { turns, end, stats }
    }
}

fn latents(tokens: usize) -> xdit_kernels::Result<Tensor> {
    Tensor::zeros([1, tokens, Case::LATENT / 4], DType::F32, &Device::cpu())
}

struct Busy<'a> {
    case: &'a Case,
    legs: Vec<usize>,
    /// On all legs.
    cost: f64,
    clock: Clock,
    turns: Vec<(Turn, f64)>,
}

impl Stage for Busy<'_> {
    type Error = xdit_pipefusion::Error;

    fn carried(&self, turn: Turn, _leg: usize) -> Vec<Spec> {
        let part = turn.part;
        vec![Spec::new(
            [1, self.case.tokens(part), Case::HIDDEN / 4],
            DType::F32,
        )]
    }

    fn skipped(&self, turn: Turn, from: usize, to: usize) -> Vec<Spec> {
        let mut skips = self.case.skips.iter();
        let count = skips.find(|skip| (skip.0, skip.1) == (from, to));
        let spec = self.carried(turn, to).swap_remove(0);
        vec![spec; count.map_or(0, |skip| skip.2)]
    }

    fn give(&mut self, turn: Turn, from: usize, to: usize) -> Result<Vec<Tensor>, Self::Error> {
        let specs = self.skipped(turn, from, to).into_iter();
        let made = specs.map(|spec| Tensor::zeros(spec.shape, spec.dtype, &Device::cpu()));
        Ok(made.collect::<Result<_, _>>()?)
    }

    fn embed(&mut self, turn: Turn, _latents: &[Tensor]) -> Result<Vec<Tensor>, Self::Error> {
        let specs = self.carried(turn, 0).into_iter();
        let made = specs.map(|spec| Tensor::zeros(spec.shape, spec.dtype, &Device::cpu()));
        Ok(made.collect::<Result<_, _>>()?)
    }

    fn blocks(
        &mut self,
        turn: Turn,
        leg: usize,
        hidden: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, Self::Error> {
        let tokens = self.case.tokens(turn.part) as f64;
        let cost = self.cost / self.legs.len() as f64;
        self.clock.advance(cost * self.case.token(tokens));
        if self.legs.last() == Some(&leg) {
            self.turns.push((turn, self.clock.now()));
        }
        Ok(hidden)
    }

    fn project(&mut self, turn: Turn, _hidden: Vec<Tensor>) -> Result<Vec<Tensor>, Self::Error> {
        let patches = turn.part.patches(self.case.patches);
        let made = patches.map(|patch| latents(self.case.plan().tokens(patch).len));
        Ok(made.collect::<Result<_, _>>()?)
    }
}

/// A sampler that changes nothing.
struct Still;

impl Sampler for Still {
    type Error = xdit_pipefusion::Error;
    type State = ();

    fn step(
        &mut self,
        _turn: Turn,
        _patch: usize,
        _state: &mut (),
        _prediction: &Tensor,
        latents: &Tensor,
    ) -> Result<Tensor, Self::Error> {
        Ok(latents.clone())
    }

    fn step_end(&mut self, _step: usize, _latents: &[Tensor]) -> Result<(), Self::Error> {
        Ok(())
    }
}
