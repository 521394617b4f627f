//! The failure of a rank is an error on all others that names it. No rank hangs.

use crate::run::{Groups, Model, Plan, comm_error, no_hooks, on_rank};
use crate::toy::{Failure, Hook, Place};
use std::time::{Duration, Instant};
use xdit_comm::Error;
use xdit_comm::threads::{Options, run_each};
use xdit_pipefusion::{Part, Placement, Turn};

const PLAN: Plan = Plan {
    stages: 4,
    patches: 3,
    steps: 4,
    warmup_steps: 0,
    max_drift: None,
    model: Model::Straight,
};

#[derive(Debug, Clone, Copy)]
enum Fault {
    Error,
    Panic,
}

/// Fails at that turn and place.
fn hook(at: Option<(Turn, Place, Fault)>) -> Box<Hook<'static>> {
    Box::new(move |turn, place| match at {
        Some((when, what, fault)) if (turn, place) == (when, what) => match fault {
            Fault::Error => Err::<(), Failure>("injected".into()),
            // As a panic, without the message on stderr.
            Fault::Panic => std::panic::resume_unwind(Box::new("injected".to_owned())),
        },
        _ => Ok(()),
    })
}

fn inject(plan: Plan, culprit: usize, turn: Turn, place: Place, fault: Fault) {
    let began = Instant::now();
    let outcomes = run_each(plan.stages, Options::default(), move |pipe| {
        let at = (pipe.rank() == culprit).then_some((turn, place, fault));
        on_rank(&plan, 1, Groups::stages(pipe), [hook(at), hook(at)], 0).map_err(comm_error)
    });
    for (rank, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.expect_err("nobody ends without the culprit");
        let text = format!("{turn:?} {place:?} {fault:?}, rank {rank}: {error}");
        assert_eq!(error.culprit(), Some(culprit), "{text}");
        assert!(text.contains("injected"), "{text}");
        let own = matches!(error, Error::Rank { .. });
        assert_eq!(own, rank == culprit, "{text}");
    }
    // Far below the minute after which a silent rank is given up.
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn the_rank_that_failed_is_named_by_all() {
    let whole = (0, Part::Whole);
    let turns = [whole, (1, Part::Patch(1)), (3, Part::Patch(2))];
    let models = [Model::Straight, Model::UShaped(Placement::Folded)];
    for (max_drift, model) in [None, Some(f32::INFINITY)].into_iter().zip(models) {
        let plan = Plan {
            max_drift,
            model,
            ..PLAN
        };
        for (step, part) in turns {
            let turn = Turn { step, part };
            for fault in [Fault::Error, Fault::Panic] {
                for culprit in 0..plan.stages {
                    inject(plan, culprit, turn, Place::Block, fault);
                }
                inject(plan, plan.end(), turn, Place::Sampler, fault);
                // The hook is told of the end of a step as of a whole turn.
                let part = Part::Whole;
                inject(plan, plan.end(), Turn { step, part }, Place::StepEnd, fault);
            }
        }
    }
}

#[test]
fn a_prediction_too_few_is_an_error() {
    let error = on_rank(
        &Plan { stages: 1, ..PLAN },
        1,
        Groups::default(),
        no_hooks(),
        1,
    )
    .expect_err("two of three");
    assert_eq!(
        error.to_string(),
        "prediction of step 0 (all patches): the number of tensors is 2, but must be 3, one for each patch"
    );
}

#[test]
fn stages_that_disagree_on_shapes_say_both() {
    // The second stage of two cuts the image otherwise.
    let outcomes = run_each(2, Options::default(), |pipe| {
        let patches = 3 + pipe.rank();
        let plan = Plan {
            stages: 2,
            patches,
            ..PLAN
        };
        on_rank(&plan, 1, Groups::stages(pipe), no_hooks(), 0).map_err(comm_error)
    });
    for outcome in outcomes {
        let text = outcome.expect_err("they disagree").to_string();
        assert!(
            text.contains("disagree") && text.contains("send to"),
            "{text}"
        );
    }
}
