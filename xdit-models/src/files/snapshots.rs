//! Copies of a repository in huggingface_hub's cache (`models--ORG--NAME/{refs/REVISION, snapshots/COMMIT}`): finds a complete
//! one, or a file that is missing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::Result;
use crate::files::config::ConfigFile;
use crate::files::config::MODEL_INDEX;
use crate::files::source::ModelSource;
use crate::files::weights;

/// The default revision.
pub(crate) const MAIN: &str = "main";
/// The largest number of copies of one repository that are searched.
const MAX_COPIES: usize = 1000;
/// The longest name of a commit, in bytes: a SHA-256.
const MAX_COMMIT: usize = 64;

/// The requested files of a pipeline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The variant of the weights.
    pub(crate) variant: Option<&'a str>,
    /// Whether weights are requested.
    pub(crate) weights: bool,
    /// Components that are not requested.
    pub(crate) without: &'a [&'a str],
}

/// The cached files of a revision.
#[derive(Debug)]
pub(crate) enum Found {
    /// All requested files.
    Whole {
        /// The copy.
        #[cfg_attr(
            not(feature = "hub"),
            expect(dead_code, reason = "it is the hub that hands it on")
        )]
        source: ModelSource,
        /// The commit of the copy.
        commit: String,
        /// The revision's own commit, if its copy is incomplete and this is another.
        instead_of: Option<String>,
    },
    /// Some of the requested files.
    #[cfg_attr(
        not(any(feature = "hub", test)),
        expect(dead_code, reason = "it is the hub that tells of it")
    )]
    Half {
        /// The commit of the copy.
        commit: String,
        /// A missing file.
        missing: String,
    },
    /// No copy.
    Nothing,
}

/// Returns the cached files of `revision`, a commit or the name of a ref, in the repository's cache `folder`.
///
/// If the copy of `main` is incomplete, another copy without a ref is used, the newest first: it was `main` earlier, or was
/// requested by its commit.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) for an existing file that cannot be read.
pub(crate) fn find(folder: &Path, revision: &str, wanted: Wanted<'_>) -> Result<Found> {
    let named = std::fs::read_to_string(folder.join("refs").join(revision)).ok();
    // A commit has no ref.
    let named = named.as_deref().map_or(revision, str::trim);
    let own = is_commit(named).then(|| named.to_owned());
    let mut half = None;
    let others = match revision {
        MAIN => unclaimed(folder),
        _ => Vec::new(),
    };
    let others = others
        .into_iter()
        .filter(|commit| Some(commit) != own.as_ref());
    for commit in own.iter().cloned().chain(others) {
        let path = copy(folder, &commit);
        if !path.is_dir() {
            continue;
        }
        let source = ModelSource::in_folder(path);
        match missing(&source, wanted)? {
            None => {
                let instead_of = own.filter(|own| *own != commit);
                return Ok(Found::Whole {
                    source,
                    commit,
                    instead_of,
                });
            }
            Some(missing) => {
                half.get_or_insert(Found::Half { commit, missing });
            }
        }
    }
    Ok(half.unwrap_or(Found::Nothing))
}

/// Returns whether `name` is the name of a commit: hexadecimal digits.
pub(crate) fn is_commit(name: &str) -> bool {
    (1..=MAX_COMMIT).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns the path of the copy of `commit`.
pub(crate) fn copy(folder: &Path, commit: &str) -> PathBuf {
    folder.join("snapshots").join(commit)
}

/// Returns the copies without a ref, the newest first.
fn unclaimed(folder: &Path) -> Vec<String> {
    let mut claimed = BTreeSet::new();
    refs(&folder.join("refs"), 0, &mut claimed);
    let Ok(entries) = std::fs::read_dir(folder.join("snapshots")) else {
        return Vec::new();
    };
    let mut copies: Vec<_> = entries
        .take(MAX_COPIES)
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let commit = entry.file_name().into_string().ok()?;
            let time = entry.metadata().ok()?.modified().ok()?;
            (is_commit(&commit) && !claimed.contains(&commit)).then_some((time, commit))
        })
        .collect();
    copies.sort_unstable();
    copies.into_iter().rev().map(|(_, commit)| commit).collect()
}

