//! The golden pipelines with their recorded calls, and comparisons of tensors of a run with recorded ones.

use xdit_kernels::Tensor;
use xdit_models::text::tokenizers::Tokenizer;
use xdit_models::{ModelIndex, ModelSource};

use crate::goldens::{Golden, Recorder, path, relative_l2, within};

/// Embeddings, blocks and predictions: both sides round every operation to f32 (6e-8) over sums of a few hundred terms in
/// different orders; the goldens' weights are such that f32 itself is at most 1.2e-6 from f64 in any block.
pub const STAGE: f64 = 2e-6;

/// A golden pipeline.
///
/// # Panics
/// If there is none of that name.
pub fn source(pipeline: &str) -> ModelSource {
    ModelSource::folder(path(&format!("pipelines/{pipeline}"))).expect("a golden pipeline")
}

/// The tokenizer in a folder of a pipeline.
///
/// # Panics
/// If there is none, or it cannot be read.
pub fn tokenizer(source: &ModelSource, folder: &str) -> Tokenizer {
    let index = ModelIndex::read(source).expect("a model index");
    let class = &index.components[folder].class;
    Tokenizer::read(source, folder, class).expect("a tokenizer")
}

/// The recorded calls of a pipeline, with their names.
///
/// # Panics
/// If there are none, or one is damaged.
pub fn cases(pipeline: &str) -> Vec<(String, Golden)> {
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
///
/// # Panics
/// If the golden has no such tensor.
pub fn compare(case: &str, golden: &Golden, name: &str, got: &Tensor) -> Option<String> {
    let (shape, want) = golden.f32(name);
    if got.shape() != shape {
        return Some(format!("{case}: {name}: {:?}, not {shape:?}", got.shape()));
    }
    let apart = relative_l2(&got.to_vec_blocking::<f32>().unwrap(), &want);
    println!("{apart:9.2e} {case} {name}");
    (!within(apart, STAGE)).then(|| format!("{case}: {name}: {apart:.2e} > {STAGE:.0e}"))
}

/// Compares what a run has shown from inside a transformer with its goldens, but for tensors that are computed `elsewhere`.
pub fn compare_inside(
    case: &str,
    golden: &Golden,
    seen: &Recorder,
    elsewhere: impl Fn(&str) -> bool,
) -> Vec<String> {
    let names = golden.names().into_iter();
    let inside =
        names.filter(|name| name.starts_with("transformer.") || name.starts_with("block."));
    let differs = |name: String| match seen.tensors.get(&name) {
        Some(got) => compare(case, golden, &name, got),
        None => Some(format!("{case}: {name}: not shown")),
    };
    inside
        .filter(|name| !elsewhere(name))
        .filter_map(differs)
        .collect()
}

/// `[b, c, h, w]` as tokens of 2×2 pixels that hold (row, column, channel).
///
/// # Panics
/// Unless there are four dims, of even height and width.
pub fn tokens(latents_bchw: &Tensor) -> Tensor {
    let &[b, c, h, w] = latents_bchw.shape() else {
        panic!("latents {latents_bchw:?}");
    };
    let view = latents_bchw
        .view()
        .reshape([b, c, h / 2, 2, w / 2, 2])
        .unwrap();
    let tokens = view
        .permute(&[0, 2, 4, 3, 5, 1])
        .unwrap()
        .to_tensor()
        .unwrap();
    tokens.reshape([b, h * w / 4, 4 * c]).unwrap()
}

/// Tokens of rows `start..start + len` as latents of this shape.
///
/// # Panics
/// If there are not so many rows and tokens.
pub fn pixels(tokens_blc: &Tensor, start: usize, &[b, c, h, w]: &[usize; 4]) -> Tensor {
    let rows = tokens_blc.narrow(0, start, b).unwrap();
    let view = rows
        .view()
        .reshape([b, h / 2, w / 2, 2, 2, c])
        .unwrap()
        .permute(&[0, 5, 1, 3, 2, 4])
        .unwrap();
    view.to_tensor().unwrap().reshape([b, c, h, w]).unwrap()
}
