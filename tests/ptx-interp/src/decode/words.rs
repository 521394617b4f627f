//! An instruction as it is written, with its names looked up.

use crate::ir::{Address, Condition, LaneOrder, Operand, Reg, Special};
use crate::parse::cursor::{Raw, literal};
use crate::parse::symbols::{Symbol, Symbols};
use crate::types::Type;

/// The opcode and the operands of one instruction.
pub(crate) struct Words<'s, 'a> {
    opcode: Vec<&'a str>,
    operands: Vec<Raw<'a>>,
    symbols: &'s Symbols,
}

impl<'s, 'a> Words<'s, 'a> {
    pub(crate) fn new(opcode: Vec<&'a str>, operands: Vec<Raw<'a>>, symbols: &'s Symbols) -> Self {
        Self {
            opcode,
            operands,
            symbols,
        }
    }

    /// The parts of the opcode between its dots.
    pub(crate) fn opcode(&self) -> &[&'a str] {
        &self.opcode
    }

    /// All registers that the operands name.
    pub(crate) fn registers(&self) -> Vec<Reg> {
        let mut found = Vec::new();
        self.operands
            .iter()
            .for_each(|raw| self.collect(raw, &mut found));
        found
    }

    fn collect(&self, raw: &Raw<'_>, found: &mut Vec<Reg>) {
        let mut name = |word: &str| found.extend(self.reg_named(word));
        match raw {
            Raw::Name { word, .. } | Raw::Not(word) => name(word),
            Raw::Pair(first, second) => [first, second].into_iter().for_each(|word| name(word)),
            Raw::Vector(parts) => parts.iter().for_each(|part| self.collect(part, found)),
            Raw::Address {
                base, coordinates, ..
            } => {
                name(base);
                coordinates
                    .iter()
                    .for_each(|part| self.collect(part, found));
            }
        }
    }

    /// The number of operands.
    pub(super) fn count(&self) -> usize {
        self.operands.len()
    }

    /// Checks the number of operands.
    pub(crate) fn takes(&self, counts: &[usize]) -> Result<(), String> {
        if counts.contains(&self.operands.len()) {
            return Ok(());
        }
        Err(format!(
            "{} operands where {counts:?} are expected",
            self.operands.len()
        ))
    }

    pub(super) fn unknown(&self) -> String {
        format!("the instruction `{}` is not known", self.opcode.join("."))
    }

