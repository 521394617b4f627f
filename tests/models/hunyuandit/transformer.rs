//! Every recorded step through the transformer, from the golden latents and text embeddings before it.

use xdit_kernels::{DType, Device, Tensor};
use xdit_models::hunyuandit::{
    HunyuanConfig, HunyuanInput, HunyuanPositions, HunyuanText, HunyuanTransformer,
};
use xdit_models::layers::Packing;
use xdit_models::weights::Scope;
use xdit_tests::golden_run::cases_agree;
use xdit_tests::recorded::{cases, compare, compare_inside, pixels, source, tokens};

use super::{V1_1, V1_2};
use crate::golden::{Golden, Recorder};

fn load(pipeline: &str, device: &Device) -> HunyuanTransformer {
    let source = source(pipeline);
    let config = HunyuanConfig::read(&source.config("transformer/config.json").unwrap()).unwrap();
    let weights = source.open_weights("transformer", None).unwrap();
    let packing = &mut Packing::new(DType::F32, device.clone());
    let model = HunyuanTransformer::load(&config, &Scope::root(&weights), packing).unwrap();
    let unused = weights.unused();
    assert!(unused.is_empty(), "nobody asked for {unused:?}");
    model
}

/// The case's prompts as the transformer reads them, the negative ones before the others, as diffusers stacks them.
fn text(
    model: &HunyuanTransformer,
    golden: &Golden,
    guided: bool,
    device: &Device,
    seen: &mut Recorder,
) -> HunyuanText {
    let prefixes: &[&str] = if guided { &["negative_", ""] } else { &[""] };
    let embeds = ["prompt_embeds", "prompt_embeds_2"].map(|name| {
        let parts: Vec<_> = prefixes
            .iter()
            .map(|prefix| golden.tensor(&format!("{prefix}{name}"), device))
            .collect();
        Tensor::cat(&parts.iter().map(Tensor::view).collect::<Vec<_>>(), 0).unwrap()
    });
    let masks = ["text_embedding_mask", "text_embedding_mask_t5"].map(|name| {
        let of = |prefix| golden.ids(&format!("{prefix}{name}")).concat();
        let ids = prefixes.iter().flat_map(of);
        ids.map(|id| id != 0).collect::<Vec<bool>>()
    });
    let sizes = match model.config().style_and_size {
        true => golden.f32("image_meta_size").1.try_into().unwrap(),
        false => [0.0; 6],
    };
    let [bert, t5] = &embeds;
    let [mask, mask_t5] = &masks;
    model
        .embed_text([bert, t5], [mask, mask_t5], &sizes, seen)
        .unwrap()
}

/// The recorded steps of one case: what is out of tolerance.
fn check_case(
    model: &HunyuanTransformer,
    case: &str,
    golden: &Golden,
    device: &Device,
) -> Vec<String> {
    let names = golden.names();
    let has = |name: &str| names.iter().any(|other| other == name);
    let guided = has("negative_prompt_embeds");
    let timesteps = golden.ids("timesteps").concat();
    let initial = golden.tensor("latents", device);
    let shape: [usize; 4] = initial.shape().try_into().unwrap();
    let [b, _, h, w] = shape;
    let mut seen = Recorder::default();
    let text = text(model, golden, guided, device, &mut seen);
    let positions = HunyuanPositions::new(model.config(), h / 2, w / 2, device).unwrap();

    let mut wrong = Vec::new();
    for (name, got) in [("cos", positions.cos()), ("sin", positions.sin())] {
        wrong.extend(compare(
            case,
            golden,
            &format!("image_rotary_emb.{name}"),
            got,
        ));
    }
    for (step, timestep) in timesteps.iter().enumerate() {
        let latents = match step {
            0 => tokens(&initial),
            _ => tokens(&golden.tensor(&format!("step.{}.latents", step - 1), device)),
        };
        let stacked = match guided {
            true => Tensor::cat(&[latents.view(), latents.view()], 0).unwrap(),
            false => latents.clone(),
        };
        let input = HunyuanInput {
            latents: &stacked,
            text: &text,
            timestep: &vec![*timestep as f32; stacked.dim(0)],
            positions: &positions,
        };
        let mut silent = Recorder::default();
        let observer = if step == 0 { &mut seen } else { &mut silent };
        let prediction = model
            .forward(&input, &mut model.attention(), observer)
            .unwrap();
        let results = match guided {
            true => vec![
                ("noise_pred_uncond", pixels(&prediction, 0, &shape)),
                ("noise_pred_cond", pixels(&prediction, b, &shape)),
            ],
            false => vec![("noise_pred", pixels(&prediction, 0, &shape))],
        };
        for (name, got) in results {
            let name = format!("step.{step}.{name}");
            wrong.extend(compare(case, golden, &name, &got));
        }
    }
    // Attention alone is fused with what follows it; half of the last layer's rows are never computed.
    wrong.extend(compare_inside(case, golden, &seen, |name| {
        name.contains(".0.attn") || name == "transformer.proj_out"
    }));
    wrong
}

fn check(pipeline: &str) {
    // mT5's embeddings are large, and recorded in few cases; the others' steps are those of whole pipelines.
    let recorded: Vec<_> = cases(pipeline)
        .into_iter()
        .filter(|(_, golden)| golden.names().iter().any(|name| name == "prompt_embeds_2"))
        .collect();
    assert!(!recorded.is_empty(), "{pipeline}: no case with embeddings");
    cases_agree(&recorded, |device| load(pipeline, device), check_case);
}

#[test]
fn transformer_with_sizes_and_style_agrees_with_diffusers() {
    check(V1_1);
}

#[test]
fn transformer_without_agrees_with_diffusers() {
    check(V1_2);
}
