//! A loaded module: its kernels and variables.

use std::fmt;

use crate::ir::Instruction;
use crate::parse::ParseError;

/// A parameter of a kernel, as `cuFuncGetParamInfo` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Bytes from the start of the parameters.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// A variable of a module in global or constant memory. The caller of a launch gives each one an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name in the PTX.
    pub name: String,
    /// Bytes.
    pub size: usize,
    /// The alignment of its address.
    pub align: usize,
    /// Whether it lies in constant memory.
    pub constant: bool,
    /// Its bytes when the module is loaded. Without an initializer they are 0.
    pub initial: Vec<u8>,
}

/// A kernel.
pub struct Entry {
    pub(crate) name: String,
    pub(crate) params: Vec<Param>,
    pub(crate) code: Vec<Instruction>,
    pub(crate) registers: usize,
    /// Which variables of the module its code names.
    pub(crate) uses: Vec<u32>,
    pub(crate) shared: usize,
    pub(crate) dynamic_align: Option<usize>,
    pub(crate) local: usize,
    pub(crate) max_threads: Option<u32>,
    pub(crate) exact_block: Option<[u32; 3]>,
    /// The lines of the PTX that hold instructions, for reports.
    pub(crate) lines: Vec<String>,
    pub(crate) first_line: usize,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("params", &self.params)
            .field("instructions", &self.code.len())
            .finish_non_exhaustive()
    }
}

impl Entry {
    /// Its name in the PTX.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its parameters in order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// The bytes of all parameters, which `launch` takes as one slice.
    pub fn param_bytes(&self) -> usize {
        self.params.last().map_or(0, |p| p.offset + p.size)
    }

    /// The virtual registers that the PTX declares; a GPU allocates fewer.
    pub fn virtual_registers(&self) -> usize {
        self.registers
    }

    /// The bytes of shared memory that the kernel declares, without the dynamic ones.
    pub fn static_shared(&self) -> usize {
        self.shared
    }

    /// The bytes of local memory of a thread.
    pub fn local_bytes(&self) -> usize {
        self.local
    }

    /// The most threads of a block that the kernel declares (`__launch_bounds__`).
    pub fn max_threads(&self) -> Option<u32> {
        self.max_threads
    }

    /// The number of instructions.
    pub fn instructions(&self) -> usize {
        self.code.len()
    }

    /// The variables of the module that its code names, by their index in `Module::variables`.
    pub fn variables(&self) -> &[u32] {
        &self.uses
    }

    pub(crate) fn text(&self, line: usize) -> String {
        let at = line.checked_sub(self.first_line);
        let found = at.and_then(|at| self.lines.get(at));
        found.map_or(String::new(), |text| text.trim().to_owned())
    }
}

/// A loaded PTX text.
#[derive(Debug)]
pub struct Module {
    pub(crate) version: (u32, u32),
    pub(crate) target: String,
    pub(crate) variables: Vec<Variable>,
    pub(crate) entries: Vec<Entry>,
}

impl Module {
    /// Loads a PTX text: decodes every instruction of every kernel.
    ///
    /// # Errors
    /// The first line that the interpreter does not know.
    pub fn parse(source: &str) -> Result<Self, ParseError> {
        crate::parse::module(source)
    }

    /// The version of the PTX language.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The architecture that the text names, such as `sm_80`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The variables in global and constant memory.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// All kernels, in the order of the text.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The kernel of this name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}
