//! Recorded calls of diffusers' pipelines, run again on every device and compared tensor by tensor.

use xdit_kernels::{DType, Device, Tier};
use xdit_models::{LoadOptions, Output, Pipeline, Request};

use crate::goldens::{Golden, Recorder, max_abs, relative_l2, request, within};
use crate::recorded::{STAGE, cases, source};

/// Latents: what the stages leave, through up to six steps of which each feeds the next, with guidance that multiplies it.
pub const LATENTS: f64 = 1e-5;
/// HunyuanDiT's predictions: as latents, which the next step's model magnifies where it is steep, and guidance by up to
/// 2 · scale − 1 = 9. Tiers and orders of summing, alike in error elsewhere, were at 1.2e-5 to 2.2e-5 in the steepest.
const PREDICTION: f64 = 4e-5;
/// Images: the latents' difference through the decoder, whose output spans about [-1, 1].
const IMAGE: f64 = 5e-5;

/// What the goldens of a family have of their own.
#[derive(Clone, Copy, Debug)]
pub struct GoldenFamily {
    /// Its name, as of the folder in `tests/models`.
    pub name: &'static str,
    /// Its golden pipelines.
    pub pipelines: &'static [&'static str],
    /// How far an f32 tensor may be from its golden; `None` for one that is compared elsewhere or never computed.
    tolerance: fn(&str) -> Option<f64>,
    /// Fills in what diffusers fills in whatever the model.
    complete: fn(Request) -> Request,
}

impl GoldenFamily {
    /// The recorded call of a pipeline of this family.
    pub fn request(&self, golden: &Golden) -> Request {
        (self.complete)(request(&golden.meta))
    }
}

/// Every family that has goldens.
pub const FAMILIES: [GoldenFamily; 3] = [
    GoldenFamily {
        name: "flux",
        pipelines: &["flux-dev", "flux-schnell", "flux-variant"],
        tolerance: |name| {
            // Ids of positions are implied by the rotary tables; attention alone is fused with what follows it.
            let implied = ["text_ids", "img_ids", "guidance"].contains(&name);
            (!implied && !name.contains(".0.attn.")).then(|| by_stage(name))
        },
        complete: |mut request| {
            request.max_sequence_length = request.max_sequence_length.or(Some(512));
            request.guidance_scale = request.guidance_scale.or(Some(3.5));
            request
        },
    },
    GoldenFamily {
        name: "sd3",
        pipelines: &["sd3-medium", "sd35-medium", "sd35-large"],
        tolerance: |name| {
            // Attention alone is fused with what follows it; positions are cropped in a test of their own.
            let elsewhere = name == "cropped_pos_embed" || name.contains(".attn");
            (!elsewhere).then(|| by_stage(name))
        },
        complete: |request| request,
    },
    GoldenFamily {
        name: "hunyuandit",
        pipelines: &["hunyuan-v1.1", "hunyuan-v1.2"],
        tolerance: |name| {
            // Attention alone is fused with what follows it; half of the last layer's rows are never computed; what a
            // scheduler scales is its own test's.
            let fused = name.contains(".attn") || name == "transformer.proj_out";
            let elsewhere = name.ends_with("model_input") || name == "vae.post_quant_conv";
            (!fused && !elsewhere).then(|| match name {
                _ if name.contains(".noise_pred") => PREDICTION,
                _ => by_stage(name),
            })
        },
        complete: |request| request,
    },
];

fn by_stage(name: &str) -> f64 {
    match name {
        // Noise agrees with torch to 3e-6 absolute: its own SIMD variants differ as much.
        "latents" => 3e-6,
        _ if name.starts_with("step.") || name == "vae.input" => LATENTS,
        _ => STAGE,
    }
}

/// Every device whose results are compared: the processor in each tier that it has.
pub fn devices() -> impl Iterator<Item = Device> {
    Tier::available().map(|tier| Device::cpu_with(tier).expect("a tier of this processor"))
}

/// The golden pipeline, loaded in a dtype on a device, and its family.
///
/// # Panics
/// If there is none of that name, or it cannot be loaded.
pub fn load(pipeline: &str, dtype: DType, device: &Device) -> (Pipeline, GoldenFamily) {
    let family = FAMILIES
        .into_iter()
        .find(|family| family.pipelines.contains(&pipeline))
        .expect("a pipeline of a family");
    let options = LoadOptions {
        dtype,
        device: device.clone(),
        threads: Some(2),
        variant: (pipeline == "flux-variant").then(|| "fp16".to_owned()),
        ..LoadOptions::default()
    };
    let loaded = Pipeline::load(&source(pipeline), &options, &mut ());
    (loaded.expect("a loaded pipeline"), family)
}

/// The recorded calls of a pipeline that can be repeated.
///
/// # Panics
/// If there are none, or one is damaged.
pub fn drawable(pipeline: &str) -> Vec<(String, Golden)> {
    let mut cases = cases(pipeline);
    // `eta` is no argument here: DDIM draws no noise.
    cases.retain(|(_, golden)| golden.meta["call"]["eta"].is_null());
    cases
}

