//! One instruction as it is written to an `Op`. Each file knows a family of instructions. A word of an opcode that its
//! family does not know is an error: nothing is skipped.

mod bulk;
mod control;
mod matrix;
mod mbarrier;
mod memory;
mod scalars;
mod warp;
mod wgmma;
mod words;

pub(crate) use words::Words;

use crate::ir::{BulkOp, MbarrierOp, Op, Space};
use crate::options::Class;

/// What a decoder returns: the reason is for the user.
type Decoded = Result<Op, String>;

/// Decodes an instruction other than a branch.
pub(crate) fn decode(words: &Words<'_, '_>) -> Decoded {
    match words.opcode()[0] {
        "ld" | "ldu" | "st" | "atom" | "red" => memory::decode(words),
        "bar" | "barrier" | "membar" | "fence" | "ret" | "exit" | "trap" | "setmaxnreg"
        | "prefetch" | "prefetchu" | "nanosleep" | "griddepcontrol" => control::decode(words),
        "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => warp::decode(words),
        "ldmatrix" | "stmatrix" | "mma" => matrix::decode(words),
        "cp" => bulk::decode(words),
        "mbarrier" => mbarrier::decode(words),
        "wgmma" => wgmma::decode(words),
        "mapa" | "getctarank" => Err("clusters of blocks are not supported".to_owned()),
        _ => scalars::decode(words),
    }
}

/// The class under which an instruction is counted.
pub(crate) fn class_of(op: &Op) -> Class {
    match op {
        Op::Mma { .. } | Op::Wgmma(_) => Class::Tensor,
        Op::Special { .. } => Class::Exp,
        Op::Load { space, .. } | Op::Store { space, .. } | Op::Atom { space, .. } => match space {
            Space::Shared => Class::Shared,
            Space::Global | Space::Generic => Class::Global,
            Space::Local | Space::Param | Space::Const => Class::Other,
        },
        Op::LoadMatrix { .. } | Op::StoreMatrix { .. } => Class::Shared,
        Op::CopyAsync { .. } => Class::Global,
        Op::Bulk(BulkOp::Commit | BulkOp::Wait { .. }) => Class::Other,
        Op::Bulk(_) => Class::Global,
        Op::Barrier { .. } => Class::Barrier,
        Op::Mbarrier {
            op: MbarrierOp::Test { .. },
            ..
        } => Class::Barrier,
        _ => Class::Other,
    }
}
