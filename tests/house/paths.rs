//! A public item has one path: users find it in one place, and all code that uses it reads alike. A crate whose signatures need
//! another crate of the workspace re-exports that crate as a whole, under its name, or some of its items: not both.

use crate::modules::Modules;
use crate::{ARROWS, crates, read};

#[test]
fn no_public_item_has_two_paths() {
    let mut found = Vec::new();
    for (name, dir) in crates() {
        let entry = dir.join("src/lib.rs");
        if !entry.exists() {
            continue;
        }
        let paths = Modules::read(&entry).public_paths();
        assert!(paths.len() > 5, "{name}: {} public items", paths.len());
        for (home, shown) in paths.iter().filter(|(_, shown)| shown.len() > 1) {
            let shown: Vec<String> = shown.iter().map(|path| path.join("::")).collect();
            found.push(format!(
                "{name}: {} as {}",
                home.join("::"),
                shown.join(", ")
            ));
        }
    }
    assert!(
        found.is_empty(),
        "items with several paths:\n{}",
        found.join("\n")
    );
}

#[test]
fn crates_re_export_what_their_signatures_need() {
    // Tensors, devices, groups and ranks are in the signatures of every library crate that builds on these two.
    const IN_SIGNATURES: [&str; 2] = ["xdit-kernels", "xdit-comm"];
    let mut found = 0;
    for ((_, dir), (name, uses)) in crates().zip(ARROWS) {
        let entry = dir.join("src/lib.rs");
        if !entry.exists() {
            continue;
        }
        let source = read(&entry);
        for used in uses {
            let path = used.replace('-', "_");
            let whole = source
                .lines()
                .any(|line| line == format!("pub use {path};"));
            let items = source.contains(&format!("pub use {path}::"));
            assert!(
                !(whole && items),
                "{name}: `pub use {path}` as a whole and by items"
            );
            if IN_SIGNATURES.contains(used) {
                found += 1;
                assert!(whole, "{name}: `pub use {path};` is missing in src/lib.rs");
            }
        }
    }
    assert!(found >= 9, "{found} re-exports: the check is broken");
}
