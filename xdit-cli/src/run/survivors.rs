//! Draws a request on ranks that `launch` has started, and goes on with those that are left when one is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use xdit_models::{Checkpoint, Degrees, LostRank, Parallel, Pipeline, RankBackend, RunPlan};

use crate::args::cli::GenerateArgs;
use crate::launch::{JobPlace, ProcessJob, Rendezvous, WorldRequest};
use crate::report::failure::Failure;
use crate::report::progress::RunObserver;
use crate::report::voice;
use crate::run::compute::Compute;
use crate::run::control::{LauncherLine, Regroup};
use crate::run::draw::{Drawn, draw_with, load};
use crate::run::environment::Environment;
use crate::run::model::FoundModel;
use crate::run::session::Session;

/// Returns the way to `launch` if ranks of `job` go on without a lost one.
///
/// # Errors
/// [`Failure::Usage`] for another launcher, and for what the first rank alone has.
pub(crate) fn line<'s>(
    args: &GenerateArgs,
    session: &'s Session,
    job: &ProcessJob,
) -> Result<Option<&'s LauncherLine>, Failure> {
    let Some(place) = job.place().filter(|_| job.replans()) else {
        return Ok(None);
    };
    let Some(line) = &session.launcher else {
        return Err(Failure::usage(format!(
            "--on-rank-loss replan: {} does not bring the other ranks together again when one is lost; start them with xdit-cli launch, or \
             leave it out",
            place.launcher
        )));
    };
    if args.prompts.prompt_file.is_some() {
        return Err(Failure::usage(
            "--on-rank-loss replan: ranks that are processes go on with one request, not with a --prompt-file; leave one of both out, or \
             use threads (without launch)",
        ));
    }
    // Asked of all ranks: the flag of the first decides.
    for (flag, given) in [
        ("--dump", args.output.dump.is_some()),
        ("--trace", args.report.trace.is_some()),
    ] {
        if given {
            return Err(Failure::usage(format!(
                "{flag}: rank 0 alone writes it, and may be lost with --on-rank-loss replan; leave one of both out"
            )));
        }
    }
    Ok(Some(line))
}

/// What ranks need in order to go on without a lost one.
pub(crate) struct Survivors<'a> {
    /// The pipeline.
    pub model: &'a FoundModel,
    /// The ranks.
    pub job: &'a ProcessJob,
    /// The way to `launch`.
    pub line: &'a LauncherLine,
    /// What all ranks do.
    pub what: Value,
    /// How long ranks wait for each other.
    pub limit: Duration,
    /// The environment.
    pub environment: &'a Environment,
    /// Plans the request, whatever memory it needs.
    pub plan: &'a dyn Fn(&Compute) -> xdit_models::Result<RunPlan>,
}

/// A request that is being drawn.
#[derive(Debug, Default)]
struct OngoingCall {
    /// What its finished steps left.
    checkpoint: Checkpoint,
    /// The weights that this process has read.
    pipeline: Option<Pipeline>,
    /// How often ranks have come together to go on.
    round: u64,
    /// The ranks that were lost.
    lost: Vec<LostRank>,
}

