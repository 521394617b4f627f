//! Token ids, text encoders and the text inputs of the transformer.

use serde_json::Value;
use xdit_kernels::{DType, Device, Tensor};
use xdit_models::layers::Packing;
use xdit_models::sd3::{PromptEmbeds, Sd3Config};
use xdit_models::text::tokenizers::Tokenizer;
use xdit_models::text::{ClipOutput, ClipTextConfig, ClipTextModel, T5Config, T5Encoder};
use xdit_models::weights::Scope;
use xdit_models::{ModelIndex, ModelSource};
use xdit_tests::golden_run::cases_agree;
use xdit_tests::recorded::{cases, compare, source, tokenizer};

use super::{SD3_MEDIUM, SD35_LARGE, SD35_MEDIUM};
use crate::golden::{Golden, Recorder};

/// The encoders of a pipeline with their tokenizers.
struct Encoders {
    config: Sd3Config,
    clip: [(Tokenizer, ClipTextModel); 2],
    t5: Option<(Tokenizer, T5Encoder)>,
}

const CLIP: [&str; 2] = ["clip", "clip_2"];
/// CLIP's context.
const CLIP_LENGTH: usize = 77;
/// Arguments of a call, for each of its encoders.
const PROMPTS: [&str; 3] = ["prompt", "prompt_2", "prompt_3"];

impl Encoders {
    fn load(pipeline: &str, device: &Device) -> Self {
        let source = source(pipeline);
        let index = ModelIndex::read(&source).unwrap();
        let tokenizer = |name: &str| tokenizer(&source, name);
        let clip = |encoder: &str, name: &'static str, tokens: &str| {
            let config = source.config(&format!("{encoder}/config.json")).unwrap();
            let config = ClipTextConfig::read(&config).unwrap();
            let model = packed(&source, encoder, device, |scope, packing| {
                ClipTextModel::load_with_projection(&config, scope, packing).unwrap()
            });
            (tokenizer(tokens), model.named(name))
        };
        let t5 = index.components.get("text_encoder_3").map(|_| {
            let config = source.config("text_encoder_3/config.json").unwrap();
            let config = T5Config::read(&config).unwrap();
            let model = packed(&source, "text_encoder_3", device, |scope, packing| {
                T5Encoder::load(&config, scope, packing).unwrap()
            });
            (tokenizer("tokenizer_3"), model)
        });
        Self {
            config: Sd3Config::read(&source.config("transformer/config.json").unwrap()).unwrap(),
            clip: [
                clip("text_encoder", CLIP[0], "tokenizer"),
                clip("text_encoder_2", CLIP[1], "tokenizer_2"),
            ],
            t5,
        }
    }
}

fn packed<T>(
    source: &ModelSource,
    component: &str,
    device: &Device,
    pack: impl FnOnce(&Scope<'_>, &mut Packing<'_>) -> T,
) -> T {
    let weights = source.open_weights(component, None).unwrap();
    let packing = &mut Packing::new(DType::F32, device.clone());
    let model = pack(&Scope::root(&weights), packing);
    // Old CLIP checkpoints hold the numbers 0, 1, 2, … as well.
    let unused: Vec<_> = weights
        .unused()
        .into_iter()
        .filter(|name| !name.ends_with("position_ids"))
        .collect();
    assert!(
        unused.is_empty(),
        "{component}: nobody asked for {unused:?}"
    );
    model
}

/// What a call says for an argument, one text for each of `count` prompts.
fn texts(call: &Value, field: &str, count: usize) -> Option<Vec<String>> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let given = match &call[field] {
        Value::Array(list) => list.iter().map(text).collect(),
        Value::Null => return None,
        one => vec![text(one); count],
    };
    // diffusers takes an empty text for one that is not given.
    let empty = call[field].as_str() == Some("");
    (!empty).then_some(given)
}

/// The prompts of one branch for each encoder.
fn prompts(call: &Value, prefix: &str, count: usize) -> [Vec<String>; 3] {
    let first = texts(call, &format!("{prefix}prompt"), count);
    let first = first.unwrap_or_else(|| vec![String::new(); count]);
    PROMPTS.map(|field| {
        let own = texts(call, &format!("{prefix}{field}"), count);
        own.unwrap_or_else(|| first.clone())
    })
}

