//! Selects the files of a repository that a pipeline needs.

use std::collections::HashMap;

use serde_json::Value;

use crate::error::shorten;
use crate::files::config::ConfigFile;
use crate::files::inner_path::{self, InnerPath};
use crate::files::snapshots::{Wanted, components};

/// The largest number of files that are downloaded for one pipeline. FLUX.1-dev needs 26.
const MAX_NEEDED: usize = 1000;

/// Returns those of `files` that the pipeline of `index` needs: the small files of each component and its safetensors, of a
/// variant if one is requested and the component has it. The time grows linearly with the numbers of files and components.
///
/// # Errors
/// A sentence that describes an invalid name of a component, or too many files.
pub(super) fn needed<'a>(
    files: &'a [InnerPath],
    index: &ConfigFile,
    wanted: Wanted<'_>,
) -> Result<Vec<&'a InnerPath>, String> {
    check(index)?;
    let mut of_component: HashMap<&str, Vec<Named<'a>>> = components(index)
        .filter(|component| !wanted.without.contains(component))
        .map(|component| (component, Vec::new()))
        .collect();
    for file in files {
        // Deeper files do not belong to a pipeline.
        if let Some((component, name)) = file.as_str().split_once('/')
            && !name.contains('/')
            && let Some(names) = of_component.get_mut(component)
        {
            names.push((name, file));
        }
    }
    let mut needed = Vec::new();
    for component in components(index) {
        let Some(names) = of_component.remove(component) else {
            continue;
        };
        let small = names.iter().copied().filter(|(name, _)| is_small(name));
        let weights = wanted
            .variant
            .map(|variant| weights(&names, Some(variant)))
            .filter(|weights| !weights.is_empty())
            .unwrap_or_else(|| weights(&names, None));
        needed.extend(small.chain(weights).map(|(_, file)| file));
    }
    match needed.len() {
        0..=MAX_NEEDED => Ok(needed),
        many => Err(format!(
            "{many} files for one pipeline; at most {MAX_NEEDED} are downloaded"
        )),
    }
}

/// Checks the name of each component, also of those that are null, because it is the name of a folder.
fn check(index: &ConfigFile) -> Result<(), String> {
    for component in index.fields().filter(|field| !field.starts_with('_')) {
        if !index.value(component).is_some_and(Value::is_array) {
            continue;
        }
        let checked = match component.contains('/') {
            true => Err("is no folder's name"),
            false => inner_path::check(component),
        };
        checked.map_err(|reason| format!("the component `{}` {reason}", shorten(component)))?;
    }
    Ok(())
}

/// A file of a component: its name in the component's folder, and its path.
type Named<'a> = (&'a str, &'a InnerPath);

/// Returns whether the file is a configuration, a vocabulary or a SentencePiece model.
fn is_small(name: &str) -> bool {
    let ends = [".json", ".txt", ".model"]
        .iter()
        .any(|ending| name.ends_with(ending));
    ends && !name.contains(".safetensors.")
        && !name.contains(".bin.")
        && !name.contains(".msgpack.")
}

