//! Ranks that the caller connects, each with its own pipeline and checkpoint, as processes have: some are lost, and the others make
//! another group.

use std::sync::{Arc, Mutex, PoisonError};

use xdit_comm::Error as CommError;
use xdit_comm::threads::{self, Options};
use xdit_models::{
    Checkpoint, Degrees, LoadOptions, OnRankLoss, OutputType, Parallel, PipeFusion, Pipeline,
    Request,
};
use xdit_tests::goldens::{max_abs, values};
use xdit_tests::over_ranks::SAME;
use xdit_tests::recorded::source;

use crate::faults::{Armed, At, How};
use crate::{STEPS, families};

/// What a rank has besides its group.
struct Member {
    pipe: Option<Pipeline>,
    checkpoint: Checkpoint,
}

fn loaded(armed: &Armed, family: &str, rank: usize) -> Member {
    let options = LoadOptions {
        threads: Some(1),
        ..LoadOptions::default()
    };
    let load = || Pipeline::load(&source(family), &options, &mut ());
    Member {
        pipe: Some(armed.loading(rank, load).expect("a pipeline")),
        checkpoint: Checkpoint::new(),
    }
}

type Members = Arc<Vec<Mutex<Member>>>;

/// Draws in a group of these ranks. Returns the latents of each rank that finished.
fn draw(
    members: &Members,
    family: &'static str,
    request: &Request,
    degrees: Degrees,
) -> Vec<Option<Vec<f32>>> {
    let (members, request) = (members.clone(), request.clone());
    let work = move |group: xdit_comm::Group| {
        let rank = group.rank();
        let mut member = members[rank].lock().unwrap_or_else(PoisonError::into_inner);
        let parallel = Parallel::group(degrees, group).pipefusion(PipeFusion::default().patches(1));
        let options = LoadOptions::default();
        let plan = Pipeline::plan(&source(family), &options, &request, &parallel);
        let checkpoint = member.checkpoint.clone();
        let pipe = member.pipe.take().expect("a pipeline");
        let pipe = pipe.parallel(parallel).map_err(CommError::other)?;
        let drawn = plan.and_then(|plan| pipe.run_from(plan, &checkpoint, &mut ()));
        member.pipe = Some(pipe);
        match drawn {
            Ok(output) => Ok(values(&output.latents)),
            // As the group of a process would report it.
            Err(xdit_models::Error::Comm(error)) => Err(error),
            Err(error) => Err(CommError::other(error)),
        }
    };
    let world = degrees.product().expect("few ranks");
    let done = threads::run_each(world, Options::default(), work);
    done.into_iter().map(Result::ok).collect()
}

#[test]
fn every_survivor_of_a_group_knows_the_newest_steps_but_one() {
    let armed = Armed::new();
    let stages = |pipe| Degrees {
        pipe,
        ..Degrees::default()
    };
    let hybrid = Degrees {
        ulysses: 2,
        ..stages(2)
    };
    for (family, request) in families() {
        // A scheduler that remembers the step before.
        let request = match family {
            "hunyuan-v1.2" => request.scheduler("DPMSolverMultistepScheduler"),
            _ => request,
        };
        let request = request.output(OutputType::Latent);
        for (degrees, next) in [(stages(2), stages(1)), (hybrid, stages(3))] {
            let world = degrees.product().expect("few ranks");
            let members = || (0..world).map(|rank| loaded(&armed, family, rank));
            let all: Members = Arc::new(members().map(Mutex::new).collect());
            let whole = draw(&all, family, &request, degrees);
            let whole = whole[0].clone().expect("latents");
            for step in 0..STEPS {
                // Among them those of the stage that alone steps latents.
                let lost = (step + 1) % world;
                let all: Members = Arc::new(members().map(Mutex::new).collect());
                armed.lose(lost, At::Step(step as u64), How::Panics);
                let done = draw(&all, family, &request, degrees);
                assert!(armed.happened() && done.iter().all(Option::is_none));
                let all = Arc::into_inner(all)
                    .expect("all ranks have returned")
                    .into_iter();
                let all =
                    all.map(|member| member.into_inner().unwrap_or_else(PoisonError::into_inner));
                let left = all.enumerate().filter(|(rank, _)| *rank != lost);
                let mut left: Vec<Member> = left.map(|(_, member)| member).collect();
                for member in &left {
                    let finished = member.checkpoint.finished_steps();
                    let text = format!("{family}, {degrees}, {lost} at {step}: {finished}");
                    assert!(finished <= step && finished + 2 >= step, "{text}");
                }
                // One that knows nothing learns all from the others.
                if left.len() > 1 {
                    left[0].checkpoint = Checkpoint::new();
                }
                let left: Members = Arc::new(left.into_iter().map(Mutex::new).collect());
                for latents in draw(&left, family, &request, next) {
                    let off = max_abs(&latents.expect("latents"), &whole);
                    assert!(
                        off <= SAME,
                        "{family}, {degrees}, {lost} at {step}: {off:e}"
                    );
                }
            }
        }
    }
}

/// A group cannot make another one by itself.
#[test]
fn a_group_does_not_replan_by_itself() {
    let checked = |group: xdit_comm::Group| {
        let replans = Parallel::group(Degrees::default(), group).on_rank_loss(OnRankLoss::Replan);
        Ok(replans.check().map_err(|error| error.to_string()))
    };
    let told = threads::run_each(1, Options::default(), checked).remove(0);
    let refused = told.expect("the rank returns").expect_err("it is refused");
    assert!(
        refused.starts_with("`on_rank_loss` = replan: must be fail over a group"),
        "{refused}"
    );
}
