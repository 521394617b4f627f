//! `api RUSTDOC.json`: the public items of a crate, a line each, as `ci/api.sh` keeps them.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use public_api::Builder;

/// Traits that tell users nothing.
const SILENT: [&str; 6] = [
    "Freeze",
    "RefUnwindSafe",
    "StructuralPartialEq",
    "Unpin",
    "UnsafeUnpin",
    "UnwindSafe",
];

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os()
        .nth(1)
        .ok_or("usage: api RUSTDOC.json")?;
    let lines = |implied: bool| -> Result<BTreeSet<String>, Box<dyn Error>> {
        let api = Builder::from_rustdoc_json(&file)
            .omit_blanket_impls(true)
            .omit_auto_trait_impls(!implied)
            .omit_auto_derived_impls(!implied)
            .build()?;
        Ok(api.items().map(|item| short(&item.to_string())).collect())
    };
    // The methods of derived traits go without saying, and the standard library's traits of a type stand in one line.
    let (mut kept, mut traits) = (BTreeSet::new(), BTreeMap::new());
    let written = lines(false)?.into_iter();
    let implied = lines(true)?;
    let implied = implied.into_iter().filter(|line| line.starts_with("impl"));
    for line in written.chain(implied) {
        let Some((head, of)) = line
            .split_once(" for ")
            .filter(|_| line.starts_with("impl"))
        else {
            // Each `Display` and `Debug` has this one.
            if !line.starts_with("impl")
                && !line.ends_with("::fmt(&self, &mut Formatter<'_>) -> Result")
            {
                kept.insert(line);
            }
            continue;
        };
        let name = head.rsplit(' ').next().unwrap_or(head).to_owned();
        if SILENT.contains(&name.trim_start_matches('!')) {
            continue;
        }
        if head.starts_with("impl<") || name.contains(['<', ':']) {
            kept.insert(line);
        } else {
            traits
                .entry(of.to_owned())
                .or_insert_with(BTreeSet::new)
                .insert(name);
        }
    }
    for (of, names) in traits {
        let names: Vec<String> = names.into_iter().collect();
        kept.insert(format!("impl {} for {of}", names.join(" + ")));
    }
    for line in kept {
        println!("{line}");
    }
    Ok(())
}

/// The line without the paths of what is in the standard library: `Vec`, not `alloc::vec::Vec`.
fn short(line: &str) -> String {
    let mut rest = line;
    let mut short = String::new();
    while !rest.is_empty() {
        let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
        let path = &rest[..end];
        let std = ["core::", "alloc::", "std::"]
            .iter()
            .any(|root| path.starts_with(root));
        short.push_str(if std {
            path.rsplit("::").next().unwrap_or(path)
        } else {
            path
        });
        let next = rest[end..]
            .find(word)
            .map_or(rest.len(), |after| end + after);
        short.push_str(&rest[end..next]);
        rest = &rest[next..];
    }
    short
}
