//! HunyuanDiT against diffusers, stage by stage: the goldens of `tests/golden` (see FORMAT.md there), the tensors of the real
//! models.

mod encoders;
mod names;
mod pipeline;
mod sizes;
mod transformer;

use xdit_models::ModelSource;
use xdit_tests::goldens as golden;

use crate::golden::{Golden, path};

/// The golden pipelines, each with what makes it different.
const V1_1: &str = "hunyuan-v1.1"; // style and sizes are embedded
const V1_2: &str = "hunyuan-v1.2";

/// Embeddings, blocks and predictions: both sides round every operation to f32 (6e-8) over sums of a few hundred terms in
/// different orders; the goldens' weights are such that f32 itself is at most 1.2e-6 from f64 in any block.
const STAGE: f64 = 2e-6;

fn source(pipeline: &str) -> ModelSource {
    ModelSource::folder(path(&format!("pipelines/{pipeline}"))).expect("a golden pipeline")
}

/// The recorded calls of a pipeline, with their names.
fn cases(pipeline: &str) -> Vec<(String, Golden)> {
    let folder = path(&format!("cases/{pipeline}"));
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("cases")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    assert!(!names.is_empty(), "no case in {}", folder.display());
    names
        .into_iter()
        .map(|name| {
            let golden = Golden::read(&format!("cases/{pipeline}/{name}"));
            (name, golden)
        })
        .collect()
}

/// Shows how far a tensor is from its golden, and says so if that is too far.
fn compare(case: &str, golden: &Golden, name: &str, got: &xdit_kernels::Tensor) -> Option<String> {
    let (shape, want) = golden.f32(name);
    if got.shape() != shape {
        return Some(format!("{case}: {name}: {:?}, not {shape:?}", got.shape()));
    }
    let apart = golden::relative_l2(&got.to_f32_vec(), &want);
    println!("{apart:9.2e} {case} {name}");
    (!golden::within(apart, STAGE)).then(|| format!("{case}: {name}: {apart:.2e} > {STAGE:.0e}"))
}
