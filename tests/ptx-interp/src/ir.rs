//! Decoded instructions: what the parser makes of a kernel's text, and what the interpreter executes.

pub(crate) use crate::operands::{
    Address, Condition, Guard, LaneOrder, Operand, Reg, Space, Special,
};
use crate::options::Class;
use crate::scalar::{Compare, Conversion, ScalarFn};
use crate::types::Type;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BoolOp {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomOp {
    Add,
    Min,
    Max,
    Inc,
    Dec,
    And,
    Or,
    Xor,
    Exch,
    Cas,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReduxOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
}

/// What `bar.red` computes over the threads of a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarrierReduction {
    Popc,
    And,
    Or,
}

/// The shape of an `mma.sync`: 16 rows, 8 columns, and k.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MmaShape {
    pub(crate) k: usize,
    /// Of `a` and `b`.
    pub(crate) element: Type,
    /// Of `c` and `d`.
    pub(crate) accumulator: Type,
}

/// `a` of a `wgmma`: a descriptor of shared memory or four registers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum WgmmaA {
    Descriptor(Operand),
    Registers([Reg; 4]),
}

#[derive(Clone, Debug)]
pub(crate) struct Wgmma {
    pub(crate) n: usize,
    pub(crate) element: Type,
    pub(crate) accumulator: Type,
    pub(crate) d: Vec<Reg>,
    pub(crate) a: WgmmaA,
    pub(crate) b: Operand,
    /// Whether `d` is added; 0 overwrites it.
    pub(crate) scale_d: Condition,
    pub(crate) negate: [bool; 2],
    /// Whether `a` and `b` lie with their k dim outside (m or n inside).
    pub(crate) transposed: [bool; 2],
}

#[derive(Clone, Debug)]
pub(crate) enum MbarrierOp {
    Init {
        count: Operand,
    },
    Inval,
    /// `transactions` is the operand of `expect_tx`.
    Arrive {
        state: Option<Reg>,
        count: Operand,
        transactions: Option<Operand>,
        drop: bool,
    },
    ExpectTx {
        transactions: Operand,
    },
    CompleteTx {
        transactions: Operand,
    },
    /// `test_wait` and `try_wait`. `parity` says whether `phase` is a parity or the state of an arrive.
    Test {
        done: Reg,
        phase: Operand,
        parity: bool,
    },
    PendingCount {
        count: Reg,
        state: Operand,
    },
    /// `cp.async.mbarrier.arrive`
    ArriveAfterCopies {
        counted: bool,
    },
}

/// A copy by the asynchronous unit, whole boxes of tensors or contiguous bytes.
#[derive(Clone, Debug)]
pub(crate) enum BulkOp {
    TensorLoad {
        shared: Address,
        map: Address,
        coordinates: Vec<Operand>,
        mbarrier: Address,
    },
    TensorStore {
        shared: Address,
        map: Address,
        coordinates: Vec<Operand>,
    },
    Load {
        shared: Address,
        global: Address,
        size: Operand,
        mbarrier: Address,
    },
    Store {
        shared: Address,
        global: Address,
        size: Operand,
    },
    Commit,
    Wait {
        groups: usize,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Scalar {
        f: ScalarFn,
        dst: Reg,
        src: [Operand; 3],
    },
    /// A function of the special unit.
    Special {
        f: ScalarFn,
        dst: Reg,
        src: Operand,
    },
    /// The second operand is the low half of a packed result.
    Convert {
        how: Conversion,
        dst: Reg,
        /// The bytes of the register that a signed result fills.
        filled: usize,
        src: [Operand; 2],
    },
    /// `setp` and `set`.
    Compare {
        test: Compare,
        dst: Option<Reg>,
        inverse: Option<Reg>,
        src: [Operand; 2],
        combine: Option<(BoolOp, Condition)>,
        /// What a true result writes: 1 for a predicate.
        truth: u64,
    },
    /// `set` of two packed halves; a true result writes 1.0.
    ComparePacked {
        test: Compare,
        dst: Reg,
        src: [Operand; 2],
        truth: u64,
    },
    /// `bfi`
    Insert {
        dst: Reg,
        src: [Operand; 4],
        size: usize,
    },
    Lop3 {
        dst: Reg,
        src: [Operand; 3],
        table: u8,
    },
    Pack {
        dst: Reg,
        src: Vec<Operand>,
        size: usize,
    },
    Unpack {
        dst: Vec<Option<Reg>>,
        src: Operand,
        size: usize,
    },
    Load {
        space: Space,
        ty: Type,
        dst: Vec<Option<Reg>>,
        /// The bytes of a register that a signed value fills.
        filled: usize,
        from: Address,
        volatile: bool,
    },
    Store {
        space: Space,
        ty: Type,
        src: Vec<Operand>,
        to: Address,
        volatile: bool,
    },
    Atom {
        space: Space,
        op: AtomOp,
        ty: Type,
        dst: Option<Reg>,
        at: Address,
        src: [Operand; 2],
    },
    Branch {
        target: usize,
    },
    /// `brx.idx`
    BranchIndexed {
        index: Operand,
        targets: Vec<usize>,
    },
    Exit,
    Trap,
    /// `bar.sync`, `bar.arrive` and `bar.red`; `aligned` needs whole warps.
    Barrier {
        id: Operand,
        threads: Option<Operand>,
        arrive: bool,
        aligned: bool,
        reduce: Option<(BarrierReduction, Reg, Condition)>,
    },
    WarpSync {
        mask: Operand,
    },
    Shuffle {
        mode: ShuffleMode,
        dst: Option<Reg>,
        valid: Option<Reg>,
        src: Operand,
        lane: Operand,
        clamp: Operand,
        mask: Operand,
    },
    Vote {
        mode: VoteMode,
        dst: Reg,
        condition: Condition,
        mask: Operand,
    },
    Match {
        all: bool,
        dst: Option<Reg>,
        valid: Option<Reg>,
        src: Operand,
        size: usize,
        mask: Operand,
    },
    Redux {
        op: ReduxOp,
        signed: bool,
        dst: Reg,
        src: Operand,
        mask: Operand,
    },
    ActiveMask {
        dst: Reg,
    },
    Elect {
        lane: Option<Reg>,
        chosen: Option<Reg>,
        mask: Operand,
    },
    LoadMatrix {
        transposed: bool,
        dst: Vec<Reg>,
        from: Address,
    },
    StoreMatrix {
        transposed: bool,
        src: Vec<Operand>,
        to: Address,
    },
    Mma {
        shape: MmaShape,
        d: Vec<Reg>,
        a: Vec<Operand>,
        b: Vec<Operand>,
        c: Vec<Operand>,
    },
    CopyAsync {
        shared: Address,
        global: Address,
        size: usize,
        read: Option<Operand>,
    },
    CopyCommit,
    /// Without a number it waits for everything, committed or not.
    CopyWait {
        groups: Option<usize>,
    },
    Mbarrier {
        op: MbarrierOp,
        at: Address,
    },
    Bulk(BulkOp),
    Wgmma(Box<Wgmma>),
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait {
        groups: usize,
    },
    Fence,
    /// `fence.proxy.async`
    ProxyFence,
    /// What has no effect here: prefetches and hints.
    Nothing,
}

#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    pub(crate) guard: Option<Guard>,
    pub(crate) op: Op,
    pub(crate) class: Class,
    /// All registers that the operands name, in a kernel with `wgmma`.
    pub(crate) registers: Box<[Reg]>,
    pub(crate) line: usize,
}
