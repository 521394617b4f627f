//! A public item has one path: users find it in one place, and all code that uses it reads alike.

use crate::crates;
use crate::modules::Modules;

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
