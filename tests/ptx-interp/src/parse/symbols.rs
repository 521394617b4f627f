//! The names of a kernel: registers, variables and labels, in nested scopes.

use std::collections::HashMap;

use crate::ir::Reg;
use crate::types::Type;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Symbol {
    Register(Reg, Type),
    /// An address within shared or local memory or within the parameters.
    Offset(u64),
    /// A shared variable of the module that the kernel has not named yet.
    Unplaced {
        align: usize,
        size: usize,
    },
    /// The start of dynamic shared memory.
    Dynamic,
    /// A variable in global or constant memory, by its index.
    Variable(u32),
}

#[derive(Debug, Default)]
struct Scope {
    parent: Option<usize>,
    names: HashMap<String, Symbol>,
    labels: HashMap<String, usize>,
    tables: HashMap<String, Vec<String>>,
}

/// All scopes of a kernel. A scope begins at `{` and ends at `}`; its names are unknown outside.
#[derive(Debug)]
pub(crate) struct Symbols {
    scopes: Vec<Scope>,
    current: usize,
    registers: Reg,
}

impl Symbols {
    pub(crate) fn new() -> Self {
        Self {
            scopes: vec![Scope::default()],
            current: 0,
            registers: 0,
        }
    }

    pub(crate) fn open(&mut self) {
        self.scopes.push(Scope {
            parent: Some(self.current),
            ..Scope::default()
        });
        self.current = self.scopes.len() - 1;
    }

    /// Ends the innermost scope; `None` if it is that of the kernel.
    pub(crate) fn close(&mut self) -> Option<()> {
        self.current = self.scopes[self.current].parent?;
        Some(())
    }

    pub(crate) fn current(&self) -> usize {
        self.current
    }

    /// The number of registers declared so far.
    pub(crate) fn registers(&self) -> usize {
        self.registers as usize
    }

    pub(crate) fn declare(&mut self, name: &str, symbol: Symbol) {
        self.scopes[self.current]
            .names
            .insert(name.to_owned(), symbol);
    }

    /// Declares a name for the whole kernel.
    pub(crate) fn declare_outside(&mut self, name: &str, symbol: Symbol) {
        self.scopes[0].names.insert(name.to_owned(), symbol);
    }

    pub(crate) fn declare_register(&mut self, name: &str, ty: Type) {
        self.declare(name, Symbol::Register(self.registers, ty));
        self.registers += 1;
    }

    pub(crate) fn label(&mut self, name: &str, target: usize) {
        self.scopes[self.current]
            .labels
            .insert(name.to_owned(), target);
    }

    pub(crate) fn table(&mut self, name: &str, labels: Vec<String>) {
        self.scopes[self.current]
            .tables
            .insert(name.to_owned(), labels);
    }

    /// The first thing that the scope or one around it has.
    fn find<T>(&self, scope: usize, get: impl Fn(&Scope) -> Option<T>) -> Option<T> {
        let mut scope = &self.scopes[scope];
        loop {
            if let Some(found) = get(scope) {
                return Some(found);
            }
            scope = &self.scopes[scope.parent?];
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Symbol> {
        self.find(self.current, |s| s.names.get(name).copied())
    }

    /// The instruction of a label, as seen from a scope.
    pub(crate) fn target(&self, scope: usize, label: &str) -> Option<usize> {
        self.find(scope, |s| s.labels.get(label).copied())
    }

    /// The instructions of a `.branchtargets` table.
    pub(crate) fn targets(&self, scope: usize, table: &str) -> Option<Vec<usize>> {
        let labels = self.find(scope, |s| s.tables.get(table).cloned())?;
        labels
            .iter()
            .map(|label| self.target(scope, label))
            .collect()
    }
}
