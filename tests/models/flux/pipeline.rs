//! Every recorded `FluxPipeline.__call__`, run again.

use serde_json::Value;
use xdit_models::{LoadOptions, ModelSource, Output, Pipeline, Request};

use crate::golden::{Golden, Recorder, max_abs, path, relative_l2, request as recorded, within};

/// Embeddings and blocks: both sides round every operation to f32 (6e-8) over sums of a few hundred terms in different
/// orders; the goldens' weights are such that f32 itself is at most 1e-6 from f64 in any block.
const STAGE: f64 = 2e-6;
/// Latents: what the stages leave, through up to four steps of which each feeds the next.
const LATENTS: f64 = 1e-5;
/// Images: the latents' difference through the decoder, whose output spans about [-1, 1].
const IMAGE: f64 = 5e-5;

fn pipeline(name: &str) -> Pipeline {
    let source =
        ModelSource::folder(path(&format!("pipelines/{name}"))).expect("a golden pipeline");
    let variant = (name == "flux-variant").then(|| "fp16".to_owned());
    let options = LoadOptions {
        threads: Some(2),
        variant,
        ..LoadOptions::default()
    };
    Pipeline::load(&source, &options, &mut ()).expect("a loaded pipeline")
}

fn request(meta: &Value) -> Request {
    let mut request = recorded(meta);
    // diffusers' own defaults, whatever the model.
    request.max_sequence_length = request.max_sequence_length.or(Some(512));
    request.guidance_scale = request.guidance_scale.or(Some(3.5));
    request
}

/// How far a tensor may be from its golden.
fn tolerance(name: &str) -> Option<f64> {
    if name.ends_with("input_ids") || name == "image" {
        return None; // compared in their own way
    }
    // Ids of positions are implied by the rotary tables; attention alone is fused with what follows it.
    if ["text_ids", "img_ids", "guidance"].contains(&name) || name.contains(".0.attn.") {
        return None;
    }
    Some(match name {
        // Noise agrees with torch to 3e-6 absolute: its own SIMD variants differ as much.
        "latents" => 3e-6,
        _ if name.starts_with("step.") || name == "vae.input" => LATENTS,
        _ => STAGE,
    })
}

/// Every tensor of the golden that is out of tolerance or missing, and the worst of each kind.
fn differences(golden: &Golden, seen: &Recorder) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in golden.names() {
        let Some(tolerance) = tolerance(&name) else {
            continue;
        };
        let Some(got) = seen.tensors.get(&name) else {
            wrong.push(format!("{name}: not shown"));
            continue;
        };
        let (shape, want) = golden.f32(&name);
        let mut got_values = got.to_vec_blocking::<f32>().unwrap();
        // diffusers broadcasts one negative prompt where this pipeline repeats it.
        if name.starts_with("negative_") && shape[0] == 1 && got.dim(0) > 1 {
            got_values.truncate(want.len());
        } else if got.shape() != shape {
            wrong.push(format!("{name}: shape {:?}, not {shape:?}", got.shape()));
            continue;
        }
        let apart = relative_l2(&got_values, &want);
        println!("{apart:9.2e} {name}");
        if !within(apart, tolerance) {
            wrong.push(format!("{name}: {apart:.2e} > {tolerance:.0e}"));
        }
    }
    wrong
}

fn check_ids(golden: &Golden, seen: &Recorder) {
    for name in golden
        .names()
        .iter()
        .filter(|name| name.ends_with("input_ids"))
    {
        let want = golden.ids(name);
        assert_eq!(seen.ids[name][..want.len()], want, "{name}");
    }
}

fn check_image(golden: &Golden, output: &Output) -> Vec<String> {
    let mut wrong = Vec::new();
    let (shape, want) = golden.f32("image");
    let float = output.float.as_ref().expect("an image");
    assert_eq!(float.shape(), shape);
    let apart = max_abs(&float.to_vec_blocking::<f32>().unwrap(), &want);
    if !within(apart, IMAGE) {
        wrong.push(format!("image: {apart:.2e} > {IMAGE:.0e}"));
    }
    let pixels = golden.pixels();
    let rgb: Vec<u8> = output
        .images
        .iter()
        .flat_map(|image| image.rgb.iter().copied())
        .collect();
    // A difference within IMAGE can only tip a rounding.
    let levels = pixels
        .iter()
        .zip(&rgb)
        .map(|(a, b)| a.abs_diff(*b))
        .max()
        .expect("pixels");
    if levels > 1 || pixels.len() != rgb.len() {
        wrong.push(format!("pixels: {levels} levels"));
    }
    wrong
}

fn run(pipeline_name: &str) {
    let pipe = pipeline(pipeline_name);
    let folder = path(&format!("cases/{pipeline_name}"));
    let mut cases: Vec<String> = std::fs::read_dir(&folder)
        .expect("cases")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    cases.sort_unstable();
    assert!(!cases.is_empty(), "no case in {}", folder.display());
    let mut wrong = Vec::new();
    for case in cases {
        let golden = Golden::read(&format!("cases/{pipeline_name}/{case}"));
        let mut seen = Recorder::default();
        let output = pipe
            .generate(&request(&golden.meta), &mut seen)
            .unwrap_or_else(|e| panic!("{case}: {e}"));
        check_ids(&golden, &seen);
        let found = differences(&golden, &seen)
            .into_iter()
            .chain(check_image(&golden, &output));
        wrong.extend(found.map(|line| format!("{case}: {line}")));
    }
    assert!(wrong.is_empty(), "{pipeline_name}:\n{}", wrong.join("\n"));
}

#[test]
fn flux_dev_agrees_with_diffusers() {
    run("flux-dev");
}

#[test]
fn flux_schnell_agrees_with_diffusers() {
    run("flux-schnell");
}

#[test]
fn flux_of_a_variant_agrees_with_diffusers() {
    run("flux-variant");
}
