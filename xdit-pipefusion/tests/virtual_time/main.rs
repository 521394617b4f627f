//! The utilisation of the pipeline in simulated time: links of given latency and bandwidth, blocks of given cost.

mod clock;
mod folding;
mod pipeline;

use pipeline::{Case, IMAGE, Outcome, Pace, TEXT};
use xdit_comm::OpStats;
use xdit_pipefusion::{PatchPlan, Placement, Schedule, StepTraffic, Traffic};

/// Of compute, a patch of the mean size takes 1 on a stage of cost 1; so may a message of hidden states.
const PACES: [Pace; 7] = [
    Pace::new(0.0, 0.0),
    Pace::new(0.3, 0.0),
    Pace::new(0.0, 0.5),
    Pace::new(0.2, 0.5),
    Pace::new(0.05, 0.9),
    // Slow links: latency or bandwidth may decide.
    Pace::new(2.5, 0.1),
    Pace::new(0.1, 1.6),
];

const COSTS: [[f64; 4]; 4] = [
    [1.0, 1.0, 1.0, 1.0],
    [1.0, 0.8, 0.9, 0.7],
    [0.7, 1.0, 0.8, 0.9],
    [0.5, 0.6, 0.8, 1.0],
];

fn grid() -> impl Iterator<Item = Case> {
    let sizes = [2usize, 3, 4].into_iter().flat_map(|stages| {
        let patches = [stages, stages + 1, 2 * stages, 3 * stages + 1];
        patches.into_iter().map(move |patches| (stages, patches))
    });
    sizes.flat_map(|(stages, patches)| {
        COSTS.into_iter().flat_map(move |costs| {
            let of = move |placement| {
                PACES.into_iter().map(move |pace| Case {
                    patches,
                    costs: costs[..stages].to_vec(),
                    placement,
                    text: TEXT,
                    skips: Vec::new(),
                    pace,
                    steps: 24,
                    warmup_steps: 1,
                    posts_late: false,
                    max_drift: None,
                })
            };
            of(Placement::Linear).chain(of(Placement::Folded))
        })
    })
}

/// What no schedule can beat: how long a step takes at least, when one follows the other without end.
///
/// 1. *Compute.* In each step the slowest stage computes text once and every patch once, one after the other.
/// 2. *Links.* In each step each link carries text and all patches' hidden states (the last one all patches' latents; in a
///    folded pipeline each carries hidden states in both directions, which do not meet), one message after the other;
///    latency overlaps with the next message.
/// 3. *Loop.* A patch starts a step when its latents of the step before are there. So a step takes as long as any one
///    patch needs through all stages, over the N − 1 links between them and back to the first (folded: over them again).
///
/// Each is a closed walk in the graph of who waits for whom, its length divided by the steps that it goes on. There are
/// walks that mix patches and stages; they are no longer than these by more than patches differ in cost (text with
/// patch 0, an uneven last patch), which is what the 5 % of the test are for.
struct Bound {
    compute: f64,
    links: f64,
    lap: f64,
}

impl Bound {
    fn of(case: &Case) -> Self {
        let patches = 0..case.patches;
        let slowest = case.costs.iter().copied().fold(0.0, f64::max);
        let per_step = |of: &dyn Fn(usize) -> f64| patches.clone().map(of).sum::<f64>();
        let hop = |patch| case.hidden_bytes(patch) * case.byte();
        let back = |patch| case.latent_bytes(patch) * case.byte();
        let lap = |patch| {
            let stages = case.costs.len() as f64;
            let compute: f64 = case
                .costs
                .iter()
                .map(|cost| case.compute(*cost, patch))
                .sum();
            compute
                + match case.placement {
                    Placement::Linear => {
                        (stages - 1.0) * hop(patch) + back(patch) + stages * case.latency()
                    }
                    Placement::Folded => 2.0 * (stages - 1.0) * (hop(patch) + case.latency()),
                }
        };
        Self {
            compute: per_step(&|patch| case.compute(slowest, patch)),
            // Latents are shorter than hidden states.
            links: per_step(&hop),
            lap: patches.clone().map(lap).fold(0.0, f64::max),
        }
    }