/// Runs recorded calls of a pipeline in f32 on a device, and compares what comes out.
///
/// # Panics
/// If a call fails, or an image is not diffusers'.
pub fn images_match(pipeline: &str, device: &Device, cases: &[(String, Golden)]) {
    let (pipe, family) = load(pipeline, DType::F32, device);
    let mut wrong = Vec::new();
    for (case, golden) in cases {
        println!("{device}: {case}");
        let found = match pipe.generate(&family.request(golden), &mut ()) {
            Ok(output) => image_differs(golden, &output),
            Err(error) => vec![error.to_string()],
        };
        wrong.extend(found.iter().map(|line| format!("{device}: {case}: {line}")));
    }
    assert!(wrong.is_empty(), "{pipeline}:\n{}", wrong.join("\n"));
}

/// Runs every recorded call of a pipeline on every device.
///
/// # Panics
/// If a call fails, or a tensor, an id or a pixel is not what diffusers computed.
pub fn goldens_match(pipeline: &str) {
    let cases = drawable(pipeline);
    let mut wrong = Vec::new();
    for device in devices() {
        let (pipe, family) = load(pipeline, DType::F32, &device);
        for (case, golden) in &cases {
            println!("{device}: {case}");
            let found = golden_matches(&pipe, &family, golden);
            wrong.extend(found.iter().map(|line| format!("{device}: {case}: {line}")));
        }
    }
    assert!(wrong.is_empty(), "{pipeline}:\n{}", wrong.join("\n"));
}

/// Loads a model on every device, and checks each recorded case with it.
///
/// # Panics
/// With the lines that `check` returns.
pub fn cases_agree<M>(
    cases: &[(String, Golden)],
    load: impl Fn(&Device) -> M,
    check: impl Fn(&M, &str, &Golden, &Device) -> Vec<String>,
) {
    let mut wrong = Vec::new();
    for device in devices() {
        let model = load(&device);
        for (case, golden) in cases {
            wrong.extend(check(&model, &format!("{device}: {case}"), golden, &device));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs a recorded call, and says of every tensor that is missing or not what diffusers computed.
fn golden_matches(pipe: &Pipeline, family: &GoldenFamily, golden: &Golden) -> Vec<String> {
    let mut seen = Recorder::default();
    let output = match pipe.generate(&family.request(golden), &mut seen) {
        Ok(output) => output,
        Err(error) => return vec![error.to_string()],
    };
    let mut wrong = image_differs(golden, &output);
    for name in golden.names() {
        if golden.is_whole(&name) {
            wrong.extend(whole_differs(golden, &seen, &name));
        } else if name != "image"
            && let Some(tolerance) = (family.tolerance)(&name)
        {
            wrong.extend(tensor_differs(golden, &seen, &name, tolerance));
        }
    }
    wrong
}

fn tensor_differs(golden: &Golden, seen: &Recorder, name: &str, tolerance: f64) -> Option<String> {
    let Some(got) = seen.tensors.get(name) else {
        return Some(format!("{name}: not shown"));
    };
    let (mut shape, mut want) = golden.f32(name);
    let mut values = got.to_vec_blocking::<f32>().unwrap();
    // diffusers runs both branches as one batch, the prompt's last; here the prompt's is shown.
    let batched = name.starts_with("transformer.") || name.starts_with("block.");
    if batched && shape[0] == 2 * got.dim(0) {
        shape[0] /= 2;
        want = want.split_off(want.len() / 2);
    }
    // It broadcasts embeddings that are the same for all images, which this pipeline repeats.
    if name.contains("prompt_embeds") && shape[0] == 1 && got.dim(0) > 1 {
        values.truncate(want.len());
    } else if got.shape() != shape {
        return Some(format!("{name}: {:?}, not {shape:?}", got.shape()));
    }
    let apart = relative_l2(&values, &want);
    println!("{apart:9.2e} {name}");
    (!within(apart, tolerance)).then(|| format!("{name}: {apart:.2e} > {tolerance:.0e}"))
}

/// Token ids, masks and timesteps agree exactly. Those that are the same for all images are recorded once.
fn whole_differs(golden: &Golden, seen: &Recorder, name: &str) -> Option<String> {
    let want = golden.ids(name);
    if name.ends_with("input_ids") {
        let same = seen.ids.get(name).is_some_and(|got| got.starts_with(&want));
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
    let same = got.to_vec_blocking::<f32>().unwrap().starts_with(&want);
    (!same).then(|| format!("{name}: other values"))
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
    let want = golden.pixels();
    let got: Vec<u8> = output
        .images
        .iter()
        .flat_map(|image| image.rgb.clone())
        .collect();
    let levels = want.iter().zip(&got).map(|(a, b)| a.abs_diff(*b)).max();
    // A difference within IMAGE can only tip a rounding.
    if levels > Some(1) || want.len() != got.len() {
        wrong.push(format!("pixels: {levels:?} levels"));
    }
    wrong
}
