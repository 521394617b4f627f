//! Hints for error messages: what is in the place of a pipeline's file, and what to do about it.

use std::fs;
use std::path::Path;

use crate::files::config::MODEL_INDEX;
use crate::files::disk::MAX_FILES;
use crate::quote;

/// The largest number of names in a message.
const LISTED: usize = 8;
/// The number of bytes that show the kind of a file.
pub(super) const SEEN: usize = 256;

/// Returns why `bytes` are not the expected file. Recognises what git and browsers store in its place.
pub(super) fn stand_in(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(SEEN)];
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    if start.starts_with(b"version https://git-lfs.github.com/") {
        return Some("is a Git LFS pointer; `git lfs pull` in its repository fetches the file");
    }
    let text = start.trim_ascii_start().to_ascii_lowercase();
    let is_page = [&b"<!doctype html"[..], b"<html"]
        .iter()
        .any(|tag| text.starts_with(tag));
    is_page.then_some(
        "is a web page; download the file itself (on the hub: /resolve/ in its address, not /blob/)",
    )
}

/// Describes the file `path` of `folder`, which cannot be opened: the target of its link, a similar file beside it, or, for a
/// pipeline's index, the folder of a pipeline nearby. The text is empty or begins with `; `.
pub(super) fn missing(folder: &Path, path: &str) -> String {
    if let Some(link) = dangling(folder, path, "it") {
        return link;
    }
    match path.rsplit_once('/') {
        None if path == MODEL_INDEX => elsewhere(folder),
        None => String::new(),
        Some((component, _)) => dangling_links(folder, component),
    }
}

/// Describes the first dangling link in the folder `component`. The text is empty or begins with `; `.
pub(super) fn dangling_links(folder: &Path, component: &str) -> String {
    let names = names(&folder.join(component)).into_iter();
    let mut links = names.filter_map(|name| {
        let shown = format!("`{}` there", quote::shorten(&name));
        dangling(folder, &format!("{component}/{name}"), &shown)
    });
    links.next().unwrap_or_default()
}

/// Describes the target of `path`, called `it`, if it is a dangling link.
fn dangling(folder: &Path, path: &str, it: &str) -> Option<String> {
    let file = folder.join(path);
    let target = fs::read_link(&file).ok().filter(|_| !file.exists())?;
    let target = target.display().to_string();
    let link = format!(
        "; {it} is a link to {}, which is not there",
        quote::name(&target)
    );
    let is_cache = target.contains("blobs/") || target.contains("blobs\\");
    Some(match is_cache {
        true => format!("{link}: the download is incomplete{}", to_complete(folder)),
        false => link,
    })
}

/// Returns how to complete a folder of the hub's cache.
pub(super) fn to_complete(folder: &Path) -> String {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let id = folder.iter().find_map(|part| {
        let id = part.to_str()?.strip_prefix("models--")?;
        Some(id.replacen("--", "/", 1))
    });
    match id {
        Some(id) => format!(
            "; load `{}` by this name, with a connection, to complete it",
            quote::shorten(&id)
        ),
        None => String::new(),
    }
}

/// Describes where a pipeline is, if not in `folder`: above it, inside it, or in one file.
fn elsewhere(folder: &Path) -> String {
    let above = folder.join("..");
    if above.join(MODEL_INDEX).is_file() {
        let above = fs::canonicalize(&above).unwrap_or(above);
        return format!(
            "; the folder is one component of the pipeline in {}: give that",
            quote::name(&above.display().to_string())
        );
    }
    let inside = folders(folder)
        .into_iter()
        .filter(|name| folder.join(name).join(MODEL_INDEX).is_file());
    let inside = listed(inside.map(|name| folder.join(name).display().to_string()));
    if !inside.is_empty() {
        return format!("; the pipeline is one folder further down: give {inside}");
    }
    let checkpoints = names(folder).into_iter().filter(|name| {
        let endings = [
            ".safetensors",
            ".ckpt",
            ".gguf",
            ".sft",
            ".pt",
            ".pth",
            ".bin",
        ];
        endings.iter().any(|ending| name.ends_with(ending))
    });
    let checkpoints = listed(checkpoints);
    if !checkpoints.is_empty() {
        return format!(
            "; checkpoints in one file ({checkpoints}) are not read: give a folder as diffusers' `save_pretrained` writes it"
        );
    }
    "; every diffusers pipeline has one at its root".into()
}

/// Returns the sorted names in a folder. Leaves out names that are not UTF-8, and all above ten thousand.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries
        .take(MAX_FILES)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

/// Returns the sorted names of the folders in `folder`.
pub(super) fn folders(folder: &Path) -> Vec<String> {
    let mut names = names(folder);
    names.retain(|name| folder.join(name).is_dir());
    names
}

