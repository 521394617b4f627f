//! Which files of a repository a pipeline needs.

use std::path::{Component, Path};

use serde_json::Value;

use crate::config::ConfigFile;

/// The paths among `files` that the pipeline of `index` needs: the small files of each component, and its safetensors,
/// of `variant` where the component has such.
pub(super) fn needed(files: &[String], index: &ConfigFile, variant: Option<&str>) -> Vec<String> {
    let mut needed = Vec::new();
    for component in index.fields().filter(|field| !field.starts_with('_')) {
        let exists = |pair: &Value| {
            pair.as_array()
                .is_some_and(|pair| pair.iter().all(Value::is_string))
        };
        if !index.value(component).is_some_and(exists) {
            continue;
        }
        let prefix = format!("{component}/");
        let names: Vec<&str> = files
            .iter()
            .filter_map(|file| file.strip_prefix(&prefix))
            .filter(|n| is_name(n))
            .collect();
        let small = names.iter().copied().filter(|name| is_small(name));
        let weights = variant
            .map(|variant| weights(&names, Some(variant)))
            .filter(|weights| !weights.is_empty())
            .unwrap_or_else(|| weights(&names, None));
        needed.extend(small.chain(weights).map(|name| format!("{prefix}{name}")));
    }
    needed
}

/// Configurations, vocabularies, SentencePiece models.
fn is_small(name: &str) -> bool {
    let ends = [".json", ".txt", ".model"]
        .iter()
        .any(|ending| name.ends_with(ending));
    ends && !name.contains(".safetensors.")
        && !name.contains(".bin.")
        && !name.contains(".msgpack.")
}

/// The weights of one component: one file or the shards with their index, as diffusers (`diffusion_pytorch_model`) and
/// transformers (`model`) prefer.
fn weights<'a>(names: &[&'a str], variant: Option<&str>) -> Vec<&'a str> {
    for (base, shards_first) in [("diffusion_pytorch_model", true), ("model", false)] {
        let of_kind = |kind: Kind| -> Vec<&'a str> {
            names
                .iter()
                .copied()
                .filter(|name| kind_of(name, base, variant) == Some(kind))
                .collect()
        };
        let single = of_kind(Kind::Single);
        let mut shards = of_kind(Kind::Index);
        if !shards.is_empty() {
            shards.extend(of_kind(Kind::Shard));
        }
        let (first, second) = if shards_first {
            (shards, single)
        } else {
            (single, shards)
        };
        let chosen = if first.is_empty() { second } else { first };
        if !chosen.is_empty() {
            return chosen;
        }
    }
    Vec::new()
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Single,
    Index,
    Shard,
}

/// What part of the weights `base` of `variant` the file `name` is.
fn kind_of(name: &str, base: &str, variant: Option<&str>) -> Option<Kind> {
    let rest = name.strip_prefix(base)?;
    let plain = match variant {
        None => rest.to_owned(),
        // The variant stands before or after the shard's number, and before or after `index`.
        Some(variant) => {
            let mark = format!(".{variant}");
            let at = rest
                .find(&mark)
                .filter(|at| rest[at + mark.len()..].starts_with(['.', '-']))?;
            format!("{}{}", &rest[..at], &rest[at + mark.len()..])
        }
    };
    if plain == ".safetensors" {
        return Some(Kind::Single);
    }
    if plain == ".safetensors.index.json" {
        return Some(Kind::Index);
    }
    let number = plain.strip_prefix('-')?.strip_suffix(".safetensors")?;
    let (part, of) = number.split_once("-of-")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(part) && digits(of)).then_some(Kind::Shard)
}

/// Whether `name` is the name of one file: the hub's answer is not trusted with paths.
fn is_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    ) && !name.contains('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], variant: Option<&str>) -> Vec<String> {
        let index = br#"{"_class_name": "FluxPipeline", "t": ["transformers", "T"], "no": [null, null], "flag": true}"#;
        let index = ConfigFile::parse(crate::model_index::MODEL_INDEX, index).unwrap();
        let files: Vec<String> = names.iter().map(|name| (*name).into()).collect();
        needed(&files, &index, variant)
    }

    #[test]
    fn only_components_and_what_they_load() {
        let names = [
            "README.md",
            "flux1-dev.safetensors",
            "t/config.json",
            "t/merges.txt",
            "t/spiece.model",
            "t/model.safetensors",
            "t/model.fp16.safetensors",
            "t/pytorch_model.bin",
            "t/pytorch_model.bin.index.json",
            "t/flax_model.msgpack",
            "t/../../secret.json",
            "t/deep/config.json",
            "no/config.json",
            "flag/config.json",
        ];
        let expected = [
            "t/config.json",
            "t/merges.txt",
            "t/spiece.model",
            "t/model.safetensors",
        ];
        assert_eq!(chosen(&names, None), expected);
        assert_eq!(chosen(&names, Some("bf16")), expected);
        assert_eq!(chosen(&names, Some("fp16"))[3], "t/model.fp16.safetensors");
    }

    #[test]
    fn shards_come_with_their_index() {
        let base = "t/diffusion_pytorch_model";
        let names = [
            format!("{base}.safetensors.index.json"),
            format!("{base}-00001-of-00002.safetensors"),
            format!("{base}-00002-of-00002.safetensors"),
            format!("{base}.safetensors"),
            format!("{base}.safetensors.index.fp16.json"),
            format!("{base}.fp16-00001-of-00001.safetensors"),
        ];
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(chosen(&all, None), names[..3]);
        assert_eq!(chosen(&all, Some("fp16")), names[4..]);
        let names = [
            "t/model.safetensors",
            "t/model.safetensors.index.json",
            "t/model-00001-of-00001.safetensors",
        ];
        assert_eq!(chosen(&names, None), names[..1]);
        assert_eq!(chosen(&names[1..], None), names[1..]);
        // Shards without an index cannot be put together.
        assert!(chosen(&names[2..], None).is_empty());
    }
}
