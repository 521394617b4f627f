//! What crates.io and docs.rs show of a published crate: its manifest, and its README, which crates.io shows without rustdoc.

use crate::{crates, read};

/// The categories of crates.io that fit this project. The whole list: <https://crates.io/category_slugs>.
const CATEGORIES: [&str; 7] = [
    "algorithms",
    "command-line-utilities",
    "concurrency",
    "hardware-support",
    "mathematics",
    "multimedia::images",
    "science",
];

/// The quoted strings of the line that begins with `key = `.
fn strings(manifest: &str, key: &str) -> Vec<String> {
    let line = manifest
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    let quoted = line.unwrap_or_default().split('"').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// The names of the features of a crate.
fn features(manifest: &str) -> Vec<&str> {
    let section = manifest.split("\n[features]\n").nth(1);
    let section = section.unwrap_or_default().split("\n[").next();
    let lines = section.unwrap_or_default().lines();
    let named = lines.filter_map(|line| line.split_once(" = ["));
    named.map(|(name, _)| name).collect()
}

#[test]
fn every_crate_has_a_page_on_crates_io() {
    for (name, dir) in crates() {
        let manifest = read(&dir.join("Cargo.toml"));
        let description = strings(&manifest, "description").concat();
        assert!(description.len() > 30, "{name}: description");
        let keywords = strings(&manifest, "keywords");
        assert!((1..=5).contains(&keywords.len()), "{name}: {keywords:?}");
        for keyword in keywords {
            let legal = |c: char| c.is_ascii_alphanumeric() || "-_+".contains(c);
            let starts = keyword.starts_with(|c: char| c.is_ascii_alphanumeric());
            let fits = keyword.len() <= 20 && keyword.chars().all(legal);
            assert!(starts && fits, "{name}: keyword {keyword}");
        }
        let categories = strings(&manifest, "categories");
        assert!(
            (1..=5).contains(&categories.len()),
            "{name}: {categories:?}"
        );
        for category in categories {
            assert!(
                CATEGORIES.contains(&category.as_str()),
                "{name}: category {category}"
            );
        }
        for inherited in ["repository", "license"] {
            let line = format!("\n{inherited}.workspace = true\n");
            assert!(manifest.contains(&line), "{name}: {inherited}");
        }
        assert!(
            manifest.contains("\nreadme = \"README.md\"\n"),
            "{name}: readme"
        );
    }
}

#[test]
fn docs_rs_shows_all_features() {
    let mut libraries = 0;
    for (name, dir) in crates().filter(|(_, dir)| dir.join("src/lib.rs").exists()) {
        libraries += 1;
        let manifest = read(&dir.join("Cargo.toml"));
        let section = manifest.split("[package.metadata.docs.rs]\n").nth(1);
        let section = section.unwrap_or_else(|| panic!("{name}: [package.metadata.docs.rs]"));
        let section = section.split("\n[").next().unwrap_or_default();
        if !section.contains("all-features = true") {
            // docs.rs has no MPI installation.
            let mut others = features(&manifest);
            assert!(others.contains(&"mpi"), "{name}: {section}");
            others.retain(|feature| !["default", "mpi"].contains(feature));
            assert_eq!(strings(section, "features"), others, "{name}");
        }
        assert!(
            section.contains("[\"--cfg\", \"docsrs\"]"),
            "{name}: {section}"
        );
        let docs = strings(&manifest, "documentation");
        assert_eq!(
            docs,
            [format!("https://docs.rs/{name}")],
            "{name}: documentation"
        );
        let entry = read(&dir.join("src/lib.rs"));
        assert!(
            entry.contains("#![cfg_attr(docsrs, feature(doc_cfg))]"),
            "{name}: src/lib.rs"
        );
        assert!(
            entry.contains("#![doc = include_str!(\"../README.md\")]"),
            "{name}: src/lib.rs"
        );
    }
    assert_eq!(libraries, 6);
}

#[test]
fn readmes_say_how_to_add_the_crate() {
    for (name, dir) in crates() {
        let readme = read(&dir.join("README.md"));
        let is_library = dir.join("src/lib.rs").exists();
        let line = match is_library {
            true => format!("cargo add {name}"),
            false => format!("cargo install --path {name} --locked"),
        };
        let shell = blocks(&readme).filter(|(language, _)| *language == "sh");
        let lines: Vec<&str> = shell.flat_map(|(_, text)| text.lines()).collect();
        assert!(
            lines.contains(&line.as_str()),
            "{name}: `{line}`, a line of its own: {lines:?}"
        );
    }
}

/// The code blocks of a page, with the word after their fence.
fn blocks(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n'))
}

#[test]
fn programs_in_readmes_compile_as_printed() {
    // A README is the documentation of its crate, so `cargo test --doc` compiles its programs. What rustdoc adds to them (`fn main`)
    // or hides (lines that begin with `#`) a reader of crates.io does not see.
    let mut programs = 0;
    for (name, dir) in crates() {
        let readme = read(&dir.join("README.md"));
        assert_eq!(
            readme.matches("```").count() % 2,
            0,
            "{name}: an open code block"
        );
        for (language, program) in blocks(&readme) {
            assert!(
                !language.is_empty(),
                "{name}: rustdoc takes a block without a language for Rust"
            );
            if !language.starts_with("rust") {
                continue;
            }
            programs += 1;
            assert!(
                ["rust", "rust,no_run"].contains(&language),
                "{name}: ```{language}"
            );
            assert!(
                program.contains("fn main()"),
                "{name}: no fn main in\n{program}"
            );
            for line in program.lines() {
                let hidden = line.trim_start().starts_with("# ") || line.trim() == "#";
                assert!(!hidden, "{name}: `{line}` is hidden by rustdoc");
            }
        }
    }
    assert!(programs >= 6, "{programs} programs");
}

#[test]
fn readmes_have_no_links_that_only_rustdoc_follows() {
    for (name, dir) in crates() {
        let readme = read(&dir.join("README.md"));
        // Outside code blocks.
        for text in readme.split("```").step_by(2) {
            for (at, _) in text.match_indices("](") {
                let target = text[at + 2..].split(')').next().unwrap_or_default();
                let followed = target.starts_with("https://") || target.starts_with('#');
                assert!(
                    followed,
                    "{name}: a link to `{target}`, which crates.io cannot follow"
                );
            }
            for (at, _) in text.match_indices("`]") {
                assert!(
                    text[at + 2..].starts_with('('),
                    "{name}: a link without an address before byte {at} of\n{text}"
                );
            }
        }
    }
}
