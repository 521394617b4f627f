//! What people read: README fits a screen and tells the truth, and files that pages name are there.

use crate::{files_with, read, root};

#[test]
fn readme_is_one_screen() {
    let text = read(&root().join("README.md"));
    let lines = text.lines().count();
    assert!(lines <= 60, "README.md has {lines} lines");
    for (n, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        assert!(columns <= 120, "README.md:{}: {columns} columns", n + 1);
    }
}

#[test]
fn readme_names_the_tests_of_every_strategy() {
    let tests = read(&root().join("tests/strategies/table.rs"));
    let readme = read(&root().join("README.md"));
    let mut lines = readme
        .lines()
        .skip_while(|line| !line.contains("`ulysses`"));
    let names = |line: &str| -> Vec<String> {
        let quoted = line.split('`').skip(1).step_by(2);
        quoted.map(str::to_owned).collect()
    };
    let strategies = names(lines.next().expect("the table of strategies"));
    for strategy in &strategies {
        assert!(tests.contains(&format!("fn {strategy}()")), "{strategy}");
    }
    assert_eq!(tests.matches("#[test]").count(), strategies.len());
    let families: Vec<&str> = lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(families.len(), tests.matches("\nevery_strategy!(").count());
    for line in families {
        let family = names(line).remove(0);
        assert!(
            tests.contains(&format!("every_strategy!(\n    {family},")),
            "{family}"
        );
        assert_eq!(line.matches('✓').count(), strategies.len(), "{line}");
    }
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn expanded(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else {
        return vec![path.to_owned()];
    };
    let Some((inside, after)) = rest.split_once('}') else {
        return vec![path.to_owned()];
    };
    inside
        .split(',')
        .flat_map(|part| expanded(&format!("{before}{part}{after}")))
        .collect()
}

#[test]
fn files_that_pages_name_are_there() {
    let mut named = 0;
    for file in files_with(&["md"]) {
        // A change log tells of files as they were.
        if file.ends_with("CHANGELOG.md") {
            continue;
        }
        for quoted in read(&file).split('`').skip(1).step_by(2) {
            let Some((first, _)) = quoted.split_once('/') else {
                continue;
            };
            let ours = first.starts_with("xdit-")
                || ["tests", "docs", "ci", "demo", ".ci"].contains(&first);
            if !ours || quoted.contains(|c: char| c.is_whitespace() || "<>*…".contains(c)) {
                continue;
            }
            for path in expanded(quoted) {
                // Below the root, or below the crate whose page it is; a module may lack its `.rs`.
                let folders = [root(), file.parent().expect("a folder").to_owned()];
                let there = folders
                    .map(|folder| folder.join(&path))
                    .iter()
                    .any(|path| path.exists() || path.with_extension("rs").exists());
                named += 1;
                assert!(there, "{}: no {path}", file.display());
            }
        }
    }
    assert!(named > 20, "pages name {named} files: the check is broken");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut links = 0;
    for file in files_with(&["md"]) {
        let (text, folder) = (read(&file), file.parent().expect("a folder"));
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.starts_with("https://") {
                continue;
            }
            links += 1;
            let there = folder.join(target).exists();
            assert!(there, "{}: a link to {target}", file.display());
        }
    }
    assert!(links > 10, "{links} links: the check is broken");
}
