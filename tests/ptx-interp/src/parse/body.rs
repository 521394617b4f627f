//! The body of a kernel: declarations, labels and instructions.

use crate::decode::{Words, class_of, decode};
use crate::ir::{Guard, Instruction, Op};
use crate::module::{Entry, Param};
use crate::parse::cursor::{Cursor, Raw};
use crate::parse::entry::Head;
use crate::parse::error::ParseError;
use crate::parse::lexer::Kind;
use crate::parse::symbols::{Symbol, Symbols};
use crate::parse::variables::{Home, ModuleScope, declared};
use crate::types::Type;

/// The most virtual registers of a kernel.
const MOST_REGISTERS: usize = 1 << 16;
/// The most bytes of local memory of a thread, and more than any block has of shared memory.
const MOST_LOCAL: usize = 512 << 10;
const MOST_SHARED: usize = 1 << 20;

/// A branch whose label may come later.
struct Pending {
    instruction: usize,
    scope: usize,
    label: String,
}

struct Body<'s, 'a> {
    symbols: Symbols,
    scope: &'s ModuleScope,
    code: Vec<Instruction>,
    pending: Vec<Pending>,
    uses: Vec<u32>,
    shared: usize,
    dynamic_align: Option<usize>,
    local: usize,
    last_label: &'a str,
}

/// Reads the body of a kernel up to its closing brace.
pub(crate) fn entry(
    cursor: &mut Cursor<'_>,
    head: Head,
    scope: &ModuleScope,
    lines: &[&str],
) -> Result<Entry, ParseError> {
    let first_line = cursor.line();
    let mut body = Body {
        symbols: Symbols::new(),
        scope,
        code: Vec::new(),
        pending: Vec::new(),
        uses: Vec::new(),
        shared: 0,
        dynamic_align: None,
        local: 0,
        last_label: "",
    };
    for (name, param) in &head.params {
        body.symbols
            .declare(name, Symbol::Offset(param.offset as u64));
    }
    body.variables_of_module();
    while body.statement(cursor, lines)? {}
    body.link(lines)?;
    if !body
        .code
        .iter()
        .any(|instruction| matches!(instruction.op, Op::Wgmma(_)))
    {
        body.code
            .iter_mut()
            .for_each(|instruction| instruction.registers = Box::default());
    }
    let last = cursor.line().min(lines.len());
    Ok(Entry {
        name: head.name,
        params: head
            .params
            .into_iter()
            .map(|(_, param)| param)
            .collect::<Vec<Param>>(),
        code: body.code,
        registers: body.symbols.registers(),
        uses: body.uses,
        shared: body.shared,
        dynamic_align: body.dynamic_align,
        local: body.local,
        max_threads: head.max_threads,
        exact_block: head.exact_block,
        lines: lines[first_line - 1..last]
            .iter()
            .map(|line| (*line).to_owned())
            .collect(),
        first_line,
    })
}

