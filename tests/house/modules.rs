//! The modules of a crate, read from its files: what each defines, and what each imports. A small reader of Rust's tokens,
//! enough for `use`, `mod`, items and paths; macros' bodies are read as code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::read;
use crate::tokens::tokens;

/// A path of a module or an item below the root of its crate.
pub(crate) type ModulePath = Vec<String>;

/// What a `use` binds in a module.
#[derive(Clone, Debug)]
struct Import {
    /// The name that it binds; `None` for a glob.
    name: Option<String>,
    path: ModulePath,
    /// A re-export of the module's own child: `pub use child::Name`.
    of_child: bool,
}

#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    items: BTreeSet<String>,
    children: BTreeSet<String>,
    imports: Vec<Import>,
    /// Paths in code that begin with `crate`, `self` or `super`, or with a name in scope.
    paths: Vec<ModulePath>,
    /// Identifiers in code that are no part of a `use`.
    names: BTreeSet<String>,
}

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
        let tokens = tokens(&read(file));
        let mut module = Module {
            file: file.to_owned(),
            ..Module::default()
        };
        let mut nested = Vec::new();
        Reader {
            tokens: &tokens,
            at: 0,
        }
        .module(&mut module, &path, &mut nested);
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
        for (path, mut inner) in nested {
            inner.file = file.to_owned();
            self.0.insert(path, inner);
        }
        self.0.insert(path, module);
    }

    /// The file that defines what `path` names, through re-exports; `None` for what is not of this crate. `tried` holds the
    /// paths that were asked for on the way here.
    fn definition(&self, path: &[String], tried: &mut BTreeSet<ModulePath>) -> Option<&Path> {
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
                return Some(&module.file);
            }
            let rest = &path[i + 1..];
            return module.imports.iter().find_map(|import| {
                let target = match &import.name {
                    Some(bound) if bound == name => [&import.path[..], rest].concat(),
                    None => [&import.path[..], &path[i..]].concat(),
                    Some(_) => return None,
                };
                self.definition(&target, tried)
            });
        }
        self.0.get(&at).map(|module| module.file.as_path())
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
                if let Some(file) = self.definition(&path, &mut BTreeSet::new())
                    && file != module.file
                {
                    from.insert(file);
                }
            }
        }
        edges
    }
}

const ITEMS: [&str; 9] = [
    "fn",
    "struct",
    "enum",
    "trait",
    "type",
    "const",
    "static",
    "union",
    "macro_rules",
];

