//! Every recorded step through the transformer, from the golden latents before it.

use xdit_kernels::{DType, Device, Tensor};
use xdit_models::layers::Packing;
use xdit_models::sd3::{Sd3Config, Sd3Input, Sd3Positions, Sd3Transformer};
use xdit_models::weights::Scope;
use xdit_tests::golden_run::cases_agree;
use xdit_tests::recorded::{cases, compare, compare_inside, pixels, source, tokens};

use super::{SD3_MEDIUM, SD35_LARGE, SD35_MEDIUM};
use crate::golden::{Golden, Recorder};

fn load(pipeline: &str, device: &Device) -> Sd3Transformer {
    let source = source(pipeline);
    let config = Sd3Config::read(&source.config("transformer/config.json").unwrap()).unwrap();
    let weights = source.open_weights("transformer", None).unwrap();
    let packing = &mut Packing::new(DType::F32, device.clone());
    let model = Sd3Transformer::load(&config, &Scope::root(&weights), packing).unwrap();
    let unused = weights.unused();
    assert!(unused.is_empty(), "nobody asked for {unused:?}");
    model
}

/// `times` rows: those of `x`, or its only one again and again.
fn rows(x: &Tensor, times: usize) -> Tensor {
    if x.dim(0) == times {
        return x.clone();
    }
    assert_eq!(x.dim(0), 1);
    Tensor::cat(&vec![x.view(); times], 0).unwrap()
}

/// A case's text: unconditional rows, where there are any, before the conditional ones, as diffusers stacks them.
fn text(golden: &Golden, name: &str, guided: bool, device: &Device) -> Tensor {
    let positive = golden.tensor(name, device);
    if !guided {
        return positive;
    }
    let negative = rows(
        &golden.tensor(&format!("negative_{name}"), device),
        positive.dim(0),
    );
    Tensor::cat(&[negative.view(), positive.view()], 0).unwrap()
}

/// The recorded steps of one case: what is out of tolerance.
fn check_case(model: &Sd3Transformer, case: &str, golden: &Golden, device: &Device) -> Vec<String> {
    let names = golden.names();
    let has = |name: &str| names.iter().any(|other| other == name);
    let guided = has("negative_prompt_embeds");
    let (_, timesteps) = golden.f32("timesteps");
    let initial = golden.tensor("latents", device);
    let shape: [usize; 4] = initial.shape().try_into().unwrap();
    let [b, _, h, w] = shape;
    let call = &golden.meta["call"];
    let skipped: Vec<usize> = call["skip_guidance_layers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|layer| layer.as_u64().unwrap() as usize)
        .collect();

    let embeds = text(golden, "prompt_embeds", guided, device);
    let pooled = text(golden, "pooled_prompt_embeds", guided, device);
    let both = model.embed_text(&embeds, &pooled).unwrap();
    let positive = [&embeds, &pooled].map(|x| x.narrow(0, x.dim(0) - b, b).unwrap());
    let positive = model.embed_text(&positive[0], &positive[1]).unwrap();
    let positions = Sd3Positions::new(model.config(), embeds.dim(1), h / 2, w / 2).unwrap();

    let mut wrong = Vec::new();
    for (step, timestep) in timesteps.iter().enumerate() {
        let latents = match step {
            0 => tokens(&initial),
            _ => tokens(&golden.tensor(&format!("step.{}.latents", step - 1), device)),
        };
        let stacked = match guided {
            true => Tensor::cat(&[latents.view(), latents.view()], 0).unwrap(),
            false => latents.clone(),
        };
        let mut seen = Recorder::default();
        let run = |latents: &Tensor, text, skip_layers: &[usize], seen: &mut Recorder| {
            let input = Sd3Input {
                latents,
                text,
                timestep: &vec![*timestep; latents.dim(0)],
                positions: &positions,
                skip_layers,
            };
            model.forward(&input, &mut model.attention(), seen).unwrap()
        };
        let prediction = run(&stacked, &both, &[], &mut seen);
        let mut results = match guided {
            true => vec![
                ("noise_pred_uncond", pixels(&prediction, 0, &shape)),
                ("noise_pred_cond", pixels(&prediction, b, &shape)),
            ],
            false => vec![("noise_pred", pixels(&prediction, 0, &shape))],
        };
        if has(&format!("step.{step}.noise_pred_skip_layers")) {
            let prediction = run(&latents, &positive, &skipped, &mut Recorder::default());
            results.push(("noise_pred_skip_layers", pixels(&prediction, 0, &shape)));
        }
        for (name, got) in results {
            let name = format!("step.{step}.{name}");
            wrong.extend(compare(case, golden, &name, &got));
        }
        if step == 0 {
            // Attention alone is fused with what follows it.
            let fused = |name: &str| name.contains(".0.attn");
            wrong.extend(compare_inside(case, golden, &seen, fused));
        }
    }
    wrong
}

fn check(pipeline: &str) {
    let load = |device: &Device| load(pipeline, device);
    cases_agree(&cases(pipeline), load, check_case);
}

#[test]
fn transformer_of_sd3_medium_agrees_with_diffusers() {
    check(SD3_MEDIUM);
}

#[test]
fn transformer_of_sd35_medium_agrees_with_diffusers() {
    check(SD35_MEDIUM);
}

#[test]
fn transformer_of_sd35_large_agrees_with_diffusers() {
    check(SD35_LARGE);
}
