//! Copies of the demo pipeline in which one file is broken.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::demo;

/// What is done to a file.
pub(crate) enum Damage {
    /// It is not there.
    Remove,
    /// It has this text instead.
    Write(&'static str),
    /// Its bytes are changed.
    Bytes(fn(&mut Vec<u8>)),
    /// A field of its JSON has this value, given as JSON.
    Set(&'static str, &'static str),
    /// Its safetensors header is changed; the data stays.
    Header(fn(&mut Value)),
    /// The middle element of a bf16 tensor is these bits.
    Poison(&'static str, u16),
}
use Damage::{Bytes, Header, Poison, Remove, Set, Write};

const INDEX: &str = "model_index.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";
const CLIP: &str = "text_encoder/config.json";
const CLIP_WEIGHTS: &str = "text_encoder/model.safetensors";
const CLIP_TOKENS: &str = "tokenizer/tokenizer.json";
const CLIP_OPTIONS: &str = "tokenizer/tokenizer_config.json";
const T5: &str = "text_encoder_2/config.json";
const T5_TOKENS: &str = "tokenizer_2/tokenizer.json";
const FLUX: &str = "transformer/config.json";
const FLUX_WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/config.json";
const VAE_WEIGHTS: &str = "vae/diffusion_pytorch_model.safetensors";

const POINTER: &str =
    "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 246144152\n";
const PAGE: &str = "\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>";

/// Each row: a file of the demo, what is done to it, and what the message must name. The exit code is 4.
pub(crate) const BROKEN_MODELS: &[(&str, Damage, &str)] = &[
    (INDEX, Remove, INDEX),
    (INDEX, Bytes(|b| b.truncate(40)), INDEX),
    (INDEX, Write("[1, 2]"), INDEX),
    (INDEX, Write("\u{0}\u{1}"), INDEX),
    (
        INDEX,
        Set("_class_name", r#""NoSuchPipeline""#),
        "NoSuchPipeline",
    ),
    (
        INDEX,
        Set("scheduler", r#"["diffusers", "NoSuchScheduler"]"#),
        "NoSuchScheduler",
    ),
    (
        INDEX,
        Set("vae", r#"["diffusers", "NoSuchVae"]"#),
        "NoSuchVae",
    ),
    (INDEX, Set("transformer", "[null, null]"), "transformer"),
    (SCHEDULER, Remove, SCHEDULER),
    (
        SCHEDULER,
        Set("num_train_timesteps", "0"),
        "num_train_timesteps",
    ),
    (SCHEDULER, Set("shift", r#""much""#), "shift"),
    (FLUX, Remove, FLUX),
    (FLUX, Write("{\"a\":"), FLUX),
    (FLUX, Set("num_attention_heads", "0"), "num_attention_heads"),
    (
        FLUX,
        Set("num_attention_heads", r#""four""#),
        "num_attention_heads",
    ),
    (FLUX, Set("num_attention_heads", "8"), "transformer"),
    (FLUX, Set("num_layers", "1000000000"), "num_layers"),
    (FLUX, Set("num_layers", "3"), "transformer_blocks.2"),
    (FLUX, Set("num_single_layers", "-1"), "num_single_layers"),
    (
        FLUX,
        Set("attention_head_dim", "4611686018427387904"),
        "attention_head_dim",
    ),
    (FLUX, Set("axes_dims_rope", "[7, 1]"), "axes_dims_rope"),
    (FLUX, Set("in_channels", "1e300"), "in_channels"),
    (
        CLIP,
        Set("num_hidden_layers", "1000000000"),
        "num_hidden_layers",
    ),
    (CLIP, Set("hidden_size", "0"), "hidden_size"),
    (CLIP, Set("hidden_act", r#""magic""#), "magic"),
    (T5, Set("num_heads", "0"), "num_heads"),
    (T5, Set("d_model", "[]"), "d_model"),
    (VAE, Set("block_out_channels", "[]"), "block_out_channels"),
    (VAE, Set("norm_num_groups", "0"), "norm_num_groups"),
    (VAE, Set("norm_num_groups", "7"), "norm_num_groups"),
    (VAE, Set("scaling_factor", "0.0"), "scaling_factor"),
    // What contradicts another file.
    (VAE, Set("out_channels", "1"), "`out_channels` must be 3"),
    (VAE, Set("in_channels", "4"), "`in_channels` must be 3"),
    (VAE, Set("latent_channels", "4"), "`in_channels` must be 16"),
    (
        CLIP,
        Set("max_position_embeddings", "64"),
        "text_encoder/config.json: `max_position_embeddings` must be at least 77",
    ),
    (
        CLIP_OPTIONS,
        Set("model_max_length", "78"),
        "text_encoder/config.json: `max_position_embeddings` must be at least 78",
    ),
    (
        CLIP,
        Set("vocab_size", "100"),
        "`vocab_size` must be more than",
    ),
    (CLIP, Set("hidden_size", "32"), "pooled_projection_dim"),
    (T5, Set("d_model", "32"), "joint_attention_dim"),
    (
        T5_TOKENS,
        Bytes(|b| template(b, 600, 1)),
        "tokenizer_2/tokenizer.json: `post_processor` must be at most 512 special tokens",
    ),
    (
        T5_TOKENS,
        Bytes(|b| template(b, 1, 99_999)),
        "text_encoder_2/config.json: `vocab_size` must be more than 99999",
    ),
    // What comes from Python, git, a browser.
    (SCHEDULER, Set("shift", "NaN"), "`shift` must be a number"),
    (VAE, Set("scaling_factor", "Infinity"), "scaling_factor"),
    (VAE, Set("scaling_factor", "1e999"), "scaling_factor"),
    (
        CLIP_WEIGHTS,
        Write(POINTER),
        "is a Git LFS pointer; `git lfs pull`",
    ),
    (
        CLIP_TOKENS,
        Write(POINTER),
        "tokenizer/tokenizer.json: is a Git LFS pointer",
    ),
    (INDEX, Write(POINTER), "is a Git LFS pointer"),
    (VAE_WEIGHTS, Write(PAGE), "is a web page"),
    (T5, Write(PAGE), "text_encoder_2/config.json: is a web page"),
    (
        FLUX,
        Set(
            "patch_size",
            r#"1, "quantization_config": {"quant_method": "bitsandbytes", "_load_in_4bit": true}"#,
        ),
        "quantised by bitsandbytes, 4 bit",
    ),
    (
        T5,
        Set(
            "d_ff",
            r#"64, "quantization_config": {"quant_method": "torchao", "quant_type": "int8wo"}"#,
        ),
        "quantised by torchao, int8wo",
    ),
    (FLUX_WEIGHTS, Remove, "transformer"),
    (
        FLUX_WEIGHTS,
        Bytes(|b| b.truncate(b.len() / 2)),
        FLUX_WEIGHTS,
    ),
    (
        FLUX_WEIGHTS,
        Bytes(|b| b.truncate(b.len() - 1)),
        FLUX_WEIGHTS,
    ),
    (FLUX_WEIGHTS, Bytes(|b| b.truncate(3)), FLUX_WEIGHTS),
    (FLUX_WEIGHTS, Bytes(Vec::clear), FLUX_WEIGHTS),
    (FLUX_WEIGHTS, Bytes(|b| b[..8].fill(0xff)), FLUX_WEIGHTS),
    (FLUX_WEIGHTS, Bytes(|b| b[8] = b'['), FLUX_WEIGHTS),
    (FLUX_WEIGHTS, Bytes(|b| b[9..40].fill(0x80)), FLUX_WEIGHTS),
    (
        FLUX_WEIGHTS,
        Header(|h| h["proj_out.weight"]["data_offsets"] = json!([0, 1u64 << 60])),
        "proj_out.weight",
    ),
    (
        FLUX_WEIGHTS,
        Header(|h| h["proj_out.weight"]["shape"] = json!([128, 64])),
        "proj_out.weight",
    ),
    (
        FLUX_WEIGHTS,
        Header(|h| h["proj_out.weight"]["shape"] = json!([1u64 << 62, 8])),
        "proj_out.weight",
    ),
    (
        FLUX_WEIGHTS,
        Header(|h| h["proj_out.weight"]["dtype"] = json!("I16")),
        "proj_out.weight",
    ),
    (
        FLUX_WEIGHTS,
        Header(|h| h["proj_out.weight"]["dtype"] = json!("X9")),
        FLUX_WEIGHTS,
    ),
    (
        FLUX_WEIGHTS,
        Header(|h| h["renamed"] = h["proj_out.weight"].take()),
        FLUX_WEIGHTS,
    ),
    (FLUX_WEIGHTS, Poison("proj_out.weight", 0x7fc0), "NaN"),
    (
        FLUX_WEIGHTS,
        Poison("proj_out.weight", 0xff80),
        "proj_out.weight",
    ),
    (VAE_WEIGHTS, Poison("decoder.conv_in.weight", 0x7fc0), "NaN"),
    (CLIP_WEIGHTS, Remove, "text_encoder"),
    (
        CLIP_WEIGHTS,
        Poison("final_layer_norm.weight", 0x7fc0),
        "NaN",
    ),
    (CLIP_TOKENS, Remove, "tokenizer"),
    (CLIP_TOKENS, Write("{}"), "tokenizer"),
    (T5_TOKENS, Bytes(|b| b.truncate(b.len() / 2)), "tokenizer_2"),
];

/// The tokenizer's template becomes `special` tokens of number `id` and the prompt.
fn template(bytes: &mut Vec<u8>, special: usize, id: u32) {
    let mut json: Value = serde_json::from_slice(bytes).expect("the demo's tokenizer");
    let token = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
    let mut parts = vec![token; special];
    parts.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
    json["post_processor"] = json!({
        "type": "TemplateProcessing", "single": parts, "pair": parts,
        "special_tokens": {"</s>": {"id": "</s>", "ids": [id], "tokens": ["</s>"]}}
    });
    *bytes = json.to_string().into_bytes();
}

/// Copies the demo to `folder`.
pub(crate) fn copy(folder: &Path) {
    copy_tree(&demo(), folder);
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a new folder");
    for entry in fs::read_dir(from).expect("the demo") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a copy");
        }
    }
}

impl Damage {
    /// Does it to `file`.
    pub(crate) fn apply(&self, file: &Path) {
        let read = || fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let bytes = match self {
            Remove => return fs::remove_file(file).expect("the file is there"),
            Write(text) => text.as_bytes().to_vec(),
            Bytes(change) => {
                let mut bytes = read();
                change(&mut bytes);
                bytes
            }
            Set(field, value) => {
                let mut json: Value = serde_json::from_slice(&read()).expect("the demo's JSON");
                assert!(
                    json.get(field).is_some(),
                    "{field} is not in {}",
                    file.display()
                );
                // Put together as text: the value may be what serde_json cannot hold.
                json[field] = json!("PLACE");
                json.to_string().replace("\"PLACE\"", value).into_bytes()
            }
            Header(change) => {
                let (mut header, data) = split(&read());
                change(&mut header);
                // A tensor that was taken away leaves null.
                let header = header.as_object_mut().expect("a header");
                header.retain(|_, entry| !entry.is_null());
                let header = json!(header).to_string();
                [
                    &(header.len() as u64).to_le_bytes(),
                    header.as_bytes(),
                    &data,
                ]
                .concat()
            }
            Poison(tensor, bits) => {
                let mut bytes = read();
                let (header, data) = split(&bytes);
                let entry = &header[tensor];
                assert_eq!(
                    entry["dtype"],
                    "BF16",
                    "{tensor} is not in {}",
                    file.display()
                );
                let offset =
                    |i: usize| entry["data_offsets"][i].as_u64().expect("an offset") as usize;
                let middle = bytes.len() - data.len() + (((offset(0) + offset(1)) / 2) & !1);
                bytes[middle..middle + 2].copy_from_slice(&bits.to_le_bytes());
                bytes
            }
        };
        fs::write(file, bytes).expect("the copy is writable");
    }
}

/// The header of a safetensors file, and its data.
fn split(bytes: &[u8]) -> (Value, Vec<u8>) {
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    (header, bytes[8 + length..].to_vec())
}
