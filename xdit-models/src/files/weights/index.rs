//! Finds the weight files of a component: one file, or shards with an index, with or without a variant.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::error::{Error, Result, shorten};
use crate::files::config::from_python;
use crate::files::source::ModelSource;

/// The longest index, in bytes. That of FLUX.1-dev has about 120,000.
const MAX_INDEX_BYTES: usize = 16 << 20;
/// The largest number of shards of one component.
const MAX_SHARDS: usize = 1000;
/// The names of weights in diffusers and transformers.
const BASES: [&str; 2] = ["diffusion_pytorch_model", "model"];

/// The weight files of one component.
#[derive(Debug)]
pub(super) struct WeightFiles {
    /// Paths of the files, without repetition.
    pub(super) files: Vec<String>,
    /// The path of the index, if there are shards.
    pub(super) index: Option<String>,
    /// The shard of each tensor, according to the index.
    pub(super) map: BTreeMap<String, String>,
}

impl WeightFiles {
    /// Finds the weight files in the folder `component` of `source`, of this `variant` if one is requested.
    ///
    /// A component without the variant uses its plain files if another component has the variant, with a warning in the log, as
    /// in diffusers.
    pub(super) fn find(
        source: &ModelSource,
        component: &str,
        variant: Option<&str>,
    ) -> Result<Self> {
        if let Some(variant) = variant {
            if let Some(found) = Self::named(source, component, Some(variant))? {
                return Ok(found);
            }
            if !has_variant(source, variant)? {
                let hint = format!("; no component has a variant `{}`", shorten(variant));
                return Err(Error::MissingFile {
                    file: source.shown(component),
                    hint,
                });
            }
            tracing::warn!(
                component,
                variant,
                "no weights of this variant: the plain ones are used"
            );
        }
        Self::named(source, component, None)?.ok_or_else(|| Error::MissingFile {
            file: source.shown(&format!("{component}/*.safetensors")),
            hint: other_files(source, component),
        })
    }

    fn named(source: &ModelSource, component: &str, variant: Option<&str>) -> Result<Option<Self>> {
        for base in BASES {
            let single = match variant {
                Some(variant) => format!("{component}/{base}.{variant}.safetensors"),
                None => format!("{component}/{base}.safetensors"),
            };
            let indices = match variant {
                Some(variant) => vec![
                    format!("{component}/{base}.safetensors.index.{variant}.json"),
                    format!("{component}/{base}.safetensors.{variant}.index.json"),
                    format!("{component}/{base}.{variant}.safetensors.index.json"),
                ],
                None => vec![format!("{component}/{base}.safetensors.index.json")],
            };
            let index = indices.into_iter().find(|path| source.exists(path));
            // If both exist, diffusers uses the shards and transformers the single file.
            let sharded_first = base == BASES[0];
            match index {
                Some(index) if sharded_first || !source.exists(&single) => {
                    return Self::sharded(source, component, index).map(Some);
                }
                _ if source.exists(&single) => {
                    return Ok(Some(Self {
                        files: vec![single],
                        index: None,
                        map: BTreeMap::new(),
                    }));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn sharded(source: &ModelSource, component: &str, index: String) -> Result<Self> {
        let bad = |reason: String| Error::bad_file(source.shown(&index), reason);
        let bytes = source.read(&index, MAX_INDEX_BYTES)?;
        let parsed: IndexJson = from_python(&bytes)
            .map_err(|error| bad(format!("not an index of weights: {error}")))?;
        let shards: BTreeSet<&String> = parsed.weight_map.values().collect();
        if shards.is_empty() || shards.len() > MAX_SHARDS {
            return Err(bad(format!(
                "{} shards; expected 1 to {MAX_SHARDS}",
                shards.len()
            )));
        }
        if let Some(shard) = shards.iter().find(|shard| shard.contains(['/', '\\'])) {
            return Err(bad(format!(
                "a shard must lie beside the index, not at `{}`",
                shorten(shard)
            )));
        }
        let files = shards
            .into_iter()
            .map(|shard| format!("{component}/{shard}"))
            .collect();
        let map = parsed
            .weight_map
            .into_iter()
            .map(|(name, shard)| (name, format!("{component}/{shard}")))
            .collect();
        Ok(Self {
            files,
            index: Some(index),
            map,
        })
    }
}

/// Returns whether any component of `source` has weights of this `variant`.
pub(crate) fn has_variant(source: &ModelSource, variant: &str) -> Result<bool> {
    let marks = [format!(".{variant}."), format!(".{variant}-")];
    let files = source.list()?;
    Ok(files
        .iter()
        .any(|path| marks.iter().any(|mark| path.contains(mark))))
}

/// Returns a missing weights file of the folder `component`, if there is one; of `variant` if the component has it.
///
/// # Errors
/// [`Error::Io`] for an existing index that cannot be read. A damaged index counts as complete. Loading it reports the damage.
pub(crate) fn missing(
    source: &ModelSource,
    component: &str,
    variant: Option<&str>,
) -> Result<Option<String>> {
    for variant in variant.map(Some).into_iter().chain([None]) {
        match WeightFiles::named(source, component, variant) {
            Ok(None) => {}
            Ok(Some(found)) => {
                return Ok(found.files.into_iter().find(|path| !source.exists(path)));
            }
            Err(error @ Error::Io { .. }) => return Err(error),
            Err(_) => return Ok(None),
        }
    }
    // The name of a dangling link is the name of the missing file.
    let links = |path: &String| {
        source
            .path()
            .is_some_and(|folder| folder.join(path).is_symlink())
    };
    let mut names = BASES.iter().flat_map(|base| {
        ["safetensors.index.json", "safetensors"].map(|end| format!("{component}/{base}.{end}"))
    });
    Ok(Some(
        names
            .find(links)
            .unwrap_or_else(|| format!("{component}/*.safetensors")),
    ))
}

#[derive(Deserialize)]
struct IndexJson {
    weight_map: BTreeMap<String, String>,
}

/// Describes what the folder contains instead of weights.
fn other_files(source: &ModelSource, component: &str) -> String {
    let links = source.dangling_links(component);
    if !links.is_empty() {
        return links;
    }
    let folder = format!("{component}/");
    let files: Vec<String> = source.list().unwrap_or_default();
    let inside = || files.iter().filter_map(|path| path.strip_prefix(&folder));
    if let Some(base) = inside().find_map(shard_of) {
        return format!(
            "; there are shards but no index of them: fetch `{}.safetensors.index.json` too",
            shorten(base)
        );
    }
    let endings = [
        ".safetensors",
        ".bin",
        ".msgpack",
        ".gguf",
        ".pt",
        ".ckpt",
        ".h5",
    ];
    match inside().find(|name| endings.iter().any(|ending| name.ends_with(ending))) {
        Some(name) if name.ends_with(".safetensors") => {
            format!("; there is `{}`: is it a variant?", shorten(name))
        }
        Some(name) => {
            let what =
                match name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".ckpt") {
                    true => ", a pickle",
                    false => "",
                };
            format!(
                "; there is `{}`{what}, but only safetensors are read: diffusers' `save_pretrained` writes them",
                shorten(name)
            )
        }
        None => String::new(),
    }
}

/// `model` for `model-00001-of-00003.safetensors`.
fn shard_of(name: &str) -> Option<&str> {
    let (rest, count) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    let (base, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(number) && digits(count)).then_some(base)
}
