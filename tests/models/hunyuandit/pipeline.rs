//! Every recorded `HunyuanDiTPipeline.__call__`, run again from prompt to pixels.

use xdit_models::{LoadOptions, Output, Pipeline};
use xdit_tests::recorded::{STAGE, cases, source};

use super::{V1_1, V1_2};
use crate::golden::{Golden, Recorder, max_abs, relative_l2, request, within};

/// Latents: what the stages leave, through up to six steps of which each feeds the next, with guidance that multiplies it.
pub(crate) const LATENTS: f64 = 1e-5;
/// Predictions: as latents, which the next step's model magnifies where it is steep, and guidance by up to 2 · scale − 1 = 9.
/// Tiers and orders of summing, alike in error elsewhere, were at 1.2e-5 to 2.2e-5 in the steepest.
const PREDICTION: f64 = 4e-5;
/// Images: the latents' difference through the decoder, whose output spans about [-1, 1].
const IMAGE: f64 = 5e-5;

/// How far a tensor may be from its golden; `None` for what is compared in its own way, or elsewhere.
fn tolerance(name: &str) -> Option<f64> {
    // Attention alone is fused with what follows it; half of the last layer's rows are never computed; what a scheduler scales
    // is its own test's.
    let fused = name.contains(".attn") || name == "transformer.proj_out";
    let elsewhere =
        name == "image" || name.ends_with("model_input") || name == "vae.post_quant_conv";
    (!fused && !elsewhere).then_some(match name {
        // Noise agrees with torch to 3e-6 absolute: its own SIMD variants differ as much.
        "latents" => 3e-6,
        _ if name.contains(".noise_pred") => PREDICTION,
        _ if name.starts_with("step.") || name == "vae.input" => LATENTS,
        _ => STAGE,
    })
}

/// Every tensor of the golden that is out of tolerance or missing.
fn differences(golden: &Golden, seen: &Recorder) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in golden.names() {
        if golden.is_whole(&name) {
            wrong.extend(whole_differs(golden, seen, &name));
            continue;
        }
        let Some(tolerance) = tolerance(&name) else {
            continue;
        };
        let Some(got) = seen.tensors.get(&name) else {
            wrong.push(format!("{name}: not shown"));
            continue;
        };
        let (mut shape, mut want) = golden.f32(&name);
        let mut values = got.to_vec_blocking::<f32>().unwrap();
        // diffusers runs both branches as one batch, the prompt's last; here the prompt's is shown.
        let batched = name.starts_with("transformer.") || name.starts_with("block.");
        if batched && shape[0] == 2 * got.dim(0) {
            shape[0] /= 2;
            want = want.split_off(want.len() / 2);
        }
        // Embeddings that are the same for all images are recorded once.
        if name.contains("prompt_embeds") && shape[0] == 1 && got.dim(0) > 1 {
            values.truncate(want.len());
        } else if got.shape() != shape {
            wrong.push(format!("{name}: {:?}, not {shape:?}", got.shape()));
            continue;
        }
        let apart = relative_l2(&values, &want);
        println!("{apart:9.2e} {name}");
        if !within(apart, tolerance) {
            wrong.push(format!("{name}: {apart:.2e} > {tolerance:.0e}"));
        }
    }
    wrong
}

/// Token ids, masks and timesteps agree exactly.
fn whole_differs(golden: &Golden, seen: &Recorder, name: &str) -> Option<String> {
    let want = golden.ids(name);
    if name.ends_with("input_ids") {
        let same = seen.ids.get(name) == Some(&want);
        return (!same).then(|| format!("{name}: other ids"));
    }
    if name.ends_with("attention_mask") {
        // What the encoders got shows in what they made, and in the masks that the transformer got.
        return None;
    }
    let Some(got) = seen.tensors.get(name) else {
        return Some(format!("{name}: not shown"));
    };
    let want: Vec<f32> = want.concat().iter().map(|value| *value as f32).collect();
    let mut got = got.to_vec_blocking::<f32>().unwrap();
    if got.len() > want.len() {
        // A mask that is the same for all images is recorded once.
        got.truncate(want.len());
    }
    (got != want).then(|| format!("{name}: other values"))
}

fn image_differs(golden: &Golden, output: &Output) -> Vec<String> {
    let mut wrong = Vec::new();
    let (shape, want) = golden.f32("image");
    let float = output.float.as_ref().expect("an image");
    assert_eq!(float.shape(), shape);
    let apart = max_abs(&float.to_vec_blocking::<f32>().unwrap(), &want);
    println!("{apart:9.2e} image");
    if !within(apart, IMAGE) {
        wrong.push(format!("image: {apart:.2e} > {IMAGE:.0e}"));
    }
    let pixels = output.images.iter().flat_map(|image| &image.rgb);
    // A difference within IMAGE can only tip a rounding.
    let levels = golden
        .pixels()
        .iter()
        .zip(pixels)
        .map(|(a, b)| a.abs_diff(*b))
        .max();
    if levels > Some(1) {
        wrong.push(format!("pixels: {levels:?} levels"));
    }
    wrong
}

pub(crate) fn load(name: &str) -> Pipeline {
    let options = LoadOptions {
        threads: Some(2),
        ..LoadOptions::default()
    };
    Pipeline::load(&source(name), &options, &mut ()).expect("a loaded pipeline")
}

fn run(name: &str) {
    let pipe = load(name);
    let mut wrong = Vec::new();
    // `eta` is no argument here: DDIM draws no noise.
    let cases = cases(name).into_iter();
    for (case, golden) in cases.filter(|(_, golden)| golden.meta["call"]["eta"].is_null()) {
        println!("{case}");
        let mut seen = Recorder::default();
        let output = pipe
            .generate(&request(&golden.meta), &mut seen)
            .unwrap_or_else(|e| panic!("{case}: {e}"));
        let found = differences(&golden, &seen)
            .into_iter()
            .chain(image_differs(&golden, &output));
        wrong.extend(found.map(|line| format!("{case}: {line}")));
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

#[test]
fn v1_1_draws_what_diffusers_draws() {
    run(V1_1);
}

#[test]
fn v1_2_draws_what_diffusers_draws() {
    run(V1_2);
}
