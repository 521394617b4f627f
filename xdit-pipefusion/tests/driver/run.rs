//! The engine on threads.

use crate::toy::{CHANNELS, Failure, Hook, ROW_TOKENS, ROWS, Toy, TwoStep, noise};
use xdit_comm::threads::{self, Options};
use xdit_comm::{Error, Group};
use xdit_kernels::{Device, Tensor};
use xdit_pipefusion::{Driver, Kept, PatchPlan, Placement, Report, Schedule, StagePlan};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) stages: usize,
    pub(crate) patches: usize,
    pub(crate) steps: usize,
    pub(crate) warmup_steps: usize,
    pub(crate) max_drift: Option<f32>,
    pub(crate) model: Model,
}

impl Plan {
    /// The stage with the sampler.
    pub(crate) fn end(&self) -> usize {
        self.model.placement().end(self.stages)
    }
}

/// Its blocks, and how they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// Five blocks.
    Straight,
    /// Eight, whose later half reads the earlier again.
    UShaped(Placement),
}

impl Model {
    pub(crate) fn blocks(self) -> usize {
        match self {
            Self::Straight => 5,
            Self::UShaped(_) => 8,
        }
    }

    pub(crate) fn placement(self) -> Placement {
        match self {
            Self::Straight => Placement::Linear,
            Self::UShaped(placement) => placement,
        }
    }

    /// The models, and the numbers of stages that each can have.
    pub(crate) fn all() -> impl Iterator<Item = (Self, usize)> {
        let each = [
            (Self::Straight, 5),
            (Self::UShaped(Placement::Linear), 8),
            (Self::UShaped(Placement::Folded), 4),
        ];
        let up_to_five = |most: usize| 1..=most.min(5);
        each.into_iter()
            .flat_map(move |(model, most)| up_to_five(most).map(move |stages| (model, stages)))
    }

    pub(crate) fn stages(self, count: usize) -> Result<StagePlan, xdit_pipefusion::Error> {
        match self {
            Self::Straight => StagePlan::balanced(&[2.0, 1.0, 2.0, 1.0, 2.0], count),
            Self::UShaped(Placement::Linear) => {
                StagePlan::balanced(&[2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0], count)
            }
            Self::UShaped(Placement::Folded) => {
                Ok(StagePlan::balanced(&[2.0, 1.0, 3.0, 1.0], count)?.folded())
            }
        }
    }
}

/// What a rank returns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Done {
    pub(crate) latents: Vec<f32>,
    pub(crate) report: Report,
    /// On the last stage.
    pub(crate) images: Vec<Vec<f32>>,
    pub(crate) kept_bytes: usize,
}

/// What a rank belongs to.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    pub(crate) pipe: Option<Group>,
    pub(crate) replica: Option<Group>,
}

impl Groups {
    pub(crate) fn stages(pipe: Group) -> Self {
        Self {
            pipe: Some(pipe),
            replica: None,
        }
    }
}

/// One rank's work, as an application would write it.
pub(crate) fn on_rank<'a>(
    plan: &Plan,
    seed: usize,
    groups: Groups,
    hooks: [Box<Hook<'a>>; 2],
    missing: usize,
) -> Result<Done, Failure> {
    let patches = PatchPlan::new(ROWS, ROW_TOKENS, plan.patches)?;
    let stages = plan.model.stages(plan.stages)?;
    assert_eq!(stages.counts().iter().sum::<usize>(), plan.model.blocks());
    let kept = Kept::default();
    let Groups { pipe, replica } = groups;
    let rank = pipe.as_ref().map_or(0, Group::rank);
    let [blocks_hook, sampler_hook] = hooks;
    let u_shaped = plan.model != Model::Straight;
    let placement = plan.model.placement();
    let mut stage = Toy::new(patches, stages, u_shaped, rank, &kept, blocks_hook);
    stage.missing = missing;
    let mut sampler = TwoStep {
        hook: sampler_hook,
        images: Vec::new(),
    };
    let noise = noise(seed);
    let latents = (0..plan.patches).map(|patch| {
        let tokens = patches.tokens(patch);
        let values = &noise[tokens.start * CHANNELS..tokens.end() * CHANNELS];
        Tensor::from_slice(values, [1, tokens.len, CHANNELS], &Device::cpu())
    });
    let latents = latents.collect::<Result<Vec<_>, _>>()?;
    let driver = Driver {
        schedule: Schedule {
            steps: plan.steps,
            warmup_steps: plan.warmup_steps,
            patches: plan.patches,
        },
        pipe,
        placement,
        replica,
        max_drift: plan.max_drift,
        kept: kept.clone(),
        first_step: 0,
    };
    let (latents, report) = driver.run(&mut stage, &mut sampler, latents)?;
    Ok(Done {
        latents: latents
            .iter()
            .flat_map(|x| x.to_vec_blocking::<f32>().unwrap())
            .collect(),
        report,
        images: sampler.images,
        kept_bytes: kept.bytes(),
    })
}

pub(crate) fn no_hooks() -> [Box<Hook<'static>>; 2] {
    [Box::new(|_, _| Ok(())), Box::new(|_, _| Ok(()))]
}

/// A stage's failure as a rank's: a lost peer stays one.
pub(crate) fn comm_error(failure: Failure) -> Error {
    match failure.downcast::<xdit_pipefusion::Error>() {
        Ok(error) => match *error {
            xdit_pipefusion::Error::Comm(error) => error,
            other => Error::Kernel(other.to_string()),
        },
        Err(other) => Error::Kernel(other.to_string()),
    }
}

/// What each stage returns.
pub(crate) fn on_threads(plan: &Plan, seed: usize) -> Vec<Done> {
    let own = *plan;
    let work =
        move |pipe| on_rank(&own, seed, Groups::stages(pipe), no_hooks(), 0).map_err(comm_error);
    let outcomes = threads::run_each(plan.stages, Options::default(), work);
    let stages = outcomes.into_iter();
    stages
        .map(|done| done.unwrap_or_else(|error| panic!("{plan:?}: {error}")))
        .collect()
}

/// Relative L2 distance.
pub(crate) fn distance(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |x: f32| f64::from(x).powi(2);
    let moved: f64 = got.iter().zip(want).map(|(a, b)| square(a - b)).sum();
    let norm: f64 = want.iter().map(|x| square(*x)).sum();
    (moved / norm).sqrt()
}
