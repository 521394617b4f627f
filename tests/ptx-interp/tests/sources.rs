//! The committed PTX, of this crate and of xdit-kernels, belongs to the sources beside it.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Files below a folder whose names end so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of the tree") {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found
}

/// A source and all that it includes in quotes, each once, in order of inclusion, as `ci/nvrtc.py` finds them.
fn sources(path: &Path, seen: &mut Vec<PathBuf>) {
    let path = path
        .canonicalize()
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if seen.contains(&path) {
        return;
    }
    seen.push(path.clone());
    for line in read(&path).lines() {
        let Some(include) = line.trim_start().strip_prefix('#').map(str::trim_start) else {
            continue;
        };
        if let Some(name) = include
            .strip_prefix("include")
            .and_then(|rest| rest.split('"').nth(1))
        {
            sources(&path.with_file_name(name), seen);
        }
    }
}

#[test]
fn ptx_holds_the_hash_of_its_sources() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in [here.join("kernels"), here.join("../../xdit-kernels/src")] {
        // NAME.cu of xdit-kernels is for sm_80, and NAME.sm_90a.cu for sm_90a.
        let mut expected: Vec<PathBuf> = Vec::new();
        for source in files(&folder, ".cu") {
            let name = source.to_string_lossy().into_owned();
            let ptx = if folder.ends_with("kernels") || name.ends_with(".sm_90a.cu") {
                source.with_extension("ptx")
            } else {
                source.with_extension("sm_80.ptx")
            };
            let mut all = Vec::new();
            sources(&source, &mut all);
            let mut hash = Sha256::new();
            all.iter().for_each(|file| hash.update(read(file)));
            let digest: String = hash
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(
                read(&ptx).lines().next().unwrap_or_default(),
                format!("// sources: sha256 {digest}"),
                "{}: run ci/ptx.sh",
                ptx.display()
            );
            expected.push(ptx);
        }
        let mut found = files(&folder, ".ptx");
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "run ci/ptx.sh, remove what has no source");
        assert!(folder.ends_with("src") || !found.is_empty());
    }
}
