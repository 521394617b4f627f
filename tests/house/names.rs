//! One word means one thing: no two types that a crate shows, or shares between its files, have the same name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::{crates, read, root, walk};

/// Names that each crate has by convention.
const EVERYWHERE: [&str; 2] = ["Error", "Result"];

/// What each family of models has, in its own folder.
const OF_A_FAMILY: [&str; 4] = ["Configs", "Encoders", "Modulation", "Tokenizers"];
/// Names of two things that are still to be told apart; none may be added.
const KNOWN: [&str; 8] = [
    "Check",
    "Layout",
    "OutputType",
    "Progress",
    "PromptEmbeds",
    "Rows",
    "Sealed",
    "Wanted",
];

/// The name of the public or crate-wide type that a line defines.
fn defined(line: &str) -> Option<&str> {
    let (visible, rest) = line.trim_start().split_once(' ')?;
    if visible != "pub" && visible != "pub(crate)" {
        return None;
    }
    let (kind, rest) = rest.trim_start_matches("unsafe ").split_once(' ')?;
    if !["struct", "enum", "trait", "type", "union"].contains(&kind) {
        return None;
    }
    rest.split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
}

#[test]
fn no_two_types_have_the_same_name() {
    let mut homes = BTreeMap::<String, Vec<PathBuf>>::new();
    for (_, dir) in crates() {
        let mut files = Vec::new();
        walk(&dir.join("src"), &mut files);
        for file in files {
            if file.extension().is_none_or(|x| x != "rs") {
                continue;
            }
            for name in read(&file).lines().filter_map(defined) {
                let short = file.strip_prefix(root()).unwrap_or(&file).to_owned();
                homes.entry(name.to_owned()).or_default().push(short);
            }
        }
    }
    assert!(homes.len() > 100, "{} types were found", homes.len());
    let twice: Vec<String> = homes
        .iter()
        .filter(|(name, files)| {
            let family = OF_A_FAMILY.contains(&name.as_str());
            let named = |file: &PathBuf| file.starts_with("xdit-models/src/models");
            let allowed = EVERYWHERE.contains(&name.as_str())
                || KNOWN.contains(&name.as_str())
                || (family && files.iter().all(named));
            files.len() > 1 && !allowed
        })
        .map(|(name, files)| format!("{name}: {files:?}"))
        .collect();
    assert!(
        twice.is_empty(),
        "names of two things:\n{}",
        twice.join("\n")
    );
}