fn check_branch(encoders: &Encoders, case: &str, golden: &Golden, prefix: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let names = golden.names();
    let has = |name: &str| names.iter().any(|other| other == name);
    let call = &golden.meta["call"];
    let count = call["prompt"].as_array().map_or(1, Vec::len);
    let images = call["num_images_per_prompt"].as_u64().unwrap_or(1) as usize;
    // diffusers skips layers of the positive branch only.
    let clip_skip = match prefix {
        "" => call["clip_skip"].as_u64().unwrap_or(0) as usize,
        _ => 0,
    };
    let length = call["max_sequence_length"].as_u64().unwrap_or(256) as usize;
    let texts = prompts(call, prefix, count);
    let mut seen = Recorder::default();
    let ids_of = |tokenizer: &Tokenizer, texts: &[String], length: usize| -> Vec<Vec<u32>> {
        let encode = |text: &String| tokenizer.encode(text, length).unwrap().ids;
        texts.iter().map(encode).collect()
    };
    let mut clip: Vec<ClipOutput> = Vec::new();
    for (i, (tokenizer, model)) in encoders.clip.iter().enumerate() {
        let name = format!("{prefix}{}", CLIP[i]);
        let ids = ids_of(tokenizer, &texts[i], CLIP_LENGTH);
        assert_eq!(
            ids,
            golden.ids(&format!("{name}.input_ids")),
            "{case} {name}"
        );
        let output = model.forward_skipping(&ids, clip_skip, &mut seen).unwrap();
        let projected = output.text_embeds.as_ref().unwrap();
        wrong.extend(compare(
            case,
            golden,
            &format!("{name}.text_embeds"),
            projected,
        ));
        clip.push(output);
    }
    let t5 = encoders.t5.as_ref().map(|(tokenizer, model)| {
        let ids = ids_of(tokenizer, &texts[2], length);
        assert_eq!(ids, golden.ids(&format!("{prefix}t5.input_ids")), "{case}");
        model.forward(&ids, None, &mut seen).unwrap()
    });
    let joined =
        PromptEmbeds::join(&encoders.config, [&clip[0], &clip[1]], t5.as_ref(), length).unwrap();
    for (name, got) in [
        ("prompt_embeds", joined.prompt_embeds),
        ("pooled_prompt_embeds", joined.pooled),
    ] {
        let name = format!("{prefix}{name}");
        // Goldens hold a row for each image, or a single one if all are the same.
        let times = match golden.f32(&name).0[0] {
            1 => 1,
            _ => images,
        };
        let views: Vec<_> = (0..got.dim(0))
            .flat_map(|i| vec![got.view().narrow(0, i, 1).unwrap(); times])
            .collect();
        let all = Tensor::cat(&views, 0).unwrap();
        let all = match golden.f32(&name).0[0] {
            1 => all.narrow(0, 0, 1).unwrap(),
            _ => all,
        };
        wrong.extend(compare(case, golden, &name, &all));
    }
    for (name, got) in seen.tensors.iter().filter(|_| prefix.is_empty()) {
        if has(name) {
            wrong.extend(compare(case, golden, name, got));
        }
    }
    // The golden of the blocks has all that encoders show.
    let hidden = names.iter().filter(|name| name.contains(".hidden_states."));
    let hidden = hidden.filter(|name| name.starts_with("clip") || name.starts_with("t5"));
    for name in hidden.filter(|_| prefix.is_empty()) {
        assert!(
            seen.tensors.contains_key(name),
            "{case}: {name} was not shown"
        );
    }
    wrong
}

fn check(pipeline: &str) {
    let load = |device: &Device| Encoders::load(pipeline, device);
    cases_agree(&cases(pipeline), load, |encoders, case, golden, _| {
        let mut wrong = check_branch(encoders, case, golden, "");
        let mut names = golden.names().into_iter();
        if names.any(|name| name == "negative_prompt_embeds") {
            wrong.extend(check_branch(encoders, case, golden, "negative_"));
        }
        wrong
    });
}

#[test]
fn encoders_of_sd3_medium_agree_with_transformers() {
    check(SD3_MEDIUM);
}

#[test]
fn encoders_of_sd35_medium_agree_with_transformers() {
    check(SD35_MEDIUM);
}

#[test]
fn encoders_of_sd35_large_agree_with_transformers() {
    check(SD35_LARGE);
}
