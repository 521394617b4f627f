//! Flags that change nothing in a run, and ranks that make it slower: told in a warning each, before the run.

use xdit_models::RunPlan;
use xdit_models::quote::counted;

use crate::args::ranks::{LossPolicy, ParallelArgs};
use crate::args::seed::SeedChoice;
use crate::report::console::Console;

/// What the user should know of the flags about ranks, for a run of `plan` on `threads` threads.
pub(crate) fn of_ranks(args: &ParallelArgs, plan: &RunPlan, threads: usize) -> Vec<String> {
    let ranks = plan.ranks.len();
    let mut warnings: Vec<String> = crowded(ranks, threads).into_iter().collect();
    warnings.extend(idle_replicas(plan.degrees.data, plan.images, "image"));
    let stages = "it needs --pipefusion-parallel-degree above 1";
    let patches = "it needs a step that runs patch by patch (--num-pipeline-patch above 1)";
    let one_stage = plan.stages.len() == 1;
    let one_patch = plan.patches.count() == 1;
    let in_replica = ranks / plan.degrees.data.max(1);
    for (flag, unused, why) in [
        (
            "--pipefusion-balance",
            args.pipefusion_balance.is_some() && one_stage,
            stages,
        ),
        (
            "--pipefusion-placement",
            args.pipefusion_placement.is_some() && one_stage,
            stages,
        ),
        (
            "--warmup-steps",
            args.warmup_steps != 1 && one_patch,
            patches,
        ),
        (
            "--max-drift",
            args.max_drift.is_some() && !plan.schedule.is_lossy(),
            patches,
        ),
        (
            "--no-parallel-vae",
            args.no_parallel_vae && in_replica == 1,
            "one rank decodes each image anyway",
        ),
        (
            "--rank-timeout",
            args.rank_timeout != ParallelArgs::RANK_TIMEOUT && ranks == 1,
            "there is one rank, which waits for no other",
        ),
        (
            "--on-rank-loss",
            args.on_rank_loss != LossPolicy::Fail && ranks == 1,
            "there is one rank",
        ),
    ] {
        if unused {
            warnings.push(format!("{flag} has no effect: {why}"));
        }
    }
    warnings
}

/// A warning if there are more ranks than threads to compute with.
pub(crate) fn crowded(ranks: usize, threads: usize) -> Option<String> {
    (ranks > threads).then(|| {
        let threads = counted(threads, "thread");
        format!(
            "{ranks} ranks share {threads}: slower than one rank on this machine; good for checking plans"
        )
    })
}

/// A warning if some of `replicas` get nothing to do.
pub(crate) fn idle_replicas(replicas: usize, pieces: usize, what: &str) -> Option<String> {
    let idle = replicas.checked_sub(pieces);
    let idle = idle.filter(|idle| *idle > 0 && replicas > 1)?;
    let (there, idle) = (counted(pieces, what), counted(idle, "replica"));
    Some(format!(
        "--data-parallel-degree {replicas}: {idle} without work, because replicas share {there}"
    ))
}

/// Warnings for words that probably mean something else: several prompts of one word each, and torch's seed -1.
pub(crate) fn of_words(prompts: &[String], seeds: &[SeedChoice]) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_word = |prompt: &String| {
        !prompt.is_empty() && prompt.chars().all(|c| c.is_ascii_alphabetic() || c == ',')
    };
    if prompts.len() > 1 && prompts.iter().all(is_word) {
        let (count, text) = (prompts.len(), prompts.join(" "));
        warnings.push(format!(
            "{count} prompts of one word each; one prompt of several words needs quotes: --prompt \"{text}\""
        ));
    }
    if seeds.iter().any(|seed| *seed == -1) {
        let text =
            "--seed -1 is the seed -1 of torch, the same in each run; --seed random draws one";
        warnings.push(text.into());
    }
    warnings
}

/// Says which seeds were drawn.
pub(crate) fn say_seeds(seeds: &[SeedChoice], console: &Console) {
    let drawn = seeds.iter().filter(|seed| seed.is_drawn);
    let drawn: Vec<String> = drawn.map(|seed| seed.value.to_string()).collect();
    if !drawn.is_empty() {
        console.note(&format!("--seed random is --seed {}", drawn.join(" ")));
    }
}