    fn raw(&self, i: usize) -> Result<&Raw<'a>, String> {
        self.operands
            .get(i)
            .ok_or_else(|| format!("operand {i} is missing"))
    }

    /// The type of the register at an operand, or of the first one of a vector; `None` if it is something else.
    pub(super) fn register_type(&self, i: usize) -> Option<Type> {
        let of = |raw: &Raw<'_>| match raw {
            Raw::Name {
                word,
                negative: false,
            } => match self.symbols.get(word)? {
                Symbol::Register(_, ty) => Some(ty),
                _ => None,
            },
            _ => None,
        };
        match self.operands.get(i)? {
            Raw::Vector(parts) => parts.iter().find_map(of),
            one => of(one),
        }
    }

    /// The bytes of a register that a signed value fills: those of a register of 32 bits or, if the register at an operand is
    /// wider, of 64. Narrower registers ignore the rest.
    pub(super) fn filled(&self, i: usize) -> usize {
        self.register_type(i).map_or(4, |ty| ty.size().max(4))
    }

    pub(super) fn is_vector(&self, i: usize) -> bool {
        matches!(self.operands.get(i), Some(Raw::Vector(_)))
    }

    pub(super) fn is_address(&self, i: usize) -> bool {
        matches!(self.operands.get(i), Some(Raw::Address { .. }))
    }

    fn reg_of(&self, raw: &Raw<'_>) -> Result<Option<Reg>, String> {
        match raw {
            Raw::Name { word: "_", .. } => Ok(None),
            Raw::Name {
                word,
                negative: false,
            } => self.reg_named(word).map(Some),
            other => Err(format!("a register is expected, not {}", shown(other))),
        }
    }

    fn reg_named(&self, word: &str) -> Result<Reg, String> {
        match self.symbols.get(word) {
            Some(Symbol::Register(reg, _)) => Ok(reg),
            _ => Err(format!("`{word}` is no register")),
        }
    }

    pub(super) fn reg(&self, i: usize) -> Result<Reg, String> {
        self.reg_of(self.raw(i)?)?
            .ok_or_else(|| "`_` cannot stand here".to_owned())
    }

    /// A register or `_`.
    pub(super) fn optional_reg(&self, i: usize) -> Result<Option<Reg>, String> {
        self.reg_of(self.raw(i)?)
    }

    /// A register, or `register|predicate`; each may be `_`.
    pub(super) fn pair(&self, i: usize) -> Result<(Option<Reg>, Option<Reg>), String> {
        let named = |word: &str| {
            if word == "_" {
                Ok(None)
            } else {
                self.reg_named(word).map(Some)
            }
        };
        match self.raw(i)? {
            Raw::Pair(first, second) => Ok((named(first)?, named(second)?)),
            other => Ok((self.reg_of(other)?, None)),
        }
    }

    /// A vector of registers, or one register.
    pub(super) fn regs(&self, i: usize) -> Result<Vec<Option<Reg>>, String> {
        match self.raw(i)? {
            Raw::Vector(parts) => parts.iter().map(|part| self.reg_of(part)).collect(),
            one => Ok(vec![self.reg_of(one)?]),
        }
    }

    /// A vector of registers without `_`, of a known length.
    pub(super) fn all_regs(&self, i: usize, count: usize) -> Result<Vec<Reg>, String> {
        let found: Option<Vec<Reg>> = self.regs(i)?.into_iter().collect();
        match found {
            Some(regs) if regs.len() == count => Ok(regs),
            _ => Err(format!("operand {i} must be {count} registers")),
        }
    }

    fn value_of(&self, raw: &Raw<'_>) -> Result<Operand, String> {
        let Raw::Name { word, negative } = raw else {
            return Err(format!("a value is expected, not {}", shown(raw)));
        };
        if let Some(bits) = literal(word, *negative) {
            return Ok(Operand::Imm(bits));
        }
        if *negative {
            return Err(format!("`-{word}` is no integer"));
        }
        if let Some(special) = special(word) {
            return Ok(Operand::Special(special));
        }
        match self.symbols.get(word) {
            Some(Symbol::Register(reg, _)) => Ok(Operand::Reg(reg)),
            Some(Symbol::Offset(offset)) => Ok(Operand::Imm(offset)),
            Some(Symbol::Dynamic) => Ok(Operand::Dynamic),
            Some(Symbol::Variable(index)) => Ok(Operand::Variable(index)),
            Some(Symbol::Unplaced { .. }) | None => match *word {
                "WARP_SZ" => Ok(Operand::Imm(32)),
                _ => Err(format!("`{word}` is not known")),
            },
        }
    }

    pub(super) fn values(&self, i: usize) -> Result<Vec<Operand>, String> {
        match self.raw(i)? {
            Raw::Vector(parts) => parts.iter().map(|part| self.value_of(part)).collect(),
            one => Ok(vec![self.value_of(one)?]),
        }
    }

    /// A vector of values of a known length.
    pub(super) fn all_values(&self, i: usize, count: usize) -> Result<Vec<Operand>, String> {
        let found = self.values(i)?;
        if found.len() == count {
            Ok(found)
        } else {
            Err(format!("operand {i} must have {count} parts"))
        }
    }

    pub(crate) fn value(&self, i: usize) -> Result<Operand, String> {
        self.value_of(self.raw(i)?)
    }

    /// A number that is known when the module is loaded.
    pub(super) fn constant(&self, i: usize) -> Result<u64, String> {
        match self.value(i)? {
            Operand::Imm(value) => Ok(value),
            _ => Err(format!("operand {i} must be a number")),
        }
    }

    /// A predicate, perhaps negated.
    pub(super) fn condition(&self, i: usize) -> Result<Condition, String> {
        match self.raw(i)? {
            Raw::Not(word) => Ok(Condition {
                value: Operand::Reg(self.reg_named(word)?),
                negated: true,
            }),
            other => Ok(Condition {
                value: self.value_of(other)?,
                negated: false,
            }),
        }
    }

    pub(super) fn address(&self, i: usize) -> Result<Address, String> {
        match self.raw(i)? {
            Raw::Address {
                base,
                offset,
                coordinates,
            } if coordinates.is_empty() => {
                let base = self.value_of(&Raw::Name {
                    word: base,
                    negative: false,
                })?;
                Ok(Address {
                    base,
                    offset: *offset,
                })
            }
            other => Err(format!("an address is expected, not {}", shown(other))),
        }
    }

    /// `[map, {x, y}]`
    pub(super) fn tensor(&self, i: usize) -> Result<(Address, Vec<Operand>), String> {
        match self.raw(i)? {
            Raw::Address {
                base,
                offset,
                coordinates,
            } => {
                let base = self.value_of(&Raw::Name {
                    word: base,
                    negative: false,
                })?;
                let coordinates: Result<_, _> =
                    coordinates.iter().map(|c| self.value_of(c)).collect();
                Ok((
                    Address {
                        base,
                        offset: *offset,
                    },
                    coordinates?,
                ))
            }
            other => Err(format!("a tensor is expected, not {}", shown(other))),
        }
    }

    /// The name of a label.
    pub(crate) fn label(&self, i: usize) -> Result<String, String> {
        match self.raw(i)? {
            Raw::Name {
                word,
                negative: false,
            } => Ok((*word).to_owned()),
            other => Err(format!("a label is expected, not {}", shown(other))),
        }
    }
}