    fn step(&self) -> f64 {
        self.compute.max(self.links).max(self.lap)
    }

    /// Of the slowest stage.
    fn utilisation(&self) -> f64 {
        self.compute / self.step()
    }
}

#[test]
fn the_slowest_stage_is_used_as_much_as_can_be() {
    let (mut cases, mut full) = (0, 0);
    for case in grid() {
        let bound = Bound::of(&case);
        let used = bound.compute / case.run().step_time();
        let share = used / bound.utilisation();
        let least = match case.placement {
            Placement::Linear => 0.95,
            _ if case.is_free() => 0.95,
            _ if case.patches > 3 * case.costs.len() => 0.9,
            // A part may come up just when another goes down, and wait for it: a walk that mixes patches, and is longer
            // than these by up to half a turn at each stage. Only with enough patches does nobody mind.
            Placement::Folded => 0.75,
        };
        assert!((least..=1.0 + 1e-9).contains(&share), "{case:?}: {share}");
        cases += 1;
        full += usize::from(bound.utilisation() == 1.0);
    }
    // The grid has cases of each kind.
    assert!(
        full > cases / 4 && full < cases * 3 / 4,
        "{full} of {cases}"
    );
}

#[test]
fn receives_that_are_posted_late_cost_their_transfer() {
    let mut cases = 0;
    for case in grid() {
        let bound = Bound::of(&case);
        // Where the slowest stage is what counts, and what it receives takes time.
        let linear = case.placement == Placement::Linear;
        let first = linear && case.costs[0] == case.costs.iter().copied().fold(0.0, f64::max);
        if bound.utilisation() < 1.0 || case.transfer(first) < 0.2 {
            continue;
        }
        let early = case.run().step_time();
        let late = Case {
            posts_late: true,
            ..case.clone()
        };
        let late = late.run().step_time();
        assert!(early / late <= 0.9, "{case:?}: {early} for {late}");
        cases += 1;
    }
    assert!(cases >= 20, "{cases} cases");
}

#[test]
fn whole_steps_take_the_sum_of_all_stages_and_hops() {
    for case in grid() {
        let case = Case {
            warmup_steps: usize::MAX,
            steps: 6,
            ..case
        };
        let tokens = (TEXT + IMAGE) as f64;
        let compute: f64 = case
            .costs
            .iter()
            .map(|cost| cost * case.token(tokens))
            .sum();
        let all = |of: &dyn Fn(usize) -> f64| (0..case.patches).map(of).sum::<f64>();
        let hops = (case.placement.legs(case.costs.len()) - 1) as f64;
        let back = f64::from(u8::from(case.placement == Placement::Linear));
        let step = compute
            + hops * all(&|patch| case.hidden_bytes(patch) * case.byte())
            + back * all(&|patch| case.latent_bytes(patch) * case.byte())
            + (hops + back) * case.latency();
        let outcome = case.run();
        let off = (outcome.step_time() / step - 1.0).abs();
        assert!(off <= 1e-9, "{case:?}: {} for {step}", outcome.step_time());
        assert!(outcome.turns.iter().all(|turns| turns.len() == case.steps));
    }
}

#[test]
fn deciding_by_drift_holds_up_nobody() {
    for case in grid() {
        // Beyond the end of a step receives are posted one turn ahead, since the next step is not decided before.
        let fastest = case.costs.iter().copied().fold(1.0, f64::min);
        if case.transfer(false) > 0.8 * fastest {
            continue;
        }
        let watched = Case {
            max_drift: Some(f32::INFINITY),
            ..case.clone()
        };
        let (free, watched) = (case.run().step_time(), watched.run().step_time());
        assert!(
            watched <= free * (1.0 + 1e-9),
            "{case:?}: {watched} for {free}"
        );
    }
}

