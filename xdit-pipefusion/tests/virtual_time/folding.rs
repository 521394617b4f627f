//! The effect of folding for HunyuanDiT: 40 blocks of 1408 channels, 19 of whose outputs are read again.
//!
//! `cargo test -p xdit-pipefusion --test virtual_time folding -- --nocapture` prints the tables of docs/benchmarks/folding.md.

use crate::pipeline::{Case, IMAGE, Pace};
use std::fmt::Write;
use xdit_comm::OpStats;
use xdit_pipefusion::{Placement, StagePlan};

const BLOCKS: usize = 40;
const CHANNELS: f64 = 1408.0;
/// Conditional and unconditional prediction.
const BATCH: f64 = 2.0;
/// Of bf16.
const BYTES: f64 = 2.0;
const TEXT: f64 = 333.0;

/// FLOPs a second of one device, of which an A100 reaches about so many in HunyuanDiT (14.2 s for 50 steps at 1024², as xDiT
/// has published).
const FLOPS: f64 = 100e12;

#[derive(Debug, Clone, Copy)]
struct Link {
    name: &'static str,
    /// Bytes a second into one device.
    bandwidth: f64,
    /// Seconds.
    latency: f64,
}

const LINKS: [Link; 2] = [
    Link {
        name: "PCIe-like: 20 GB/s, 20 µs",
        bandwidth: 20e9,
        latency: 20e-6,
    },
    Link {
        name: "NVLink-like: 250 GB/s, 10 µs",
        bandwidth: 250e9,
        latency: 10e-6,
    },
];

/// FLOPs of a block for one token of one prompt: self-attention's four projections and cross-attention's two, the MLP, both
/// attentions, and what joins a skip.
fn block_flops(block: usize, tokens: f64) -> f64 {
    let joins = if block > BLOCKS / 2 { 2.0 } else { 0.0 };
    let linear = (4.0 + 2.0 + 2.0 * 4.3637 + joins) * CHANNELS * CHANNELS;
    2.0 * (linear + 2.0 * (tokens + TEXT) * CHANNELS)
}

fn reader(block: usize) -> Option<usize> {
    (block + 1 < BLOCKS / 2).then(|| BLOCKS - 1 - block)
}

/// A case, and how many seconds its unit of time is.
fn case(
    placement: Placement,
    stages: usize,
    patches: usize,
    tokens: f64,
    link: Link,
) -> (Case, f64) {
    let costs: Vec<f64> = (0..BLOCKS)
        .map(|block| block_flops(block, tokens))
        .collect();
    let plan = match placement {
        Placement::Linear => StagePlan::balanced(&costs, stages),
        Placement::Folded => {
            let pairs = costs.iter().zip(costs.iter().rev()).take(BLOCKS / 2);
            let pairs: Vec<f64> = pairs.map(|(a, b)| a + b).collect();
            StagePlan::balanced(&pairs, stages).map(StagePlan::folded)
        }
    };
    let plan = plan.expect("there are blocks enough");
    let mean = costs.iter().sum::<f64>() / stages as f64;
    let of_stage = |stage| {
        plan.blocks(stage)
            .iter()
            .map(|block| costs[block])
            .sum::<f64>()
    };
    let legs = placement.legs(stages);
    let mut skips = Vec::new();
    for (from, to) in (0..legs).flat_map(|from| (from + 1..legs).map(move |to| (from, to))) {
        let here = |leg| placement.stage(leg, stages);
        let crossing = plan
            .leg(from)
            .filter_map(reader)
            .filter(|to_block| plan.leg(to).contains(to_block));
        let count = crossing.count();
        if count > 0 && here(from) != here(to) {
            skips.push((from, to, count));
        }
    }
    // A patch on the mean stage takes 1.
    let patch = tokens / patches as f64;
    let unit = BATCH * patch * mean / FLOPS;
    let transfer = BATCH * patch * CHANNELS * BYTES / link.bandwidth;
    let case = Case {
        patches,
        costs: (0..stages).map(|stage| of_stage(stage) / mean).collect(),
        placement,
        text: 0,
        skips,
        pace: Pace::new(link.latency / unit, transfer / unit).through_one_port(),
        steps: 16,
        warmup_steps: 1,
        posts_late: false,
        max_drift: None,
    };
    (case, unit)
}

/// Seconds a step, and bytes of hidden states and skips that all links carry in it.
fn measure(
    placement: Placement,
    stages: usize,
    patches: usize,
    tokens: f64,
    link: Link,
) -> [f64; 2] {
    let (case, unit) = case(placement, stages, patches, tokens, link);
    let outcome = case.run();
    let sent = outcome
        .stats
        .iter()
        .filter_map(|stats| stats.get(&("send", None)));
    let bytes: usize = sent.map(|sent: &OpStats| sent.bytes).sum();
    let latents = match placement {
        Placement::Linear => (case.steps - 1) * IMAGE * Case::LATENT,
        Placement::Folded => 0,
    };
    let scale = BATCH * tokens * CHANNELS * BYTES / (IMAGE * Case::HIDDEN) as f64;
    let bytes = (bytes - latents) as f64 / case.steps as f64 * scale;
    [outcome.step_time() * unit, bytes]
}

#[test]
fn folding_moves_fewer_bytes_and_never_a_skip() {
    for link in LINKS {
        for (name, tokens) in [("1024²", 4096.0), ("2048²", 16384.0)] {
            let mut table = format!(
                "\n{name}, {}\n\n| N | M | linear, ms a step | MB a step | folded, ms a step | MB a step | linear / folded |\n|---|---|---|---|---|---|---|\n",
                link.name
            );
            for stages in [2, 4, 5, 8, 10] {
                for patches in [stages, 2 * stages] {
                    let of = |placement| measure(placement, stages, patches, tokens, link);
                    let ([linear, sent], [folded, kept]) =
                        (of(Placement::Linear), of(Placement::Folded));
                    // Hidden states go over N − 1 links, folded twice; of the skips those whose ends are on two stages.
                    let stream = BATCH * tokens * CHANNELS * BYTES;
                    let links = (stages - 1) as f64;
                    assert!((kept / (2.0 * links * stream) - 1.0).abs() <= 1e-9);
                    let (linear_case, _) = case(Placement::Linear, stages, patches, tokens, link);
                    let crossing: usize = linear_case.skips.iter().map(|skip| skip.2).sum();
                    assert!((sent / ((links + crossing as f64) * stream) - 1.0).abs() <= 1e-9);
                    assert!(kept < sent, "{stages} stages: {kept} of {sent}");
                    // Where 20 pairs cut evenly and patches are enough, the links decide, and those are folding's.
                    if (BLOCKS / 2).is_multiple_of(stages) && patches > stages {
                        assert!(
                            folded <= linear * 1.001,
                            "{stages} stages: {folded} for {linear}"
                        );
                    }
                    writeln!(
                        table,
                        "| {stages} | {patches} | {:.1} | {:.0} | {:.1} | {:.0} | {:.2} |",
                        linear * 1e3,
                        sent / 1e6,
                        folded * 1e3,
                        kept / 1e6,
                        linear / folded
                    )
                    .expect("a string takes all");
                }
            }
            println!("{table}");
        }
    }
}