/// Returns the commits of the refs in `folder`. `refs/pr/1` is in nested folders.
fn refs(folder: &Path, depth: usize, commits: &mut BTreeSet<String>) {
    let entries = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .take(MAX_COPIES);
    for path in entries.flatten().map(|entry| entry.path()) {
        match path.is_dir() {
            true if depth < 4 => refs(&path, depth + 1, commits),
            true => {}
            false => {
                let commit = std::fs::read_to_string(path).unwrap_or_default();
                commits.insert(commit.trim().to_owned());
            }
        }
    }
}

/// Returns a requested file that is missing in `source`, if there is one. Reads only the names in indexes, not other contents
/// of files.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) for an existing file that cannot be read.
pub(crate) fn missing(source: &ModelSource, wanted: Wanted<'_>) -> Result<Option<String>> {
    if !source.exists(MODEL_INDEX) {
        return Ok(Some(MODEL_INDEX.into()));
    }
    // A damaged index counts as present. Loading it reports the damage.
    let Ok(index) = source.config(MODEL_INDEX) else {
        return Ok(None);
    };
    for component in components(&index).filter(|name| !wanted.without.contains(name)) {
        if let Some(file) = missing_of(source, component, wanted)? {
            return Ok(Some(file));
        }
    }
    match wanted.variant.filter(|_| wanted.weights) {
        // A component without the variant may use plain weights, but not all components.
        Some(variant) if !weights::has_variant(source, variant)? => {
            Ok(Some(format!("*.{variant}.safetensors")))
        }
        _ => Ok(None),
    }
}

/// Returns the names of the existing components, which are a library and a class.
pub(crate) fn components(index: &ConfigFile) -> impl Iterator<Item = &str> {
    let exists = |name: &&str| {
        let pair = index.value(name).and_then(Value::as_array);
        pair.is_some_and(|pair| pair.len() == 2 && pair.iter().all(Value::is_string))
    };
    index
        .fields()
        .filter(|name| !name.starts_with('_'))
        .filter(exists)
}

