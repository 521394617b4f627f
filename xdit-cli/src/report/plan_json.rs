//! A plan as JSON, and the sums over its ranks and steps.

use serde_json::{Map, Value, json};
use xdit_kernels::DType;
use xdit_models::{RunPlan, StepTraffic, Traffic, axes};

use crate::report::pipefusion;
use crate::run::memory;

/// A plan and the other inputs of its report.
#[derive(Debug)]
pub(crate) struct Shown<'a> {
    /// The value of `--model`.
    pub model: &'a str,
    /// The dtype of weights and activations.
    pub dtype: DType,
    /// The drift above which a step runs whole.
    pub max_drift: Option<f32>,
    /// The plan.
    pub plan: &'a RunPlan,
    /// The table of stages over time for the first steps.
    pub schedule: Option<String>,
}

impl Shown<'_> {
    /// Returns the JSON of `plan --json`.
    pub(crate) fn json(&self) -> Value {
        let plan = self.plan;
        let patches = (0..plan.patches.count()).map(
            |patch| json!({"rows": plan.patches.rows(patch).len, "tokens": plan.patches.tokens(patch).len}),
        );
        let stages = plan.stages.iter().map(|stage| {
            let mut object = pipefusion::stage(stage);
            object["flops_share"] = json!(stage.flops_share);
            object["parameter_bytes"] = json!(stage.parameter_bytes);
            object
        });
        let axes = |of: &dyn Fn(usize) -> usize| {
            let names = axes::ALL.iter().enumerate();
            Map::from_iter(names.map(|(i, axis)| (axis.name().to_owned(), of(i).into())))
        };
        let ranks = plan.ranks.iter().map(|rank| {
            json!({
                "rank": rank.rank,
                "device": rank.device.as_ref().map(ToString::to_string),
                "coordinates": axes(&|i| rank.coordinates[i]),
                "parameter_bytes": rank.parameter_bytes,
                "kv_bytes": rank.kv_bytes,
                "text_kv_bytes": rank.text_kv_bytes,
            })
        });
        let [parameter_bytes, kv_bytes] = totals(plan);
        let (whole_step, patched_step) = plan.step_traffic();
        let links = (plan.stages.len() > 1).then(|| {
            json!({
                "whole_step": whole_step.as_ref().map(step),
                "patched_step": patched_step.as_ref().map(step),
                "all_steps": messages(&all_steps(plan)),
            })
        });
        json!({
            "model": self.model,
            "dtype": self.dtype.to_string(),
            "height": plan.height,
            "width": plan.width,
            "images": plan.images,
            "text_tokens": plan.text_tokens,
            "image_tokens": plan.image_tokens,
            "degrees": axes(&|i| plan.degrees.of(axes::ALL[i])),
            "mesh_order": plan.degrees.order,
            "patches": patches.collect::<Vec<_>>(),
            "num_inference_steps": plan.schedule.steps,
            "warmup_steps": plan.schedule.warmup_steps,
            "whole_count": whole_steps(plan),
            "lossy": plan.schedule.is_lossy(),
            "max_drift": self.max_drift,
            "placement": pipefusion::PlacementName::from(plan.placement),
            "stages": stages.collect::<Vec<_>>(),
            "ranks": ranks.collect::<Vec<_>>(),
            "links": links,
            "totals": {"parameter_bytes": parameter_bytes, "kv_bytes": kv_bytes},
            "memory": memory::estimate(plan),
            "schedule": self.schedule,
        })
    }
}

/// Returns how many steps always run whole.
pub(crate) fn whole_steps(plan: &RunPlan) -> usize {
    let steps = 0..plan.schedule.steps;
    steps.filter(|step| plan.schedule.is_whole(*step)).count()
}

/// Bytes of the transformer's parameters, each block counted once, and of keys and values of all ranks.
pub(crate) fn totals(plan: &RunPlan) -> [u64; 2] {
    let kept = plan.ranks.iter().map(|rank| rank.kv_bytes);
    // Over several GPUs, the first need not hold all blocks.
    let of_stages = plan.stages.iter().map(|stage| stage.parameter_bytes);
    [
        match plan.device_memory.len() {
            0 | 1 => plan.computing_memory().transformer,
            _ => of_stages.fold(0, u64::saturating_add),
        },
        kept.fold(0, u64::saturating_add),
    ]
}

/// Returns the messages of one replica between stages in all steps. The latents of the last step are not sent back.
pub(crate) fn all_steps(plan: &RunPlan) -> Traffic {
    let links = plan.stages.len().saturating_sub(1);
    let mut all = Traffic {
        messages: 0,
        bytes: 0,
    };
    let mut add = |traffic: &Traffic, times: usize| {
        let messages = traffic.messages.saturating_mul(times);
        all.messages = all.messages.saturating_add(messages);
        all.bytes = all
            .bytes
            .saturating_add(traffic.bytes.saturating_mul(times));
    };
    for (step, traffic) in plan.traffic.iter().enumerate().filter(|_| links > 0) {
        add(&traffic.forward, links);
        add(&traffic.upward, links);
        add(&traffic.skips, 1);
        add(&traffic.back, usize::from(step + 1 < plan.traffic.len()));
    }
    all
}

fn step(step: &StepTraffic) -> Value {
    json!({
        "forward": messages(&step.forward),
        "upward": messages(&step.upward),
        "back": messages(&step.back),
        "skips": messages(&step.skips),
    })
}

fn messages(traffic: &Traffic) -> Value {
    json!({"messages": traffic.messages, "bytes": traffic.bytes})
}
