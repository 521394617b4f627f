//! The modules of a crate: where a path leads, which files import which, and by which paths users reach what is public.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::reader::{Module, ModulePath};

/// The modules of one crate by their paths.
#[derive(Debug)]
pub(crate) struct Modules(BTreeMap<ModulePath, Module>);

impl Modules {
    /// Those of the crate whose root is this file (`src/lib.rs`). Inline tests (`#[cfg(test)] mod tests { … }`) are left out.
    pub(crate) fn read(root: &Path) -> Self {
        let mut modules = Self(BTreeMap::new());
        modules.add(root, Vec::new());
        modules
    }

    fn add(&mut self, file: &Path, path: ModulePath) {
        let (module, nested) = Module::read(file, &path);
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let folder = file.parent().expect("a file lies in a folder");
        let folder = match &*name {
            "mod" | "lib" | "main" => folder.to_owned(),
            name => folder.join(name),
        };
        for child in &module.children {
            let beside = folder.join(format!("{child}.rs"));
            let inside = folder.join(child).join("mod.rs");
            if let Some(file) = [beside, inside].into_iter().find(|file| file.exists()) {
                let child = [path.as_slice(), std::slice::from_ref(child)].concat();
                self.add(&file, child);
            }
        }
        self.0.extend(nested);
        self.0.insert(path, module);
    }

    /// Where what `path` names is defined, through re-exports: a module, and the item in it; no item where `path` names the
    /// module. `None` for what is not of this crate.
    fn definition(&self, path: &[String]) -> Option<(ModulePath, Option<String>)> {
        self.defined(path, &mut BTreeSet::new())
    }

    /// [`definition`](Self::definition); `tried` holds the paths that were asked for on the way here.
    fn defined(
        &self,
        path: &[String],
        tried: &mut BTreeSet<ModulePath>,
    ) -> Option<(ModulePath, Option<String>)> {
        // A name of another crate may seem to lead on and on.
        if path.len() > 12 || !tried.insert(path.to_vec()) {
            return None;
        }
        let mut at = ModulePath::new();
        for (i, name) in path.iter().enumerate() {
            let module = self.0.get(&at)?;
            let child = [at.as_slice(), std::slice::from_ref(name)].concat();
            if self.0.contains_key(&child) {
                at = child;
                continue;
            }
            if module.items.contains(name) {
                return Some((at, Some(name.clone())));
            }
            let rest = &path[i + 1..];
            return module.imports.iter().find_map(|import| {
                let target = match &import.name {
                    Some(bound) if bound == name => [&import.path[..], rest].concat(),
                    None => [&import.path[..], &path[i..]].concat(),
                    Some(_) => return None,
                };
                self.defined(&target, tried)
            });
        }
        self.0.contains_key(&at).then_some((at, None))
    }

    /// Which files each file imports from.
    pub(crate) fn edges(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut edges = BTreeMap::<&Path, BTreeSet<&Path>>::new();
        for (at, module) in &self.0 {
            let from = edges.entry(&module.file).or_default();
            let mut to = Vec::new();
            for import in &module.imports {
                match &import.name {
                    Some(name) if import.of_child && !module.names.contains(name) => {}
                    Some(_) => to.push(import.path.clone()),
                    // A glob counts for the names that are used.
                    None => {
                        to.extend(module.names.iter().map(|name| {
                            [import.path.as_slice(), std::slice::from_ref(name)].concat()
                        }))
                    }
                }
            }
            for path in &module.paths {
                let relative = [at.as_slice(), path].concat();
                match path.first().map(String::as_str) {
                    Some("crate") => to.push(path[1..].to_vec()),
                    _ => to.push(relative),
                }
            }
            for path in to {
                let Some((home, _)) = self.definition(&path) else {
                    continue;
                };
                let file = self.0[&home].file.as_path();
                if file != module.file {
                    from.insert(file);
                }
            }
        }
        edges
    }

    /// Of each public module and item, by where it is defined, the paths by which users of the crate reach it.
    pub(crate) fn public_paths(&self) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
        let mut found = BTreeMap::new();
        self.reach(&ModulePath::new(), &ModulePath::new(), &mut found);
        found
    }

    /// Adds what is public in the module `home`, which users reach as `shown`.
    fn reach(
        &self,
        home: &ModulePath,
        shown: &ModulePath,
        found: &mut BTreeMap<ModulePath, BTreeSet<ModulePath>>,
    ) {
        let module = &self.0[home];
        let below = |path: &ModulePath, name: &String| {
            [path.as_slice(), std::slice::from_ref(name)].concat()
        };
        let own = module
            .public
            .iter()
            .map(|name| (below(home, name), below(shown, name)));
        let imports = module.imports.iter().filter(|import| import.public);
        let imported = imports.filter_map(|import| {
            let (home, item) = self.definition(&import.path)?;
            let home = home.into_iter().chain(item).collect();
            Some(match &import.name {
                Some(name) => (home, below(shown, name)),
                None => (home, shown.clone()),
            })
        });
        for (home, shown) in own.chain(imported).collect::<Vec<_>>() {
            let is_new = found.entry(home.clone()).or_default().insert(shown.clone());
            if is_new && self.0.contains_key(&home) {
                self.reach(&home, &shown, found);
            }
        }
    }
}
