//! Tensor types apart from kernels: the crates that only move tensors compile no SIMD code.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{read, root, walk};

/// The line of a manifest that declares this dependency.
fn dependency(manifest: &Path, name: &str) -> String {
    let text = read(manifest);
    let line = text.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([' ', '.']))
    });
    line.unwrap_or_else(|| panic!("{}: no {name}", manifest.display()))
        .to_owned()
}

#[test]
fn messages_between_ranks_compile_no_kernels() {
    let shared = dependency(&root().join("Cargo.toml"), "xdit-kernels");
    assert!(shared.contains("default-features = false"), "{shared}");
    let ranks = dependency(&root().join("xdit-comm/Cargo.toml"), "xdit-kernels");
    assert!(!ranks.contains("features"), "xdit-comm: {ranks}");
    let kernels = read(&root().join("xdit-kernels/Cargo.toml"));
    assert!(kernels.contains("\ndefault = [\"ops\"]\n"), "{kernels}");
    for name in ["xdit-usp", "xdit-pipefusion", "xdit-cfg", "xdit-models"] {
        let line = dependency(&root().join(name).join("Cargo.toml"), "xdit-kernels");
        assert!(line.contains("features = [\"ops\"]"), "{name}: {line}");
    }
}

/// The files of a module of `xdit-kernels/src`, without its tests.
fn files_of(module: &str) -> Vec<PathBuf> {
    let src = root().join("xdit-kernels/src");
    let file = src.join(format!("{module}.rs"));
    if file.exists() {
        return vec![file];
    }
    let mut files = Vec::new();
    walk(&src.join(module), &mut files);
    files.retain(|file| !file.ends_with("tests.rs"));
    files
}

#[test]
fn tensors_compile_without_kernels() {
    let entry = read(&root().join("xdit-kernels/src/lib.rs"));
    let lines: Vec<&str> = entry.lines().collect();
    let (mut gated, mut always) = (Vec::new(), Vec::new());
    for (n, line) in lines.iter().enumerate() {
        let name = line.strip_prefix("pub ").unwrap_or(line);
        let Some(module) = name.strip_prefix("mod ").and_then(|m| m.strip_suffix(';')) else {
            continue;
        };
        match lines[n.saturating_sub(1)] {
            "#[cfg(feature = \"ops\")]" => gated.push(module),
            before if before.starts_with("#[cfg(") && before.contains("test") => {}
            _ => always.push(module),
        }
    }
    // Every folder but `layout` and `cuda`, which launches kernels of other folders, is a kernel or what kernels are made of.
    for folder in fs::read_dir(root().join("xdit-kernels/src")).expect("the sources") {
        let path = folder.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        let kernel = path.is_dir() && name != "layout" && name != "cuda";
        assert!(!kernel || gated.contains(&&*name), "{name} has no gate");
    }
    assert!(gated.contains(&"simd"), "{gated:?}");
    assert!(always.contains(&"tensor"), "{always:?}");
    for file in always.into_iter().flat_map(files_of) {
        let text = read(&file);
        let text = text.split("\nmod tests {").next().unwrap_or_default();
        for mark in [
            "simd::",
            "tiered!",
            "_mm256",
            "_mm512",
            "float32x4",
            "target_feature",
        ] {
            assert!(!text.contains(mark), "{}: {mark}", file.display());
        }
        for module in &gated {
            // In comments, links may lead to kernels.
            let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
            let uses = format!("crate::{module}::");
            for line in code {
                assert!(!line.contains(&uses), "{}: {line}", file.display());
            }
        }
    }
}
