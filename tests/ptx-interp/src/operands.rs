//! Operands of decoded instructions.

/// The slot of a register. Registers hold 64 bits; narrower values are zero-extended.
pub(crate) type Reg = u32;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    LaneId,
    WarpId,
    NwarpId,
    /// `%lanemask_{eq,lt,le,gt,ge}`
    LaneMask(LaneOrder),
    DynamicSharedSize,
    TotalSharedSize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LaneOrder {
    Eq,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operand {
    Reg(Reg),
    Imm(u64),
    Special(Special),
    /// The address of dynamic shared memory.
    Dynamic,
    /// The address of a variable of the module, by its index.
    Variable(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Address {
    pub(crate) base: Operand,
    pub(crate) offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Guard {
    pub(crate) reg: Reg,
    pub(crate) negated: bool,
}

/// A predicate as an operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) value: Operand,
    pub(crate) negated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Param,
    Const,
}
