//! A wider demo of zeros: a pipeline of any size that takes no space on the disk.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::broken_model::copy;

/// The demo's transformer is this wide, and so is its T5.
const WIDTH: u64 = 128;

/// Writes to `folder` the demo's pipeline, `times` as wide, its weights zeros of `dtype` in sparse files. Returns how many
/// weights there are.
pub(crate) fn wide(folder: &Path, times: u64, dtype: &str) -> u64 {
    copy(folder);
    let heads = json!(4 * times);
    configure(
        folder,
        "transformer",
        &[
            ("num_attention_heads", &heads),
            ("joint_attention_dim", &json!(WIDTH * times)),
        ],
    );
    configure(
        folder,
        "text_encoder_2",
        &[
            ("num_heads", &heads),
            ("d_model", &json!(WIDTH * times)),
            ("d_ff", &json!(2 * WIDTH * times)),
        ],
    );
    let files = [
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ];
    files
        .iter()
        .map(|file| {
            let grows = file.starts_with("transformer") || file.starts_with("text_encoder_2");
            zeros(&folder.join(file), if grows { times } else { 1 }, dtype)
        })
        .sum()
}

fn configure(folder: &Path, component: &str, fields: &[(&str, &Value)]) {
    let file = folder.join(component).join("config.json");
    let mut config: Value =
        serde_json::from_slice(&fs::read(&file).expect("a configuration")).expect("JSON");
    for (name, value) in fields {
        config[name] = (*value).clone();
    }
    fs::write(file, config.to_string()).expect("the copy is writable");
}

/// Replaces a safetensors file by one of zeros, with every multiple of the demo's width `times` as large.
fn zeros(file: &Path, times: u64, dtype: &str) -> u64 {
    let bytes = fs::read(file).expect("the demo's weights");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: Map<String, Value> =
        serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let size: u64 = if dtype == "F32" { 4 } else { 2 };
    let (mut count, mut wide) = (0, Map::new());
    for (name, entry) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        let shape: Vec<u64> = serde_json::from_value(entry["shape"].clone()).expect("a shape");
        let shape: Vec<u64> = (shape.iter().enumerate())
            .map(|(axis, dim)| match (name.as_str(), axis) {
                // The sinusoidal embedding of the time has 256 channels whatever the width.
                ("time_text_embed.timestep_embedder.linear_1.weight", 1) => *dim,
                (bias, 1) if bias.ends_with("relative_attention_bias.weight") => dim * times,
                _ if dim % WIDTH == 0 => dim * times,
                _ => *dim,
            })
            .collect();
        let end = count + shape.iter().product::<u64>();
        let offsets = [count * size, end * size];
        wide.insert(
            name.clone(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}),
        );
        count = end;
    }
    let mut header = Value::Object(wide).to_string();
    header += &" ".repeat(header.len().next_multiple_of(64) - header.len());
    let mut out = fs::File::create(file).expect("the copy is writable");
    out.write_all(&(header.len() as u64).to_le_bytes())
        .expect("room on the disk");
    out.write_all(header.as_bytes()).expect("room on the disk");
    out.set_len(8 + header.len() as u64 + count * size)
        .expect("a sparse file");
    count
}
