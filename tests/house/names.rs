//! One word means one thing: no two types of the workspace have the same name, whoever may use them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::{crates, read, root, walk};

/// Names that each crate has by convention.
const OF_A_CRATE: [&str; 2] = ["Error", "Result"];

/// What each family of models has under the same name in its own folder, so that a reader who knows one family knows all.
const OF_A_FAMILY: [&str; 4] = ["Configs", "Encoders", "Modulation", "Tokenizers"];

/// The name of the type that a line defines in a module. Types inside functions and inline tests are indented and have no
/// visibility of their own.
fn defined(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    let indented = rest.len() < line.len();
    if let Some(after) = rest.strip_prefix("pub") {
        rest = match after.strip_prefix('(') {
            Some(inside) => inside.split_once(')')?.1,
            None => after,
        };
        rest = rest.strip_prefix(' ')?;
    } else if indented {
        return None;
    }
    let (kind, rest) = rest.trim_start_matches("unsafe ").split_once(' ')?;
    if !["struct", "enum", "trait", "type", "union"].contains(&kind) {
        return None;
    }
    rest.split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
}

/// Whether a file holds tests only. Their types are seen by them alone.
fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests")
        || file
            .file_stem()
            .is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
}

#[test]
fn types_are_found_whatever_their_visibility() {
    for (line, name) in [
        ("pub struct Public<T> {", Some("Public")),
        ("pub(crate) enum Shared {", Some("Shared")),
        ("    pub(super) type Near = u32;", Some("Near")),
        ("pub(in crate::a::b) trait Deep {", Some("Deep")),
        ("struct Private;", Some("Private")),
        ("pub unsafe trait Promise {", Some("Promise")),
        ("    struct InAFunction;", None),
        ("    type Associated = u32;", None),
        ("public type of thing", None),
        ("fn structure() {}", None),
    ] {
        assert_eq!(defined(line), name, "{line}");
    }
}

#[test]
fn no_two_types_have_the_same_name() {
    // Alternatives for two systems lie in one file.
    let mut homes = BTreeMap::<String, BTreeSet<PathBuf>>::new();
    for (_, dir) in crates() {
        let mut files = Vec::new();
        walk(&dir.join("src"), &mut files);
        for file in files {
            let short = file.strip_prefix(root()).unwrap_or(&file);
            if file.extension().is_none_or(|x| x != "rs") || is_test(short) {
                continue;
            }
            for name in read(&file).lines().filter_map(defined) {
                homes
                    .entry(name.to_owned())
                    .or_default()
                    .insert(short.to_owned());
            }
        }
    }
    assert!(homes.len() > 400, "{} types were found", homes.len());
    let twice: Vec<String> = homes
        .iter()
        .filter(|(name, files)| {
            let name = name.as_str();
            let mut files = files.iter();
            let of_a_family = files.all(|file| file.starts_with("xdit-models/src/models"));
            let allowed =
                OF_A_CRATE.contains(&name) || (OF_A_FAMILY.contains(&name) && of_a_family);
            !allowed
        })
        .filter(|(_, files)| files.len() > 1)
        .map(|(name, files)| format!("{name}: {files:?}"))
        .collect();
    assert!(
        twice.is_empty(),
        "names of two things:\n{}",
        twice.join("\n")
    );
}
