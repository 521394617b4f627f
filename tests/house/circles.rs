//! No two files of a crate import each other, not even by way of others: a reader of one file needs only what lies below it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::modules::Modules;
use crate::{crates, root};

/// Groups of files that can all reach each other, each of more than one file.
fn circles<'a>(edges: &BTreeMap<&'a Path, BTreeSet<&'a Path>>) -> Vec<Vec<&'a Path>> {
    let reach: BTreeMap<&Path, BTreeSet<&Path>> = edges
        .keys()
        .map(|start| {
            let (mut seen, mut todo) = (BTreeSet::new(), vec![*start]);
            while let Some(file) = todo.pop() {
                for next in edges.get(file).into_iter().flatten() {
                    if seen.insert(*next) {
                        todo.push(next);
                    }
                }
            }
            (*start, seen)
        })
        .collect();
    let mut found = BTreeSet::new();
    for (file, others) in &reach {
        let circle: Vec<&Path> = others
            .iter()
            .copied()
            .filter(|other| reach.get(other).is_some_and(|back| back.contains(file)))
            .collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

#[test]
fn no_two_files_import_each_other() {
    let mut found = Vec::new();
    for (name, dir) in crates() {
        let entry = ["src/lib.rs", "src/main.rs"].map(|file| dir.join(file));
        let entry = entry.iter().find(|file| file.exists());
        let modules = Modules::read(entry.expect("a crate has an entry file"));
        let edges = modules.edges();
        assert!(
            edges.values().any(|to| !to.is_empty()),
            "{name}: no import was read"
        );
        for circle in circles(&edges) {
            let inside: BTreeSet<&Path> = circle.iter().copied().collect();
            for file in circle {
                let short = |file: &Path| {
                    file.strip_prefix(root())
                        .unwrap_or(file)
                        .display()
                        .to_string()
                };
                let to = edges[file].intersection(&inside).map(|to| short(to));
                found.push(format!(
                    "{} imports {}",
                    short(file),
                    to.collect::<Vec<_>>().join(", ")
                ));
            }
            found.push(String::new());
        }
    }
    assert!(
        found.is_empty(),
        "files that import each other:\n{}",
        found.join("\n")
    );
}