impl<'a> Body<'_, 'a> {
    /// Declares the variables of the module. A shared one gets its place when the kernel names it: others take no memory.
    fn variables_of_module(&mut self) {
        for (name, home) in self.scope.names() {
            match home {
                Home::Variable(index) => self.symbols.declare(name, Symbol::Variable(index)),
                Home::Shared {
                    align,
                    size: Some(size),
                } => {
                    self.symbols.declare(name, Symbol::Unplaced { align, size });
                }
                Home::Shared { align, size: None } => {
                    self.dynamic_align = Some(self.dynamic_align.unwrap_or(1).max(align));
                    self.symbols.declare(name, Symbol::Dynamic);
                }
            }
        }
    }

    /// Reads one statement; false at the end of the body.
    fn statement(&mut self, cursor: &mut Cursor<'a>, lines: &[&str]) -> Result<bool, ParseError> {
        if cursor.skip('{') {
            self.symbols.open();
            return Ok(true);
        }
        if cursor.skip('}') {
            return Ok(self.symbols.close().is_some());
        }
        if cursor.skip(';') {
            return Ok(true);
        }
        if let (Some(Kind::Word(label)), Some(Kind::Mark(':'))) = (cursor.peek(), cursor.after(1)) {
            cursor.advance();
            cursor.advance();
            self.symbols.label(label, self.code.len());
            self.last_label = label;
            return Ok(true);
        }
        match cursor.peek() {
            Some(Kind::Word(word)) if word.starts_with('.') => self.directive(cursor)?,
            Some(_) => self.instruction(cursor, lines)?,
            None => return Err(cursor.error("the kernel has no end")),
        }
        Ok(true)
    }

    fn directive(&mut self, cursor: &mut Cursor<'a>) -> Result<(), ParseError> {
        let error = cursor.error("this directive is not known");
        match cursor.word()? {
            ".reg" => self.registers(cursor)?,
            space @ (".shared" | ".local") => {
                let found = declared(cursor)?;
                let Some(size) = found.size else {
                    return Err(cursor.error("the variable has no size"));
                };
                let end = if space == ".shared" {
                    &mut self.shared
                } else {
                    &mut self.local
                };
                let at = end.next_multiple_of(found.align);
                *end = at + size;
                if self.local > MOST_LOCAL || self.shared > MOST_SHARED {
                    return Err(cursor.error("the kernel declares more memory than a GPU has"));
                }
                self.symbols.declare(found.name, Symbol::Offset(at as u64));
            }
            ".pragma" => {
                cursor.advance();
            }
            ".branchtargets" => {
                let mut labels = Vec::new();
                loop {
                    labels.push(cursor.word()?.to_owned());
                    if !cursor.skip(',') {
                        break;
                    }
                }
                self.symbols.table(self.last_label, labels);
            }
            _ => return Err(error),
        }
        cursor.expect(';')
    }

    /// `.reg .b32 %r<8>, x`
    fn registers(&mut self, cursor: &mut Cursor<'a>) -> Result<(), ParseError> {
        let error = cursor.error("registers of this type are not known");
        let ty = cursor
            .word()?
            .strip_prefix('.')
            .and_then(Type::from_name)
            .ok_or(error)?;
        loop {
            let name = cursor.word()?;
            if cursor.skip('<') {
                let count = usize::try_from(cursor.integer()?).unwrap_or(usize::MAX);
                cursor.expect('>')?;
                self.has_room_for(count, cursor)?;
                for i in 0..count {
                    self.symbols.declare_register(&format!("{name}{i}"), ty);
                }
            } else {
                self.has_room_for(1, cursor)?;
                self.symbols.declare_register(name, ty);
            }
            if !cursor.skip(',') {
                return Ok(());
            }
        }
    }

    fn has_room_for(&self, registers: usize, cursor: &Cursor<'_>) -> Result<(), ParseError> {
        if registers > MOST_REGISTERS - self.symbols.registers() {
            return Err(cursor.error(format!("a kernel has at most {MOST_REGISTERS} registers")));
        }
        Ok(())
    }

    fn instruction(&mut self, cursor: &mut Cursor<'a>, lines: &[&str]) -> Result<(), ParseError> {
        let line = cursor.line();
        let text = lines.get(line - 1).copied().unwrap_or_default();
        let error = |reason: String| ParseError::new(line, text, reason);
        let mut guard = None;
        if cursor.skip('@') {
            let negated = cursor.skip('!');
            let name = cursor.word()?;
            match self.symbols.get(name) {
                Some(Symbol::Register(reg, Type::Pred)) => guard = Some(Guard { reg, negated }),
                _ => return Err(error(format!("`{name}` is no predicate"))),
            }
        }
        let opcode: Vec<&str> = cursor.word()?.split('.').collect();
        if opcode[0] == "call" {
            return Err(error("calls of functions are not supported".to_owned()));
        }
        let mut operands = Vec::new();
        while !cursor.skip(';') {
            operands.push(cursor.operand()?);
            if !cursor.skip(',') && cursor.peek() != Some(Kind::Mark(';')) {
                return Err(cursor.error("`,` or `;` is expected"));
            }
        }
        for raw in &operands {
            self.note_variable(raw);
        }
        let words = Words::new(opcode, operands, &self.symbols);
        let (op, label) = match words.opcode() {
            ["bra"] | ["bra", "uni"] => {
                words.takes(&[1]).map_err(error)?;
                (
                    Op::Branch { target: 0 },
                    Some(words.label(0).map_err(error)?),
                )
            }
            ["brx", "idx"] | ["brx", "idx", "uni"] => {
                words.takes(&[2]).map_err(error)?;
                let index = words.value(0).map_err(error)?;
                (
                    Op::BranchIndexed {
                        index,
                        targets: Vec::new(),
                    },
                    Some(words.label(1).map_err(error)?),
                )
            }
            _ => (decode(&words).map_err(error)?, None),
        };
        let (class, registers) = (class_of(&op), words.registers().into());
        if let Some(label) = label {
            self.pend(label);
        }
        self.code.push(Instruction {
            guard,
            op,
            class,
            registers,
            line,
        });
        Ok(())
    }

    fn pend(&mut self, label: String) {
        self.pending.push(Pending {
            instruction: self.code.len(),
            scope: self.symbols.current(),
            label,
        });
    }

    /// Notes that the kernel names a variable of the module.
    fn note_variable(&mut self, raw: &Raw<'_>) {
        let name = match raw {
            Raw::Name { word, .. } => word,
            Raw::Address {
                base, coordinates, ..
            } => {
                coordinates.iter().for_each(|part| self.note_variable(part));
                base
            }
            Raw::Vector(parts) => return parts.iter().for_each(|part| self.note_variable(part)),
            Raw::Not(_) | Raw::Pair(..) => return,
        };
        match self.symbols.get(name) {
            Some(Symbol::Variable(index)) if !self.uses.contains(&index) => self.uses.push(index),
            Some(Symbol::Unplaced { align, size }) => {
                let at = self.shared.next_multiple_of(align);
                self.shared = at + size;
                self.symbols
                    .declare_outside(name, Symbol::Offset(at as u64));
            }
            _ => {}
        }
    }

    /// Fills in the targets of branches.
    fn link(&mut self, lines: &[&str]) -> Result<(), ParseError> {
        for Pending {
            instruction,
            scope,
            label,
        } in std::mem::take(&mut self.pending)
        {
            let line = self.code[instruction].line;
            let error = || {
                let text = lines.get(line - 1).copied().unwrap_or_default();
                ParseError::new(line, text, format!("there is no label `{label}`"))
            };
            match &mut self.code[instruction].op {
                Op::Branch { target } => {
                    *target = self.symbols.target(scope, &label).ok_or_else(error)?
                }
                Op::BranchIndexed { targets, .. } => {
                    *targets = self.symbols.targets(scope, &label).ok_or_else(error)?;
                }
                _ => return Err(error()),
            }
        }
        Ok(())
    }
}