/// Like [`missing`], for one component. Components that no supported pipeline reads need no file.
fn missing_of(source: &ModelSource, component: &str, wanted: Wanted<'_>) -> Result<Option<String>> {
    let path = |name: &str| format!("{component}/{name}");
    let lacks = |name: &str| !source.exists(&path(name));
    if component == "scheduler" {
        let config = "scheduler_config.json";
        return Ok(lacks(config).then(|| path(config)));
    }
    if component.starts_with("tokenizer") {
        let forms = ["tokenizer.json", "spiece.model", "vocab.txt", "vocab.json"];
        return Ok(match forms.into_iter().find(|name| !lacks(name)) {
            None => Some(path(forms[0])),
            Some("vocab.json") if lacks("merges.txt") => Some(path("merges.txt")),
            Some(_) => None,
        });
    }
    let model =
        ["transformer", "vae"].contains(&component) || component.starts_with("text_encoder");
    if !model {
        return Ok(None);
    }
    if lacks("config.json") {
        return Ok(Some(path("config.json")));
    }
    match wanted.weights {
        true => weights::missing(source, component, wanted.variant),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "aaaa";
    const NEW: &str = "bbbb";

    fn write(folder: &Path, path: &str, text: &str) {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    const FILES: [(&str, &str); 9] = [
        (
            MODEL_INDEX,
            r#"{"_class_name": "FluxPipeline", "_name": ["a", "b"], "vae": ["d", "A"], "text_encoder": ["t", "C"],
            "scheduler": ["d", "S"], "tokenizer": ["t", "T"], "image_encoder": [null, null], "safety_checker": ["s", "S"],
            "flag": true}"#,
        ),
        ("vae/config.json", "{}"),
        ("vae/diffusion_pytorch_model.safetensors", ""),
        ("scheduler/scheduler_config.json", "{}"),
        ("tokenizer/vocab.json", "{}"),
        ("tokenizer/merges.txt", ""),
        ("text_encoder/config.json", "{}"),
        (
            "text_encoder/model.safetensors.index.json",
            r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#,
        ),
        ("text_encoder/model-00001-of-00002.safetensors", ""),
    ];
    const LAST: &str = "text_encoder/model-00002-of-00002.safetensors";

    const ALL: Wanted<'static> = Wanted {
        variant: None,
        weights: true,
        without: &[],
    };

    #[test]
    fn every_file_that_lacks_is_named() {
        let mut files: Vec<(&str, Vec<u8>)> = FILES.map(|(path, text)| (path, text.into())).into();
        let lacks = |files: &[(&str, Vec<u8>)], wanted| {
            missing(&ModelSource::memory(files.iter().cloned()), wanted).unwrap()
        };
        assert_eq!(lacks(&files, ALL).as_deref(), Some(LAST));
        files.push((LAST, Vec::new()));
        assert_eq!(lacks(&files, ALL), None);
        for (gone, (path, _)) in FILES.iter().enumerate() {
            let rest: Vec<_> = files
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != gone)
                .map(|(_, f)| f.clone())
                .collect();
            let expected = match *path {
                "tokenizer/vocab.json" => "tokenizer/tokenizer.json",
                "text_encoder/model.safetensors.index.json" => "text_encoder/*.safetensors",
                "vae/diffusion_pytorch_model.safetensors" => "vae/*.safetensors",
                path => path,
            };
            assert_eq!(lacks(&rest, ALL).as_deref(), Some(expected));
            let configurations = Wanted {
                weights: false,
                ..ALL
            };
            let needed = !path.contains("safetensors");
            assert_eq!(lacks(&rest, configurations).is_some(), needed, "{path}");
        }
        let (without, variant) = (&["text_encoder"][..], Some("fp16"));
        files.retain(|(path, _)| !path.starts_with("text_encoder"));
        assert_eq!(lacks(&files, Wanted { without, ..ALL }), None);
        // The plain weights serve for a component that has none of the variant, but not for all.
        let half = Wanted {
            without,
            variant,
            ..ALL
        };
        assert_eq!(lacks(&files, half).as_deref(), Some("*.fp16.safetensors"));
        files.push(("vae/diffusion_pytorch_model.fp16.safetensors", Vec::new()));
        assert_eq!(lacks(&files, half), None);
        files.retain(|(path, _)| *path != "vae/diffusion_pytorch_model.safetensors");
        assert_eq!(lacks(&files, half), None);
        assert!(lacks(&files, Wanted { without, ..ALL }).is_some());
    }

    #[test]
    fn a_whole_older_copy_is_found_when_the_newer_is_not() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path();
        let found = |revision| match find(folder, revision, ALL).unwrap() {
            Found::Whole {
                commit, instead_of, ..
            } => (commit, instead_of),
            Found::Half { commit, missing } => (commit, Some(missing)),
            Found::Nothing => (String::new(), None),
        };
        let pair = |a: &str, b: Option<&str>| (a.to_owned(), b.map(str::to_owned));
        assert_eq!(found("main"), pair("", None));
        let fill = |commit: &str| {
            for (path, text) in FILES {
                write(folder, &format!("snapshots/{commit}/{path}"), text);
            }
        };
        fill(OLD);
        write(folder, "refs/main", OLD);
        assert_eq!(found("main"), pair(OLD, Some(LAST)));
        write(folder, &format!("snapshots/{OLD}/{LAST}"), "");
        assert_eq!(found("main"), pair(OLD, None));
        assert_eq!(found(OLD), pair(OLD, None));
        fill(NEW);
        write(folder, "refs/main", NEW);
        assert_eq!(found("main"), pair(OLD, Some(NEW)));
        // The repository's folder, given as a pipeline's, means the same.
        let given = ModelSource::folder(folder).unwrap();
        assert_eq!(given.path(), Some(&*copy(folder, OLD)));
        // Not where a certain revision is asked for, and not one that is another ref's.
        assert_eq!(found(NEW), pair(NEW, Some(LAST)));
        write(folder, "refs/v2", NEW);
        assert_eq!(found("v2"), pair(NEW, Some(LAST)));
        write(folder, "refs/refs/pr/1", OLD);
        assert_eq!(found("main"), pair(NEW, Some(LAST)));
        write(folder, "refs/evil", "../../x");
        assert_eq!(found("evil"), pair("", None));
    }
}
