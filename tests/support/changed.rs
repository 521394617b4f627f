//! Golden pipelines with multiplied weights, for numbers that do not occur in a small pipeline.

use half::{bf16, f16};
use xdit_models::ModelSource;

use crate::recorded::source;

/// A pipeline's files by name.
pub type Files = Vec<(String, Vec<u8>)>;

/// The files of a golden pipeline.
///
/// # Panics
/// If there is none of that name.
pub fn files(pipeline: &str) -> Files {
    let source = source(pipeline);
    let names = source.list().expect("a folder");
    let read = |name: String| {
        let bytes = source.read(&name, 1 << 30).expect("a file").into_owned();
        (name, bytes)
    };
    names.into_iter().map(read).collect()
}

/// Multiplies the tensors of a component whose names end in `ending`.
///
/// # Panics
/// If there is none, or a file is damaged.
#[must_use]
pub fn scaled(files: Files, component: &str, ending: &str, factor: f32) -> Files {
    changed(files, component, ending, &|values| {
        for value in values {
            *value *= factor;
        }
    })
}

/// Multiplies the tensors of a component whose names end in `ending` until f32 ends soon after their largest number.
///
/// # Panics
/// As [`scaled`].
#[must_use]
pub fn huge(files: Files, component: &str, ending: &str) -> Files {
    changed(files, component, ending, &|values| {
        let largest = values.iter().fold(0.0, |most: f32, x| x.abs().max(most));
        for value in values {
            *value = *value / largest * 3e38;
        }
    })
}

fn changed(mut files: Files, component: &str, ending: &str, change: &dyn Fn(&mut [f32])) -> Files {
    let mut found = 0;
    for (name, bytes) in &mut files {
        if name.starts_with(&format!("{component}/")) && name.ends_with(".safetensors") {
            found += change_file(bytes, ending, change);
        }
    }
    assert!(found > 0, "{component}: no tensor ends in {ending}");
    files
}

/// Changes tensors of a safetensors file; how many.
fn change_file(bytes: &mut [u8], ending: &str, change: &dyn Fn(&mut [f32])) -> usize {
    let (length, header) = safetensors::SafeTensors::read_metadata(bytes).expect("a header");
    let (start, mut found) = (8 + length, 0);
    for (name, info) in header.tensors() {
        if !name.ends_with(ending) {
            continue;
        }
        found += 1;
        let (from, to) = info.data_offsets;
        let data = bytes[start + from..start + to].as_chunks_mut::<2>().0;
        let read: fn([u8; 2]) -> f32 = match info.dtype {
            safetensors::Dtype::BF16 => |b| bf16::from_le_bytes(b).to_f32(),
            safetensors::Dtype::F16 => |b| f16::from_le_bytes(b).to_f32(),
            other => panic!("{name}: {other:?}"),
        };
        let mut values: Vec<f32> = data.iter().map(|b| read(*b)).collect();
        change(&mut values);
        for (b, value) in data.iter_mut().zip(values) {
            *b = match info.dtype {
                safetensors::Dtype::F16 => f16::from_f32(value).to_le_bytes(),
                _ => bf16::from_f32(value).to_le_bytes(),
            };
        }
    }
    found
}

/// The files with other text in one of them.
///
/// # Panics
/// If there is no such file.
#[must_use]
pub fn with_text(mut files: Files, name: &str, text: &str) -> Files {
    let file = files.iter_mut().find(|(other, _)| other == name);
    file.expect("a file of this name").1 = text.as_bytes().to_vec();
    files
}

/// A pipeline of these files.
pub fn pipeline(files: Files) -> ModelSource {
    ModelSource::memory(files)
}