/// Selects the weights of one component: one file, or shards with their index, with the preference of diffusers
/// (`diffusion_pytorch_model`) and transformers (`model`).
fn weights<'a>(names: &[Named<'a>], variant: Option<&str>) -> Vec<Named<'a>> {
    for (base, shards_first) in [("diffusion_pytorch_model", true), ("model", false)] {
        let of_kind = |kind: WeightsFile| -> Vec<Named<'a>> {
            names
                .iter()
                .copied()
                .filter(|(name, _)| kind_of(name, base, variant) == Some(kind))
                .collect()
        };
        let single = of_kind(WeightsFile::Single);
        let mut shards = of_kind(WeightsFile::Index);
        if !shards.is_empty() {
            shards.extend(of_kind(WeightsFile::Shard));
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
enum WeightsFile {
    Single,
    Index,
    Shard,
}

/// Returns the part of the weights `base` of `variant` that the file `name` is.
fn kind_of(name: &str, base: &str, variant: Option<&str>) -> Option<WeightsFile> {
    let rest = name.strip_prefix(base)?;
    let plain = match variant {
        None => rest.to_owned(),
        // The variant is before or after the number of the shard, and before or after `index`.
        Some(variant) => {
            let mark = format!(".{variant}");
            let at = rest
                .find(&mark)
                .filter(|at| rest[at + mark.len()..].starts_with(['.', '-']))?;
            format!("{}{}", &rest[..at], &rest[at + mark.len()..])
        }
    };
    if plain == ".safetensors" {
        return Some(WeightsFile::Single);
    }
    if plain == ".safetensors.index.json" {
        return Some(WeightsFile::Index);
    }
    let number = plain.strip_prefix('-')?.strip_suffix(".safetensors")?;
    let (part, of) = number.split_once("-of-")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(part) && digits(of)).then_some(WeightsFile::Shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Wanted<'static> = Wanted {
        variant: None,
        weights: true,
        without: &[],
    };

    fn parse(index: &str) -> ConfigFile {
        ConfigFile::parse(crate::files::config::MODEL_INDEX, index.as_bytes()).unwrap()
    }

    fn paths(names: &[&str]) -> Vec<InnerPath> {
        names
            .iter()
            .map(|name| InnerPath::new(name).unwrap())
            .collect()
    }

    fn chosen(names: &[&str], variant: Option<&str>) -> Vec<String> {
        let index = parse(
            r#"{"_class_name": "FluxPipeline", "t": ["transformers", "T"], "no": [null, null], "flag": true}"#,
        );
        let files = paths(names);
        let needed = needed(&files, &index, Wanted { variant, ..ALL }).unwrap();
        needed
            .into_iter()
            .map(|file| file.as_str().to_owned())
            .collect()
    }

    #[test]
    fn components_that_are_no_folders_are_refused() {
        let files = paths(&["model_index.json"]);
        for bad in [
            "../../../../X",
            "/tmp/Y",
            "",
            "..",
            ".",
            "a/b",
            r"a\\b",
            "C:",
            r"a\u0000b",
            r"a\nb",
        ] {
            for value in [r#"["t", "T"]"#, "[null, null]"] {
                let index = parse(&format!(r#"{{"{bad}": {value}}}"#));
                let error = needed(&files, &index, ALL).unwrap_err();
                assert!(error.starts_with("the component `"), "{bad}: {error}");
            }
        }
    }

    #[test]
    fn time_grows_as_components_and_files_together() {
        // 60,000 × 400,000 comparisons would take minutes.
        let fields: Vec<String> = (0..60_000).map(|i| format!(r#""{i:x}":["",""]"#)).collect();
        let index = parse(&format!("{{{}}}", fields.join(",")));
        let files: Vec<InnerPath> = (0..400_000)
            .map(|i| InnerPath::new(&format!("{i:x}/a.bin")).unwrap())
            .collect();
        let started = std::time::Instant::now();
        assert!(needed(&files, &index, ALL).unwrap().is_empty());
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }

    #[test]
    fn nobody_downloads_a_million_small_files() {
        let index = parse(r#"{"t": ["a", "b"]}"#);
        let files: Vec<InnerPath> = (0..1001)
            .map(|i| InnerPath::new(&format!("t/{i}.json")).unwrap())
            .collect();
        assert_eq!(needed(&files[..1000], &index, ALL).unwrap().len(), 1000);
        assert!(
            needed(&files, &index, ALL)
                .unwrap_err()
                .contains("1001 files")
        );
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
    fn nothing_of_a_component_that_is_left_out() {
        let index = parse(
            r#"{"text_encoder_3": ["t", "T"], "tokenizer_3": ["t", "T"], "vae": ["d", "V"]}"#,
        );
        let files = paths(&[
            "text_encoder_3/config.json",
            "text_encoder_3/model.safetensors",
            "tokenizer_3/tokenizer.json",
            "vae/config.json",
            "vae/model.safetensors",
        ]);
        assert_eq!(needed(&files, &index, ALL).unwrap().len(), 5);
        let without = crate::files::source::OPTIONAL_T5;
        let left = needed(&files, &index, Wanted { without, ..ALL }).unwrap();
        let left: Vec<&str> = left.iter().map(|file| file.as_str()).collect();
        assert_eq!(left, ["vae/config.json", "vae/model.safetensors"]);
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
