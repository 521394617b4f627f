//! House rules that a machine can check, over the files of the whole workspace. Each test names the rule of CONTRIBUTING.md
//! that it guards. `circles.rs` looks at imports (which `modules.rs`, `reader.rs` and `tokens.rs` read), `names.rs` at names of
//! types, `messages.rs` at what users are told, `paths.rs` at paths of public items, `features.rs` at the feature that gates
//! kernels, `readme.rs` at what people read, `crates_io.rs` at what the pages of published crates show, `release.rs` at what
//! ships, `demo.rs` at what is said about the demo, `scripts.rs` at
//! shell scripts; the other rules are here.

mod circles;
mod crates_io;
mod demo;
mod features;
mod messages;
mod modules;
mod names;
mod paths;
mod reader;
mod readme;
mod release;
mod scripts;
mod tokens;

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the workspace")
        .to_path_buf()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every file of the tree, without build products and dot folders.
fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder of the tree").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if name != "target"
                && name != "__pycache__"
                && (!name.starts_with('.') || name == ".ci")
            {
                walk(&path, out);
            }
        } else {
            out.push(path);
        }
    }
}

fn files_with(extensions: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(&root(), &mut files);
    files.retain(|f| {
        f.extension()
            .is_some_and(|x| extensions.iter().any(|e| x == *e))
    });
    assert!(
        !files.is_empty(),
        "no file ends in {extensions:?}: the walk is broken"
    );
    files
}

/// The crates in publishing order, each with the crates of this workspace it may depend on.
const ARROWS: [(&str, &[&str]); 7] = [
    ("xdit-kernels", &[]),
    ("xdit-comm", &["xdit-kernels"]),
    ("xdit-usp", &["xdit-kernels", "xdit-comm"]),
    ("xdit-pipefusion", &["xdit-kernels", "xdit-comm"]),
    ("xdit-cfg", &["xdit-kernels", "xdit-comm"]),
    (
        "xdit-models",
        &[
            "xdit-kernels",
            "xdit-comm",
            "xdit-usp",
            "xdit-pipefusion",
            "xdit-cfg",
        ],
    ),
    ("xdit-cli", &["xdit-kernels", "xdit-comm", "xdit-models"]),
];

fn crates() -> impl Iterator<Item = (&'static str, PathBuf)> {
    ARROWS
        .into_iter()
        .map(|(name, _)| (name, root().join(name)))
}

#[test]
fn arrows_point_one_way() {
    for (name, allowed) in ARROWS {
        let manifest = read(&root().join(name).join("Cargo.toml"));
        let mut dependencies = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                dependencies = line == "[dependencies]";
            }
            if let Some(dep) = line
                .split(['.', ' ', '='])
                .next()
                .filter(|d| dependencies && d.starts_with("xdit-"))
            {
                assert!(allowed.contains(&dep), "{name} must not depend on {dep}");
            }
        }
    }
}

#[test]
fn every_crate_of_the_tree_has_its_arrows() {
    for entry in fs::read_dir(root()).expect("the root").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // A picture that the README's first command draws here has such a name too.
        if name.starts_with("xdit-") && entry.path().is_dir() {
            assert!(
                ARROWS.iter().any(|(n, _)| *n == name),
                "{name}: add it to ARROWS"
            );
        }
    }
}

#[test]
fn top_level_folders_are_the_design() {
    const FOLDERS: [&str; 12] = [
        "xdit-kernels",
        "xdit-comm",
        "xdit-attn",
        "xdit-usp",
        "xdit-pipefusion",
        "xdit-cfg",
        "xdit-models",
        "xdit-cli",
        "tests",
        "docs",
        "ci",
        "demo",
    ];
    for entry in fs::read_dir(root()).expect("the root").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') && name != "target" {
            assert!(
                FOLDERS.contains(&name.as_str()),
                "{name}/ is not a folder of the design"
            );
        }
    }
}

#[test]
fn files_stay_short() {
    for file in files_with(&["rs", "py", "cu"]) {
        let lines = read(&file).lines().count();
        assert!(
            lines <= 400,
            "{} has {lines} lines: split it by idea",
            file.display()
        );
    }
}

#[test]
fn no_unfinished_marks() {
    for file in files_with(&["rs", "py", "sh"]) {
        if file.starts_with(root().join("tests/house")) {
            continue;
        }
        for (n, line) in read(&file).lines().enumerate() {
            for mark in ["TODO", "FIXME", "todo!(", "unimplemented!(", "dbg!("] {
                assert!(!line.contains(mark), "{}:{}: {mark}", file.display(), n + 1);
            }
        }
    }
}