struct Reader<'a> {
    tokens: &'a [String],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", String::as_str)
    }

    /// Reads up to the brace that closes the module.
    fn module(
        &mut self,
        module: &mut Module,
        path: &ModulePath,
        nested: &mut Vec<(ModulePath, Module)>,
    ) {
        let (mut depth, mut test, mut public) = (0usize, false, false);
        while self.at < self.tokens.len() {
            let token = self.peek(0).to_owned();
            let next = self.peek(1).to_owned();
            match token.as_str() {
                "#" if next == "[" && self.peek(2) == "cfg" && self.peek(4) == "test" => {
                    test = true;
                    self.at += 7;
                    continue;
                }
                "mod" if self.peek(2) == ";" => {
                    module.children.insert(next);
                    self.at += 3;
                }
                "mod" if self.peek(2) == "{" => {
                    self.at += 3;
                    let inner_path = [path.as_slice(), &[next]].concat();
                    let mut inner = Module::default();
                    self.module(&mut inner, &inner_path, nested);
                    if !test {
                        nested.push((inner_path, inner));
                    }
                }
                "use" if next != "<" => {
                    self.at += 1;
                    self.uses(module, path, public);
                }
                "pub" => {
                    self.at += 1;
                    if self.peek(0) == "(" {
                        while self.peek(0) != ")" {
                            self.at += 1;
                        }
                        self.at += 1;
                    }
                    public = true;
                    continue;
                }
                "}" if depth == 0 => {
                    self.at += 1;
                    return;
                }
                "{" | "}" => {
                    depth = if token == "{" { depth + 1 } else { depth - 1 };
                    self.at += 1;
                }
                item if depth == 0 && ITEMS.contains(&item) => {
                    let name = if item == "macro_rules" {
                        self.peek(2)
                    } else {
                        &next
                    };
                    // `const fn` names the function.
                    if !ITEMS.contains(&name) && name != "unsafe" {
                        module.items.insert(name.to_owned());
                    }
                    self.at += 1;
                }
                _ => self.path(module, path),
            }
            (test, public) = (false, false);
        }
    }

    /// A path in code, or any other token.
    fn path(&mut self, module: &mut Module, at: &ModulePath) {
        let first = self.peek(0).to_owned();
        let after_path = self.at > 0 && self.tokens[self.at - 1] == "::";
        let named = first.starts_with(|c: char| c.is_alphabetic() || c == '_');
        self.at += 1;
        if !named || after_path {
            return;
        }
        module.names.insert(first.clone());
        let mut path = vec![first];
        while self.peek(0) == "::"
            && self
                .peek(1)
                .starts_with(|c: char| c.is_alphabetic() || c == '_')
        {
            path.push(self.peek(1).to_owned());
            self.at += 2;
        }
        if path.len() > 1 {
            module.names.extend(path.iter().cloned());
            if let Some(path) = absolute(&path, at) {
                module.paths.push(path);
            }
        }
    }

    fn uses(&mut self, module: &mut Module, at: &ModulePath, public: bool) {
        let mut found = Vec::new();
        self.tree(&[], &mut found);
        for (path, name) in found {
            let child = path
                .first()
                .is_some_and(|first| first == "self" || module.children.contains(first));
            let Some(path) = absolute(&path, at) else {
                continue;
            };
            let path = match path.first().map(String::as_str) {
                Some("crate") => path[1..].to_vec(),
                _ => [at.as_slice(), &path].concat(),
            };
            let of_child = public && (child || path.starts_with(at) && path.len() > at.len() + 1);
            module.imports.push(Import {
                name,
                path,
                of_child,
            });
        }
    }

    /// One tree of a `use`: its paths with the names that they bind.
    fn tree(&mut self, prefix: &[String], found: &mut Vec<(ModulePath, Option<String>)>) {
        let mut path = prefix.to_vec();
        loop {
            match self.peek(0) {
                "{" => {
                    self.at += 1;
                    while self.peek(0) != "}" && self.at < self.tokens.len() {
                        self.tree(&path, found);
                        if self.peek(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "*" => {
                    self.at += 1;
                    found.push((path, None));
                    return;
                }
                "::" => self.at += 1,
                "as" => {
                    let name = self.peek(1).to_owned();
                    self.at += 2;
                    found.push((path, Some(name)));
                    return;
                }
                "," | ";" | "}" | "" => {
                    if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
                        path.pop();
                    }
                    let name = path.last().cloned();
                    found.push((path, name));
                    return;
                }
                segment => {
                    path.push(segment.to_owned());
                    self.at += 1;
                }
            }
        }
    }
}

/// `path` from `crate`, where it begins with `crate`, `self` or `super`; as it is otherwise (relative to the module).
fn absolute(path: &[String], at: &ModulePath) -> Option<ModulePath> {
    let mut base = at.clone();
    let mut rest = path;
    let mut moved = false;
    while let Some(first) = rest.first() {
        match first.as_str() {
            "self" => moved = true,
            "super" => {
                base.pop()?;
                moved = true;
            }
            "crate" => return Some(path.to_vec()),
            _ => break,
        }
        rest = &rest[1..];
    }
    Some(match moved {
        true => [&["crate".to_owned()], base.as_slice(), rest].concat(),
        false => path.to_vec(),
    })
}
