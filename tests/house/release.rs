//! What ships: archives, the image of Docker and the pages that speak of them name the same things.

use crate::{read, root};

/// The text between two marks of a file's first line that has the first.
fn between(text: &str, before: &str, after: &str) -> String {
    let found = text.split_once(before).and_then(|(_, rest)| {
        rest.split_once(after)
            .map(|(inside, _)| inside.trim().to_owned())
    });
    found.unwrap_or_else(|| panic!("no {before}…{after}"))
}

#[test]
fn binstall_looks_for_the_archives_of_the_release() {
    let manifest = read(&root().join("xdit-cli/Cargo.toml"));
    let script = read(&root().join("ci/release.sh"));
    let name = |text: &str| {
        text.replace("{ name }", "xdit-cli")
            .replace("{ version }", "$version")
            .replace("{ target }", "$target")
    };
    let url = name(&between(&manifest, "pkg-url = \"", "\""));
    let archive = url.rsplit('/').next().expect("a name").to_owned();
    let folder = between(&script, "name=", "\n");
    assert_eq!(archive, format!("{folder}.tgz"));
    let inside = name(&between(&manifest, "bin-dir = \"", "\""));
    assert_eq!(inside, format!("{folder}/{{ bin }}{{ binary-ext }}"));
    assert!(script.contains("--profile dist"), "the profile of releases");
}

#[test]
fn licences_of_dependencies_ship_with_the_binary() {
    let command = "ci/licences.sh";
    for (file, ships) in [
        ("ci/release.sh", ">\"$stage/THIRD-PARTY-LICENCES.txt\""),
        (
            "Dockerfile",
            " /source/THIRD-PARTY-LICENCES.txt /usr/share/doc",
        ),
    ] {
        let text = read(&root().join(file));
        assert!(text.contains(command), "{file}: no {command}");
        assert!(text.contains(ships), "{file}: no {ships}");
    }
}

#[test]
fn the_dist_profile_unwinds() {
    // A rank that panics is reported by the others: its panic is caught.
    let workspace = read(&root().join("Cargo.toml"));
    let (_, dist) = workspace
        .split_once("[profile.dist]\n")
        .expect("Cargo.toml has the profile dist");
    let dist = dist.split("\n\n").next().unwrap_or_default();
    assert!(dist.contains("lto = "), "{dist}");
    assert!(!workspace.contains("panic = \"abort\""));
}

#[test]
fn docker_builds_from_what_it_is_given() {
    let workspace = read(&root().join("Cargo.toml"));
    let members = between(&workspace, "members = [", "]");
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    let ignored = read(&root().join(".dockerignore"));
    let given: Vec<&str> = ignored
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    assert!(members.len() > 5, "{members:?}");
    for needed in
        members
            .into_iter()
            .chain(["Cargo.toml", "Cargo.lock", "LICENSE", "ci/licences.sh"])
    {
        let there = given.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => needed.starts_with(start),
            None => needed == *pattern || needed.starts_with(&format!("{pattern}/")),
        });
        assert!(there, ".dockerignore leaves out {needed}");
    }
    let image = read(&root().join("Dockerfile"));
    let minimum = between(&workspace, "rust-version = \"", "\"");
    assert!(image.contains(&format!("FROM rust:{minimum}-")), "{image}");
}
