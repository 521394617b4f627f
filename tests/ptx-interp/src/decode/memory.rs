//! Loads, stores and atomics.

use crate::decode::{Decoded, Words};
use crate::ir::{AtomOp, Op, Operand, Space};
use crate::types::Type;

/// Words of an opcode that change caching and ordering, but not what an access reads or writes.
fn is_hint(word: &str) -> bool {
    let caching = ["ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "noftz"];
    let ordering = [
        "weak",
        "relaxed",
        "acquire",
        "release",
        "acq_rel",
        "cta",
        "gpu",
        "sys",
        "L2::cache_hint",
    ];
    caching.contains(&word) || ordering.contains(&word) || is_level(word)
}

/// Hints about levels of the cache, such as `L1::no_allocate` and `L2::128B`.
pub(super) fn is_level(word: &str) -> bool {
    word.starts_with("L1::") || word.starts_with("L2::")
}

fn space(word: &str) -> Option<Space> {
    Some(match word {
        "global" => Space::Global,
        "shared" | "shared::cta" => Space::Shared,
        "local" => Space::Local,
        "param" | "param::entry" => Space::Param,
        "const" => Space::Const,
        _ => return None,
    })
}

/// What the words of a memory instruction say.
struct Access<'a> {
    space: Space,
    ty: Type,
    width: usize,
    /// `volatile` and `relaxed` accesses, which do not race with each other.
    volatile: bool,
    cache_hint: bool,
    rest: Vec<&'a str>,
}

fn access<'a>(words: &Words<'_, 'a>) -> Result<Access<'a>, String> {
    let mut found = Access {
        space: Space::Generic,
        ty: Type::Pred,
        width: 1,
        volatile: false,
        cache_hint: false,
        rest: Vec::new(),
    };
    for word in &words.opcode()[1..] {
        if let Some(space) = space(word) {
            found.space = space;
        } else if let (Type::Pred, Some(ty)) = (found.ty, Type::from_name(word)) {
            found.ty = ty;
        } else {
            match *word {
                "v2" => found.width = 2,
                "v4" => found.width = 4,
                "volatile" | "relaxed" | "acquire" | "release" | "acq_rel" => found.volatile = true,
                word if is_hint(word) => found.cache_hint |= word == "L2::cache_hint",
                word => found.rest.push(word),
            }
        }
    }
    if found.ty == Type::Pred || found.ty == Type::Tf32 || found.ty.size() * found.width > 16 {
        return Err(words.unknown());
    }
    Ok(found)
}

pub(super) fn decode(words: &Words<'_, '_>) -> Decoded {
    let found = access(words)?;
    let name = words.opcode()[0];
    if matches!(name, "atom" | "red") {
        return atomic(words, &found);
    }
    if !found.rest.is_empty() {
        return Err(words.unknown());
    }
    let operands = 2 + usize::from(found.cache_hint);
    words.takes(&[operands])?;
    let Access {
        space,
        ty,
        width,
        volatile,
        ..
    } = found;
    if name == "st" {
        if matches!(space, Space::Const | Space::Param) {
            return Err("constants and parameters cannot be written".to_owned());
        }
        let src = words.all_values(1, width)?;
        return Ok(Op::Store {
            space,
            ty,
            src,
            to: words.address(0)?,
            volatile,
        });
    }
    let dst = words.regs(0)?;
    if dst.len() != width {
        return Err(format!("{width} registers are expected"));
    }
    Ok(Op::Load {
        space,
        ty,
        dst,
        filled: words.filled(0),
        from: words.address(1)?,
        volatile,
    })
}

fn atomic(words: &Words<'_, '_>, found: &Access<'_>) -> Decoded {
    let [word] = found.rest.as_slice() else {
        return Err(words.unknown());
    };
    let op = match *word {
        "add" => AtomOp::Add,
        "min" => AtomOp::Min,
        "max" => AtomOp::Max,
        "inc" => AtomOp::Inc,
        "dec" => AtomOp::Dec,
        "and" => AtomOp::And,
        "or" => AtomOp::Or,
        "xor" => AtomOp::Xor,
        "exch" => AtomOp::Exch,
        "cas" => AtomOp::Cas,
        _ => return Err(words.unknown()),
    };
    let integer = found.ty.is_integer();
    let bits = matches!(found.ty, Type::B16 | Type::B32 | Type::B64);
    let fits = match op {
        AtomOp::Add => !bits && found.ty.size() >= 2 && !matches!(found.ty, Type::U16 | Type::S16),
        AtomOp::Min | AtomOp::Max => integer && !bits && found.ty.size() >= 4,
        AtomOp::Inc | AtomOp::Dec => found.ty == Type::U32,
        AtomOp::And | AtomOp::Or | AtomOp::Xor | AtomOp::Exch => bits && found.ty.size() >= 4,
        AtomOp::Cas => bits,
    };
    if !fits
        || found.width != 1
        || matches!(found.space, Space::Local | Space::Param | Space::Const)
    {
        return Err(words.unknown());
    }
    let reduction = words.opcode()[0] == "red";
    let first = usize::from(!reduction);
    let sources = if op == AtomOp::Cas { 2 } else { 1 };
    words.takes(&[first + 1 + sources + usize::from(found.cache_hint)])?;
    let second = if op == AtomOp::Cas {
        words.value(first + 2)?
    } else {
        Operand::Imm(0)
    };
    Ok(Op::Atom {
        space: found.space,
        op,
        ty: found.ty,
        dst: if reduction {
            None
        } else {
            words.optional_reg(0)?
        },
        at: words.address(first)?,
        src: [words.value(first + 1)?, second],
    })
}
