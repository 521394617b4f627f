//! Token ids, attention masks and text encoders.

use serde_json::Value;
use xdit_kernels::{DType, Device, Tensor};
use xdit_models::ModelSource;
use xdit_models::layers::Packing;
use xdit_models::text::tokenizers::{Encoded, Tokenizer};
use xdit_models::text::{BertConfig, BertEncoder, T5Config, T5Encoder};
use xdit_models::weights::{Scope, Weights};
use xdit_tests::golden_run::cases_agree;
use xdit_tests::recorded::{cases, compare, source, tokenizer};

use super::{V1_1, V1_2};
use crate::golden::{Golden, Recorder};

/// Tokens that the encoders get (diffusers `HunyuanDiTPipeline.__call__`).
const LENGTHS: [usize; 2] = [77, 256];

/// The encoders of a pipeline with their tokenizers.
struct Encoders {
    tokenizers: [Tokenizer; 2],
    bert: BertEncoder,
    t5: T5Encoder,
}

impl Encoders {
    fn load(pipeline: &str, device: &Device) -> Self {
        let source = source(pipeline);
        let tokenizer = |name: &str| tokenizer(&source, name);
        let config = |folder| source.config(&format!("{folder}/config.json")).unwrap();
        let packing = &mut Packing::new(DType::F32, device.clone());
        let weights = open(&source, "text_encoder");
        let bert = BertConfig::read(&config("text_encoder")).unwrap();
        let bert = BertEncoder::load(&bert, &Scope::root(&weights), packing).unwrap();
        let unused = weights.unused();
        assert!(
            unused.iter().all(|name| name.starts_with("pooler.")),
            "nobody asked for {unused:?}"
        );
        let weights = open(&source, "text_encoder_2");
        let t5 = T5Config::read(&config("text_encoder_2")).unwrap();
        let t5 = T5Encoder::load(&t5, &Scope::root(&weights), packing).unwrap();
        let unused = weights.unused();
        assert!(unused.is_empty(), "nobody asked for {unused:?}");
        Self {
            tokenizers: ["tokenizer", "tokenizer_2"].map(tokenizer),
            bert,
            t5,
        }
    }
}

fn open(source: &ModelSource, component: &str) -> Weights {
    source.open_weights(component, None).unwrap()
}

/// The prompts of one branch, as many as the call has.
fn prompts(call: &Value, prefix: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    match &call[format!("{prefix}prompt")] {
        Value::Array(list) => list.iter().map(text).collect(),
        Value::Null => vec![String::new(); call["prompt"].as_array().map_or(1, Vec::len)],
        one => vec![text(one)],
    }
}

/// Each row of embeddings once for each image of its prompt, or only the first where the golden has one for all.
fn rows(got: &Tensor, golden: &Golden, name: &str) -> Tensor {
    let wanted = golden.f32(name).0[0];
    if wanted == 1 {
        return got.narrow(0, 0, 1).unwrap();
    }
    let times = wanted / got.dim(0);
    let views: Vec<_> = (0..wanted)
        .map(|i| got.view().narrow(0, i / times, 1).unwrap())
        .collect();
    Tensor::cat(&views, 0).unwrap()
}

fn check_branch(encoders: &Encoders, case: &str, golden: &Golden, prefix: &str) -> Vec<String> {
    let names = golden.names();
    let has = |name: &str| names.iter().any(|other| other == name);
    let texts = prompts(&golden.meta["call"], prefix);
    let mut seen = Recorder::default();
    let mut inputs = Vec::new();
    for (i, name) in ["bert", "t5"].into_iter().enumerate() {
        let encode = |text: &String| encoders.tokenizers[i].encode(text, LENGTHS[i]).unwrap();
        let encoded: Vec<Encoded> = texts.iter().map(encode).collect();
        let ids: Vec<Vec<u32>> = encoded.iter().map(|row| row.ids.clone()).collect();
        let name = format!("{prefix}{name}");
        assert_eq!(
            ids,
            golden.ids(&format!("{name}.input_ids")),
            "{case} {name}"
        );
        let mask: Vec<bool> = encoded.iter().flat_map(Encoded::attention_mask).collect();
        let wanted = golden.ids(&format!("{name}.attention_mask")).concat();
        assert!(
            mask.iter()
                .copied()
                .eq(wanted.into_iter().map(|id| id == 1)),
            "{case} {name}: its mask"
        );
        inputs.push((ids, mask));
    }
    let [(ids, mask), (ids_2, mask_2)] = inputs.as_slice() else {
        panic!("two encoders");
    };
    let embeds = encoders.bert.forward(ids, Some(mask), &mut seen).unwrap();
    let embeds_2 = encoders.t5.forward(ids_2, Some(mask_2), &mut seen).unwrap();
    let mut wrong = Vec::new();
    for (name, got) in [("prompt_embeds", embeds), ("prompt_embeds_2", embeds_2)] {
        let name = format!("{prefix}{name}");
        if has(&name) {
            wrong.extend(compare(case, golden, &name, &rows(&got, golden, &name)));
        }
    }
    // The first call of each encoder is recorded: that of the prompt itself.
    for name in names.iter().filter(|_| prefix.is_empty()) {
        if name.starts_with("bert.hidden_states.") || name.starts_with("t5.hidden_states.") {
            let got = seen.tensors.get(name);
            let got = got.unwrap_or_else(|| panic!("{case}: {name} was not shown"));
            wrong.extend(compare(case, golden, name, got));
        }
    }
    wrong
}

fn check(pipeline: &str) {
    let cases = cases(pipeline);
    let names = cases.iter().flat_map(|(_, golden)| golden.names());
    let embeds = names.filter(|n| n.contains("prompt_embeds")).count();
    let load = |device: &Device| Encoders::load(pipeline, device);
    cases_agree(&cases, load, |encoders, case, golden, _| {
        let mut wrong = check_branch(encoders, case, golden, "");
        let mut names = golden.names().into_iter();
        if names.any(|name| name == "negative_bert.input_ids") {
            wrong.extend(check_branch(encoders, case, golden, "negative_"));
        }
        wrong
    });
    assert!(embeds > 4, "{pipeline} has {embeds} recorded embeddings");
}

#[test]
fn encoders_of_v1_1_agree_with_transformers() {
    check(V1_1);
}

#[test]
fn encoders_of_v1_2_agree_with_transformers() {
    check(V1_2);
}