impl Survivors<'_> {
    /// Executes `plan` on the ranks of `compute`, and as often as one is lost, another one on those that are left. `None` if the others
    /// go on without this one, because no plan has room for it.
    ///
    /// # Errors
    /// Errors of the library and of other ranks; the loss of a rank, if there is no plan for the others.
    pub(crate) fn draw(
        &self,
        plan: RunPlan,
        compute: &mut Compute,
        watch: &mut RunObserver,
    ) -> Result<Option<Drawn>, Failure> {
        let mut call = OngoingCall::default();
        // After each loss, the plan that is nearest to the first one: ranks that disagree on what came between agree on that. It is
        // looked for before there are ranks for it.
        let mut parallel = compute.parallel.clone();
        let deadline = self.limit;
        parallel.backend = RankBackend::Threads { deadline };
        let first = (plan.clone(), parallel);
        let mut plan = plan;
        loop {
            let failure = match self.draw_on(plan, &mut call, compute, watch) {
                Ok(drawn) => {
                    let lost = call.lost;
                    return Ok(Some(Drawn { lost, ..drawn }));
                }
                Err(failure) => failure,
            };
            match self.go_on(failure, &first, &mut call, compute, watch)? {
                Some(next) => plan = next,
                None => return Ok(None),
            }
        }
    }

    fn draw_on(
        &self,
        plan: RunPlan,
        call: &mut OngoingCall,
        compute: &Compute,
        watch: &mut RunObserver,
    ) -> Result<Drawn, Failure> {
        // Weights that were read stay.
        let ready = match call.pipeline.take() {
            Some(ready) => ready.parallel(compute.parallel.clone())?,
            None => load(self.model, compute, watch)?,
        };
        let ready = call.pipeline.insert(ready);
        draw_with(compute, self.model, self.job, plan, |plan| {
            ready.run_from(plan, &call.checkpoint, watch)
        })
    }

    /// Leaves the ranks that have ended with `failure`, and joins those that are left. Returns the plan for them that is nearest to
    /// `plan`, on ranks as `parallel` says.
    fn go_on(
        &self,
        mut failure: Failure,
        (plan, parallel): &(RunPlan, Parallel),
        call: &mut OngoingCall,
        compute: &mut Compute,
        watch: &mut RunObserver,
    ) -> Result<Option<RunPlan>, Failure> {
        let (Some(place), Some(world)) = (self.job.place(), self.job.world()) else {
            return Err(failure);
        };
        let members: Vec<(usize, String)> = world
            .numbers()
            .iter()
            .copied()
            .zip(world.hosts().iter().cloned())
            .collect();
        drop(world);
        let mut known: BTreeMap<usize, LostRank> = BTreeMap::new();
        loop {
            let lost = match &failure {
                Failure::LostRank { rank, host, reason } => {
                    let (name, reason) = (format!("rank {rank} (host {host})"), reason.to_string());
                    let lost = LostRank::new(name, &reason);
                    known.entry(*rank).or_insert(lost);
                    Some((*rank, reason))
                }
                Failure::Rendezvous { .. } => None,
                _ => return Err(failure),
            };
            self.job.abandon();
            let Some(regroup) = self.line.regrouped(call.round, lost) else {
                return Err(failure);
            };
            call.round = regroup.round;
            let Some(first) = regroup.ranks.first() else {
                return Err(failure);
            };
            voice::set_speaker(*first);
            match *first == place.rank {
                true => voice::speak(),
                false => voice::silence(place.rank),
            }
            let on = |degrees: Degrees| {
                let mut other = compute.clone();
                other.parallel = parallel.clone().of_degrees(degrees);
                (self.plan)(&other)
            };
            let Some(next) = plan.nearest(regroup.ranks.len(), &on) else {
                return Err(failure);
            };
            let parallel = parallel.clone().of_degrees(next.degrees);
            match self.rejoin(place, &regroup, (parallel, &call.checkpoint), compute) {
                Ok(None) => return Ok(None),
                Ok(Some((planned, finished))) => {
                    let finished = (finished, plan.schedule.steps);
                    let lost = all_lost(&known, &members, &regroup);
                    for lost in &lost {
                        watch.warn(lost.in_words(finished, &next.degrees));
                    }
                    call.lost.extend(lost);
                    return Ok(Some(planned));
                }
                Err(other) => failure = other,
            }
        }
    }

    /// Joins the ranks that go on as `parallel` says, and plans the request on them. Returns also how many steps are finished, of which
    /// each rank may know those of other images. `None` if this one is not needed.
    fn rejoin(
        &self,
        place: &JobPlace,
        regroup: &Regroup,
        (parallel, checkpoint): (Parallel, &Checkpoint),
        compute: &mut Compute,
    ) -> Result<Option<(RunPlan, usize)>, Failure> {
        let degrees = parallel.degrees;
        let count = degrees.product().unwrap_or_default();
        let numbers: Vec<usize> = regroup.ranks.iter().copied().take(count).collect();
        let Some(rank) = numbers.iter().position(|number| *number == place.rank) else {
            return Ok(None);
        };
        let place = JobPlace {
            rank,
            world_size: numbers.len(),
            rendezvous: Rendezvous {
                host: Some(regroup.host.clone()),
                port: regroup.port,
                why: "launch has chosen it".to_owned(),
                is_free_choice: false,
            },
            restart: place.restart.saturating_add(regroup.round),
            numbers,
            ..place.clone()
        };
        let mut what = self.what.clone();
        what["continues_on"] = json!(degrees.to_string());
        let request = WorldRequest {
            degrees,
            plan: &what,
            limit: self.limit,
            replans: true,
            environment: self.environment,
        };
        let world = self.job.rejoin(&place, &request, &compute.device)?;
        compute.parallel = parallel;
        compute.parallel.backend = RankBackend::Group(world.group().clone());
        let planned = (self.plan)(compute).map_err(Failure::from);
        let planned = self.job.agree(planned, |_| String::new())?;
        compute.arrange(&planned, self.job)?;
        let each: Vec<Vec<usize>> = world.gather(&checkpoint.finished_each())?;
        let newest = |image: usize| each.iter().filter_map(|own| own.get(image)).max();
        let finished = (0..planned.images).filter_map(newest).min();
        let planned = (self.plan)(compute)?;
        Ok(Some((planned, finished.copied().unwrap_or(0))))
    }
}

/// The ranks that do not go on: those whose loss this process has seen, and others that `launch` knows of. Of two ranks that have lost
/// each other, one may go on.
fn all_lost(
    known: &BTreeMap<usize, LostRank>,
    members: &[(usize, String)],
    regroup: &Regroup,
) -> Vec<LostRank> {
    let gone = members
        .iter()
        .filter(|(rank, _)| !regroup.ranks.contains(rank));
    let lost = gone.map(|(rank, host)| match known.get(rank) {
        Some(lost) => lost.clone(),
        None => LostRank::new(
            format!("rank {rank} (host {host})"),
            "its process has ended",
        ),
    });
    lost.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_that_is_missing_is_named_once() {
        let members = [0, 1, 2, 3].map(|rank| (rank, "a".to_owned()));
        let lost = |rank| LostRank::new(format!("rank {rank} (host a)"), "stopped");
        // Rank 2 goes on: another one that is lost said that it had lost it.
        let known = BTreeMap::from([(1, lost(1)), (2, lost(2))]);
        let regroup = Regroup {
            round: 1,
            host: "a".into(),
            port: 1,
            ranks: vec![0, 2],
        };
        assert_eq!(
            all_lost(&known, &members, &regroup),
            [
                LostRank::new("rank 1 (host a)", "stopped"),
                LostRank::new("rank 3 (host a)", "its process has ended")
            ]
        );
    }
}