#[test]
fn unsafe_lives_in_the_kernels_and_next_to_foreign_libraries() {
    for (name, dir) in crates() {
        let entry = ["src/lib.rs", "src/main.rs"].map(|f| dir.join(f));
        let source = read(
            entry
                .iter()
                .find(|f| f.exists())
                .expect("a crate has an entry file"),
        );
        let level = ["forbid", "deny"]
            .into_iter()
            .find(|level| source.contains(&format!("#![{level}(unsafe_code)]")));
        let expected = match name {
            "xdit-kernels" => None,
            "xdit-comm" => Some("deny"),
            _ => Some("forbid"),
        };
        assert_eq!(level, expected, "{name}: the lint unsafe_code");
    }
    // A transport calls its library in one file or folder.
    let processes = root().join("xdit-comm/src/processes");
    let mut files = Vec::new();
    walk(&root().join("xdit-comm"), &mut files);
    for file in files {
        let text = read(&file);
        let levels = ["allow", "expect"].map(|level| format!("{level}(unsafe_code"));
        let allows = levels.iter().any(|level| text.contains(level));
        let calls = file.ends_with("ffi.rs") || file.ends_with("ffi/mod.rs");
        let place = calls && file.starts_with(&processes);
        assert!(!allows || place, "{}: allow(unsafe_code)", file.display());
    }
}

#[test]
fn x86_code_is_gated() {
    // The crate must compile where there is no x86: a file with std::arch has a cfg of its own, or the line before its
    // `mod` has one.
    let sources: Vec<(PathBuf, String)> = files_with(&["rs"])
        .into_iter()
        .map(|f| (f.clone(), read(&f)))
        .collect();
    let gate = "target_arch = \"x86_64\"";
    let mut seen = 0;
    for (file, text) in sources
        .iter()
        .filter(|(f, _)| !f.starts_with(root().join("tests/house")))
    {
        if !text.contains("std::arch::x86_64") {
            continue;
        }
        seen += 1;
        let module = format!(
            "mod {};",
            file.file_stem().unwrap_or_default().to_string_lossy()
        );
        let gated_at_mod = sources.iter().any(|(_, parent)| {
            let lines: Vec<&str> = parent.lines().collect();
            lines
                .windows(2)
                .any(|w| w[0].contains(gate) && w[1].ends_with(&module))
        });
        assert!(
            text.contains(gate) || gated_at_mod,
            "{}: std::arch::x86_64 without a cfg",
            file.display()
        );
    }
    assert!(seen > 0, "no x86 code found: the check is broken");
}

#[test]
fn library_crates_read_no_environment() {
    for (name, dir) in crates().filter(|(name, _)| *name != "xdit-cli") {
        let mut files = Vec::new();
        walk(&dir.join("src"), &mut files);
        for file in files
            .iter()
            .filter(|f| f.extension().is_some_and(|x| x == "rs"))
        {
            let text = read(file);
            for ambient in ["env::var", "thread_local!", "static mut "] {
                assert!(
                    !text.contains(ambient),
                    "{name}: {} has {ambient}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn models_know_no_ranks() {
    let mut models = 0;
    for file in files_with(&["rs"]) {
        if file.ends_with("transformer.rs") {
            models += 1;
            assert!(
                !read(&file).contains("rank"),
                "{}: single-device code",
                file.display()
            );
        }
    }
    assert!(models >= 3, "{models} models were found");
}

#[test]
fn each_kernel_folder_is_complete() {
    // A kernel has its API and checks (mod.rs), its processor code (cpu.rs or a folder of that name) and its tests.
    let src = root().join("xdit-kernels/src");
    let mut kernels = 0;
    for entry in fs::read_dir(&src).expect("the kernels").flatten() {
        let dir = entry.path();
        if !dir.is_dir() || dir.ends_with("simd") || dir.ends_with("cuda") {
            continue;
        }
        kernels += 1;
        for part in ["mod.rs", "cpu.rs", "tests.rs"] {
            let folder = dir.join(part.trim_end_matches(".rs"));
            assert!(
                dir.join(part).exists() || folder.is_dir(),
                "{}: no {part}",
                dir.display()
            );
        }
    }
    assert!(kernels > 0, "no kernel folder found");
}

#[test]
fn every_crate_has_its_papers() {
    for (name, dir) in crates() {
        let manifest = read(&dir.join("Cargo.toml"));
        let version = manifest
            .lines()
            .find_map(|l| l.strip_prefix("version = \"")?.strip_suffix('"'))
            .unwrap_or_else(|| panic!("{name} has no version"));
        let changelog = read(&dir.join("CHANGELOG.md"));
        assert!(
            changelog.contains(&format!("[{version}]")),
            "{name}: CHANGELOG.md lacks {version}"
        );
        assert!(
            read(&dir.join("README.md")).lines().count() > 10,
            "{name}: README.md says too little"
        );
        assert!(dir.join("LICENSE").exists(), "{name}: no LICENSE");
        let lints = manifest
            .split("[lints]")
            .nth(1)
            .is_some_and(|l| l.trim_start().starts_with("workspace = true"));
        assert!(lints, "{name}: [lints] workspace = true");
    }
}

#[test]
fn goldens_stay_small() {
    let mut files = Vec::new();
    walk(&root().join("tests/golden"), &mut files);
    let bytes: u64 = files
        .iter()
        .map(|f| fs::metadata(f).expect("a golden").len())
        .sum();
    assert!(bytes < 10_000_000, "tests/golden holds {bytes} bytes");
}