#[test]
fn messages_and_bytes_are_those_of_the_formulas() {
    for (stages, patches, steps, warmup_steps) in [
        (2, 1, 3, 0),
        (2, 2, 5, 0),
        (2, 5, 4, 2),
        (3, 4, 6, 1),
        (4, 7, 3, 3),
        (4, 3, 1, 0),
    ] {
        for placement in [Placement::Linear, Placement::Folded] {
            traffic_is_as_foretold(&Case {
                patches,
                costs: vec![1.0; stages],
                placement,
                text: TEXT,
                skips: Vec::new(),
                pace: PACES[3],
                steps,
                warmup_steps,
                posts_late: false,
                max_drift: None,
            });
        }
    }
}

fn traffic_is_as_foretold(case: &Case) {
    let &Case {
        patches,
        steps,
        warmup_steps,
        placement,
        ..
    } = case;
    let stages = case.costs.len();
    let schedule = Schedule {
        steps,
        warmup_steps,
        patches,
    };
    let plan = PatchPlan::new(IMAGE, 1, patches).expect("rows enough");
    let per_step = |step| {
        let parts = schedule.parts(step);
        let linear = StepTraffic::new(&parts, &plan, TEXT, Case::HIDDEN, Case::LATENT);
        match placement {
            Placement::Linear => linear,
            Placement::Folded => linear.folded(),
        }
    };
    let sum = |of: fn(StepTraffic) -> Traffic, steps: usize| {
        (0..steps)
            .map(|step| of(per_step(step)))
            .fold((0, 0), |sum, one| (sum.0 + one.messages, sum.1 + one.bytes))
    };
    let counted: Vec<[(usize, usize); 3]> = (0..stages)
        .map(|stage| {
            let last = stage + 1 == stages;
            [
                if last {
                    (0, 0)
                } else {
                    sum(|t| t.forward, steps)
                },
                if stage == 0 {
                    (0, 0)
                } else {
                    sum(|t| t.upward, steps)
                },
                if last {
                    sum(|t| t.back, steps - 1)
                } else {
                    (0, 0)
                },
            ]
        })
        .collect();
    // Written out: whole steps send one message a link, the others one a patch; text goes once a step, each token of
    // the image once; latents go back patch by patch, but not after the last step. A folded pipeline sends hidden states
    // both ways and no latents.
    let whole = match patches {
        1 => steps,
        _ => warmup_steps.max(1).min(steps),
    };
    let hidden = (
        whole + (steps - whole) * patches,
        steps * (TEXT + IMAGE) * Case::HIDDEN,
    );
    let latents = ((steps - 1) * patches, (steps - 1) * IMAGE * Case::LATENT);
    let (up, back) = match placement {
        Placement::Linear => ((0, 0), latents),
        Placement::Folded => (hidden, (0, 0)),
    };
    let mut formula = vec![[hidden, up, (0, 0)]; stages];
    formula[0][1] = (0, 0);
    formula[stages - 1][0] = (0, 0);
    formula[stages - 1][2] = back;
    assert_eq!(counted, formula);

    let all = |stage: usize| {
        let sums = formula[stage].iter();
        sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    let Outcome { stats, .. } = case.run();
    for (stage, stats) in stats.iter().enumerate() {
        let of = |op| {
            let OpStats { calls, bytes, .. } = stats.get(&(op, None)).copied().unwrap_or_default();
            (calls, bytes)
        };
        assert_eq!(of("send"), all(stage), "{case:?}, stage {stage}");
    }
    // What one sends another receives.
    let calls = |op| -> usize {
        let calls = stats.iter().filter_map(|stats| stats.get(&(op, None)));
        calls.map(|one| one.calls).sum()
    };
    assert_eq!(calls("recv"), calls("send"));
}
