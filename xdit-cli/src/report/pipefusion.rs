//! Stages and patches in the reports of a run: in the PNG's record, with `--json`, and in the last line.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use xdit_models::{Parallel, PipeFusion, Placement, Report, RunPlan, StageSplit, StageSummary};

/// `--pipefusion-placement`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PlacementName {
    /// Every stage has consecutive blocks.
    #[default]
    Linear,
    /// Every stage has blocks from both ends of the model.
    Folded,
}

impl From<Placement> for PlacementName {
    fn from(placement: Placement) -> Self {
        match placement {
            Placement::Linear => Self::Linear,
            Placement::Folded => Self::Folded,
        }
    }
}

impl From<PlacementName> for Placement {
    fn from(name: PlacementName) -> Self {
        match name {
            PlacementName::Linear => Self::Linear,
            PlacementName::Folded => Self::Folded,
        }
    }
}

/// The default, which is not written: records of earlier versions have none.
fn is_linear(name: &PlacementName) -> bool {
    *name == PlacementName::Linear
}

/// The stages and patches of an image.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct PipeFusionRecord {
    pub pipefusion_parallel_degree: usize,
    pub num_pipeline_patch: usize,
    pub warmup_steps: usize,
    /// The blocks of each stage, for any balance.
    pub attn_layer_num_for_pp: Vec<usize>,
    #[serde(default, skip_serializing_if = "is_linear")]
    pub placement: PlacementName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_drift: Option<f32>,
    /// The measurements, which determine nothing.
    #[serde(default)]
    pub measured: Measured,
}

/// The measurements of the replica of an image.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Measured {
    /// The drift of each step. `None` if nothing was compared.
    pub drift: Vec<Option<f64>>,
    /// The steps that ran whole.
    pub whole_steps: Vec<usize>,
    /// The steps among them that ran whole because of `max_drift`.
    pub refreshed_steps: Vec<usize>,
}

impl PipeFusionRecord {
    /// Returns the stages and patches of `parallel` and `plan`, or `None` with one stage and one patch.
    pub(crate) fn of(parallel: &Parallel, plan: &RunPlan) -> Option<Self> {
        let patches = plan.patches.count();
        (plan.stages.len() > 1 || patches > 1).then(|| Self {
            pipefusion_parallel_degree: plan.stages.len(),
            num_pipeline_patch: patches,
            warmup_steps: plan.schedule.warmup_steps,
            attn_layer_num_for_pp: plan.stages.iter().map(|stage| stage.blocks.len()).collect(),
            placement: plan.placement.into(),
            max_drift: parallel.pipefusion.max_drift,
            measured: Measured::default(),
        })
    }

    /// The options that it was taken from.
    pub(crate) fn options(&self) -> PipeFusion {
        let mut options = PipeFusion::default()
            .patches(self.num_pipeline_patch)
            .warmup_steps(self.warmup_steps)
            .stages(StageSplit::Blocks(self.attn_layer_num_for_pp.clone()));
        options.placement = Some(self.placement.into());
        options.max_drift = self.max_drift;
        options
    }
}

impl Measured {
    /// Returns the numbers of `report`, with drift in four digits.
    pub(crate) fn of(report: &Report) -> Self {
        Self {
            drift: report
                .drift
                .iter()
                .map(|drift| drift.map(rounded))
                .collect(),
            whole_steps: report.whole.clone(),
            refreshed_steps: report.refreshed.clone(),
        }
    }

    /// The largest drift of a step that used old keys and values.
    fn worst(&self) -> Option<f64> {
        let steps = self.drift.iter().enumerate();
        let lossy = steps.filter(|(step, _)| !self.whole_steps.contains(step));
        lossy.filter_map(|(_, drift)| *drift).max_by(f64::total_cmp)
    }
}

/// Rounds to four digits, because a sample of tokens has no more precision.
fn rounded(drift: f32) -> f64 {
    format!("{drift:.3e}").parse().unwrap_or(drift.into())
}

