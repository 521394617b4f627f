//! Reads one file's modules: what each defines, and what each imports. A small reader of Rust's tokens, enough for `use`,
//! `mod`, items and paths; macros' bodies are read as code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::read;
use crate::tokens::tokens;

/// A path of a module or an item below the root of its crate.
pub(crate) type ModulePath = Vec<String>;

/// What a `use` binds in a module.
#[derive(Clone, Debug)]
pub(crate) struct Import {
    /// The name that it binds; `None` for a glob.
    pub(crate) name: Option<String>,
    pub(crate) path: ModulePath,
    /// A re-export of the module's own child: `pub use child::Name`, whoever may see it.
    pub(crate) of_child: bool,
    /// `pub use`, for users of the crate as well.
    pub(crate) public: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Module {
    pub(crate) file: PathBuf,
    pub(crate) items: BTreeSet<String>,
    pub(crate) children: BTreeSet<String>,
    /// Those items and modules that are `pub`.
    pub(crate) public: BTreeSet<String>,
    pub(crate) imports: Vec<Import>,
    /// Paths in code that begin with `crate`, `self` or `super`, or with a name in scope.
    pub(crate) paths: Vec<ModulePath>,
    /// Identifiers in code that are no part of a `use`.
    pub(crate) names: BTreeSet<String>,
}

impl Module {
    /// The module that the file begins, and those that it holds in braces, which belong to `path`. Inline tests
    /// (`#[cfg(test)] mod tests { … }`) are left out.
    pub(crate) fn read(file: &Path, path: &ModulePath) -> (Self, Vec<(ModulePath, Self)>) {
        let tokens = tokens(&read(file));
        let (mut module, mut nested) = (Self::default(), Vec::new());
        let mut reader = Reader {
            tokens: &tokens,
            at: 0,
        };
        reader.module(&mut module, path, &mut nested);
        for module in
            std::iter::once(&mut module).chain(nested.iter_mut().map(|(_, module)| module))
        {
            module.file = file.to_owned();
        }
        (module, nested)
    }
}

/// Who may see what follows.
#[derive(Clone, Copy, PartialEq)]
enum Visibility {
    Private,
    /// `pub(crate)` and the like.
    Shared,
    Public,
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

/// What may stand between an item's visibility and its kind.
const QUALIFIERS: [&str; 2] = ["async", "unsafe"];

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
        let (mut depth, mut test) = (0usize, false);
        let mut visibility = Visibility::Private;
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
                    if visibility == Visibility::Public {
                        module.public.insert(next.clone());
                    }
                    module.children.insert(next);
                    self.at += 3;
                }
                "mod" if self.peek(2) == "{" => {
                    self.at += 3;
                    if visibility == Visibility::Public {
                        module.public.insert(next.clone());
                    }
                    let inner_path = [path.as_slice(), &[next]].concat();
                    let mut inner = Module::default();
                    self.module(&mut inner, &inner_path, nested);
                    if !test {
                        nested.push((inner_path, inner));
                    }
                }
                "use" if next != "<" => {
                    self.at += 1;
                    self.uses(module, path, visibility);
                }
                "pub" => {
                    self.at += 1;
                    visibility = Visibility::Public;
                    if self.peek(0) == "(" {
                        visibility = Visibility::Shared;
                        while self.peek(0) != ")" {
                            self.at += 1;
                        }
                        self.at += 1;
                    }
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
                        self.peek(2).to_owned()
                    } else {
                        next
                    };
                    self.at += 1;
                    // `const fn` names the function.
                    if ITEMS.contains(&name.as_str()) || QUALIFIERS.contains(&name.as_str()) {
                        continue;
                    }
                    if visibility == Visibility::Public {
                        module.public.insert(name.clone());
                    }
                    module.items.insert(name);
                }
                qualifier if depth == 0 && QUALIFIERS.contains(&qualifier) => {
                    self.at += 1;
                    continue;
                }
                _ => self.path(module, path),
            }
            (test, visibility) = (false, Visibility::Private);
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

    fn uses(&mut self, module: &mut Module, at: &ModulePath, visibility: Visibility) {
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
            let of_child = visibility != Visibility::Private
                && (child || path.starts_with(at) && path.len() > at.len() + 1);
            module.imports.push(Import {
                name,
                path,
                of_child,
                public: visibility == Visibility::Public,
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