/// `a, b, …`.
pub(super) fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names = names.map(|name| quote::shorten(&name));
    let mut list: Vec<String> = names.by_ref().take(LISTED).collect();
    if names.next().is_some() {
        list.push("…".into());
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::files::source::ModelSource;

    fn message(folder: &Path) -> String {
        let index = ModelSource::folder(folder).and_then(|s| s.config(MODEL_INDEX).map(drop));
        index.unwrap_err().to_string()
    }

    #[test]
    fn what_git_and_browsers_leave_is_known() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n";
        assert!(stand_in(pointer).unwrap().contains("git lfs pull"));
        for page in ["<!DOCTYPE html><html>", "\u{feff}\n <HTML lang=en>"] {
            assert!(stand_in(page.as_bytes()).unwrap().contains("web page"));
        }
        for file in [&b"{}"[..], b"", b"version", b"<unk>\n<html>"] {
            assert_eq!(stand_in(file), None);
        }
        let source = ModelSource::memory([("vae/config.json", pointer.to_vec())]);
        let error = source.config("vae/config.json").unwrap_err().to_string();
        assert!(
            error.starts_with("memory:vae/config.json: is a Git LFS pointer"),
            "{error}"
        );
        let error = source.open("vae/config.json").unwrap_err().to_string();
        assert!(error.contains("is a Git LFS pointer"), "{error}");
    }

    #[test]
    fn a_level_too_high_or_too_low_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("flux/transformer")).unwrap();
        fs::write(root.join("flux/model_index.json"), b"{}").unwrap();
        let low = message(&root.join("flux/transformer"));
        assert!(
            low.contains("one component of the pipeline in") && low.contains("flux: give"),
            "{low}"
        );
        let high = message(root);
        assert!(
            high.contains("further down: give") && high.contains("flux"),
            "{high}"
        );
        let file = root.join("flux/transformer/flux1-dev.safetensors");
        fs::write(&file, b"").unwrap();
        fs::remove_file(root.join("flux/model_index.json")).unwrap();
        let single = message(&root.join("flux/transformer"));
        assert!(
            single.contains("checkpoints in one file (flux1-dev.safetensors)"),
            "{single}"
        );
    }

    #[test]
    fn a_folder_of_the_cache_stands_for_its_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("models--org--name");
        let add = |commit: &str| {
            fs::create_dir_all(root.join("snapshots").join(commit)).unwrap();
            fs::write(
                root.join("snapshots").join(commit).join(MODEL_INDEX),
                commit,
            )
            .unwrap();
        };
        let read = || {
            let source = ModelSource::folder(&root)?;
            Ok::<_, Error>(String::from_utf8(source.read(MODEL_INDEX, 100)?.into_owned()).unwrap())
        };
        fs::create_dir_all(root.join("snapshots")).unwrap();
        let error = read().unwrap_err().to_string();
        assert!(
            error.contains("without a snapshot; load `org/name`"),
            "{error}"
        );
        add("one");
        assert_eq!(read().unwrap(), "one");
        add("two");
        let error = read().unwrap_err().to_string();
        assert!(
            error.contains("give one: snapshots/one, snapshots/two"),
            "{error}"
        );
        fs::create_dir(root.join("refs")).unwrap();
        for (main, found) in [("two\n", Some("two")), ("../..", None), ("gone", None)] {
            fs::write(root.join("refs/main"), main).unwrap();
            assert_eq!(read().ok().as_deref(), found, "{main}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("models--org--name/snapshots/abc");
        fs::create_dir_all(root.join("vae")).unwrap();
        fs::create_dir(root.join("t5")).unwrap();
        fs::write(root.join(MODEL_INDEX), b"{}").unwrap();
        let link = |target: &str, file: &str| {
            std::os::unix::fs::symlink(target, root.join(file)).unwrap();
        };
        link("../../../blobs/0123", "vae/config.json");
        link("/nowhere/model", "t5/model.safetensors");
        link("loop", "vae/loop");
        let source = ModelSource::folder(&root).unwrap();
        let error = source.config("vae/config.json").unwrap_err().to_string();
        assert!(
            error.contains("it is a link to ../../../blobs/0123, which is not there: the download is incomplete; load `org/name`"),
            "{error}"
        );
        let error = source.open_weights("t5", None).unwrap_err().to_string();
        assert!(
            error.contains("no such file in the pipeline; `model.safetensors` there is a link to /nowhere/model"),
            "{error}"
        );
        let error = source.read("t5/config.json", 9).unwrap_err().to_string();
        assert!(
            error.contains("; `model.safetensors` there is a link to"),
            "{error}"
        );
        assert!(
            source
                .read("vae/loop", 9)
                .unwrap_err()
                .to_string()
                .contains("link to loop")
        );
    }
}