/// `--json`: stages and patches, and what each replica that had images measured and did.
pub(crate) fn report(plan: &RunPlan, max_drift: Option<f32>, reports: &[Report]) -> Value {
    let replicas = reports.iter().map(Measured::of).map(|measured| {
        json!({
            "drift": measured.drift,
            "worst_drift": measured.worst(),
            "whole_steps": measured.whole_steps,
            "whole_count": measured.whole_steps.len(),
            "refreshed_steps": measured.refreshed_steps,
            "refreshed_count": measured.refreshed_steps.len(),
        })
    });
    json!({
        "patches": plan.patches.count(),
        "warmup_steps": plan.schedule.warmup_steps,
        "max_drift": max_drift,
        "placement": PlacementName::from(plan.placement),
        "stages": plan.stages.iter().map(stage).collect::<Vec<_>>(),
        "replicas": replicas.collect::<Vec<_>>(),
    })
}

/// A stage's blocks: `{"first_block": 4, "blocks": 4, "ranges": [[4, 8]], "kinds": {"double": 0, "single": 4}}`.
pub(crate) fn stage(stage: &StageSummary) -> Value {
    let ranges = stage.blocks.ranges().iter();
    let ranges = ranges.map(|range| [range.start, range.end]);
    let kinds = stage.kinds.iter();
    let kinds = kinds.map(|(kind, count)| ((*kind).to_owned(), (*count).into()));
    json!({
        "first_block": stage.blocks.iter().next(),
        "blocks": stage.blocks.len(),
        "ranges": ranges.collect::<Vec<_>>(),
        "kinds": Map::from_iter(kinds),
    })
}

/// `4 patches, drift 0.12 at most, 3 of 20 steps whole for --max-drift`; nothing for one patch.
pub(crate) fn phrase(plan: &RunPlan, max_drift: Option<f32>, reports: &[Report]) -> Option<String> {
    let patches = plan.patches.count();
    if patches == 1 {
        return None;
    }
    let measured: Vec<Measured> = reports.iter().map(Measured::of).collect();
    let mut text = format!("{patches} patches");
    match measured
        .iter()
        .filter_map(Measured::worst)
        .max_by(f64::total_cmp)
    {
        Some(drift) => text += &format!(", drift {} at most", two_digits(drift)),
        None => text += ", every step whole",
    }
    if max_drift.is_some() {
        // Replicas decide together.
        let count = measured.iter().map(|m| m.refreshed_steps.len()).max();
        let count = count.unwrap_or(0);
        text += &format!(
            ", {count} of {} steps whole for --max-drift",
            plan.schedule.steps
        );
    }
    Some(text)
}

/// `0.12`, or `0.00034`.
fn two_digits(drift: f64) -> f64 {
    format!("{drift:.1e}").parse().unwrap_or(drift)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record() -> PipeFusionRecord {
        PipeFusionRecord {
            pipefusion_parallel_degree: 2,
            num_pipeline_patch: 5,
            warmup_steps: 2,
            attn_layer_num_for_pp: vec![3, 5],
            placement: PlacementName::Linear,
            max_drift: Some(0.1),
            measured: Measured {
                drift: vec![None, Some(0.5), Some(0.25), Some(0.375)],
                whole_steps: vec![0, 1],
                refreshed_steps: Vec::new(),
            },
        }
    }

    #[test]
    fn what_was_measured_decides_nothing() {
        let options = record().options();
        let expected = PipeFusion::default().patches(5).warmup_steps(2);
        let blocks = StageSplit::Blocks(vec![3, 5]);
        let expected = expected.max_drift(0.1).stages(blocks);
        assert_eq!(options, expected.placement(Placement::Linear));
    }

    #[test]
    fn a_record_needs_only_what_decides() {
        let text = r#"{"pipefusion_parallel_degree": 2, "num_pipeline_patch": 5, "warmup_steps": 2,
            "attn_layer_num_for_pp": [3, 5]}"#;
        let least: PipeFusionRecord = serde_json::from_str(text).unwrap();
        assert_eq!(
            (least.measured, least.max_drift),
            (Measured::default(), None)
        );
    }

    #[test]
    fn the_worst_is_that_of_a_lossy_step() {
        let mut measured = record().measured;
        assert_eq!(measured.worst(), Some(0.375));
        measured.whole_steps = vec![0, 1, 2, 3];
        assert_eq!(measured.worst(), None);
    }

    #[test]
    fn digits() {
        assert_eq!(rounded(0.123_456_7), 0.1235);
        assert_eq!(two_digits(0.1235), 0.12);
        assert_eq!(two_digits(0.000_034_56), 0.000_035);
        assert!(rounded(f32::NAN).is_nan());
    }
}
