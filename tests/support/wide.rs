//! Golden pipelines with a wider transformer of zeros: of any size, without space on the disk. For tests that depend only on
//! sizes.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};
use xdit_kernels::DType;
use xdit_models::ConfigFile;
use xdit_models::layers::Packing;
use xdit_models::weights::{Scope, ZeroWeights};

use crate::goldens::path;

/// Writes to `folder` the golden pipeline `base`, with `fields` of its transformer's configuration changed, and f32 zeros for
/// every tensor that `load` then asks for.
///
/// # Panics
/// If there is no such pipeline, or the folder cannot be written.
pub fn widened(
    base: &str,
    folder: &Path,
    fields: &Value,
    load: impl Fn(&ConfigFile, &Scope<'_>, &mut Packing<'_>),
) {
    copy(&path(&format!("pipelines/{base}")), folder);
    let transformer = folder.join("transformer");
    let file = transformer.join("config.json");
    let read = fs::read(&file).expect("a configuration");
    let mut config: Map<String, Value> = serde_json::from_slice(&read).expect("JSON");
    config.extend(fields.as_object().expect("fields").clone());
    let config = Value::Object(config).to_string();
    fs::write(&file, &config).expect("the copy is writable");
    let config = ConfigFile::parse("transformer/config.json", config.as_bytes()).expect("JSON");
    let weights = ZeroWeights::new(DType::F32);
    load(&config, &Scope::root(&weights), &mut Packing::names_only());
    zeros(
        &transformer.join("diffusion_pytorch_model.safetensors"),
        weights.asked(),
    );
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a new folder");
    for entry in fs::read_dir(from).expect("a golden pipeline") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).expect("a copy")),
        }
    }
}

/// A safetensors file whose numbers are a hole.
fn zeros(file: &Path, tensors: Vec<(String, Vec<usize>)>) {
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += shape.iter().product::<usize>() * size_of::<f32>();
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert(name, entry);
    }
    let mut header = Value::Object(header).to_string();
    header += &" ".repeat(header.len().next_multiple_of(64) - header.len());
    let mut out = fs::File::create(file).expect("the copy is writable");
    let length = (header.len() as u64).to_le_bytes();
    out.write_all(&length).expect("room on the disk");
    out.write_all(header.as_bytes()).expect("room on the disk");
    out.set_len((length.len() + header.len() + end) as u64)
        .expect("a sparse file");
}