fn shown(raw: &Raw<'_>) -> String {
    match raw {
        Raw::Name { word, negative } => format!("`{}{word}`", if *negative { "-" } else { "" }),
        Raw::Not(word) => format!("`!{word}`"),
        Raw::Pair(a, b) => format!("`{a}|{b}`"),
        Raw::Vector(parts) => format!("a vector of {}", parts.len()),
        Raw::Address { base, .. } => format!("the address `[{base}]`"),
    }
}

fn special(word: &str) -> Option<Special> {
    let name = word.strip_prefix('%')?;
    let (base, dim) = match name.split_once('.') {
        Some((base, "x")) => (base, 0),
        Some((base, "y")) => (base, 1),
        Some((base, "z")) => (base, 2),
        _ => (name, 3),
    };
    Some(match (base, dim) {
        ("tid", 0..3) => Special::Tid(dim),
        ("ntid", 0..3) => Special::Ntid(dim),
        ("ctaid", 0..3) => Special::Ctaid(dim),
        ("nctaid", 0..3) => Special::Nctaid(dim),
        ("laneid", 3) => Special::LaneId,
        ("warpid", 3) => Special::WarpId,
        ("nwarpid", 3) => Special::NwarpId,
        ("lanemask_eq", 3) => Special::LaneMask(LaneOrder::Eq),
        ("lanemask_lt", 3) => Special::LaneMask(LaneOrder::Lt),
        ("lanemask_le", 3) => Special::LaneMask(LaneOrder::Le),
        ("lanemask_gt", 3) => Special::LaneMask(LaneOrder::Gt),
        ("lanemask_ge", 3) => Special::LaneMask(LaneOrder::Ge),
        ("dynamic_smem_size", 3) => Special::DynamicSharedSize,
        ("total_smem_size", 3) => Special::TotalSharedSize,
        _ => return None,
    })
}
