//! `wgmma`: products of a warpgroup.

use crate::decode::{Decoded, Words};
use crate::ir::{Op, Wgmma, WgmmaA};
use crate::types::Type;

pub(super) fn decode(words: &Words<'_, '_>) -> Decoded {
    match words.opcode() {
        ["wgmma", "fence", "sync", "aligned"] => Ok(Op::WgmmaFence),
        ["wgmma", "commit_group", "sync", "aligned"] => Ok(Op::WgmmaCommit),
        ["wgmma", "wait_group", "sync", "aligned"] => {
            words.takes(&[1])?;
            Ok(Op::WgmmaWait {
                groups: words.constant(0)? as usize,
            })
        }
        ["wgmma", "mma_async", "sync", "aligned", shape, d, a, b] => {
            product(words, shape, [d, a, b])
        }
        _ => Err(words.unknown()),
    }
}

/// `n` of `m64n64k16`, if its k is right for the type.
fn columns(shape: &str, k: usize) -> Option<usize> {
    let n = shape.strip_prefix("m64n")?.strip_suffix(&format!("k{k}"))?;
    n.parse()
        .ok()
        .filter(|n: &usize| (8..=256).contains(n) && n.is_multiple_of(8))
}

fn one(words: &Words<'_, '_>, i: usize) -> Result<bool, String> {
    match words.constant(i)? {
        1 => Ok(false),
        u64::MAX => Ok(true),
        other => Err(format!("a factor of 1 or -1 is expected, not {other}")),
    }
}

fn flag(words: &Words<'_, '_>, i: usize) -> Result<bool, String> {
    match words.constant(i)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("0 or 1 is expected, not {other}")),
    }
}

fn product(words: &Words<'_, '_>, shape: &str, types: [&str; 3]) -> Decoded {
    let [Some(accumulator), Some(element), other] = types.map(Type::from_name) else {
        return Err(words.unknown());
    };
    let k = match element {
        Type::F16 | Type::Bf16 => 16,
        Type::Tf32 => 8,
        _ => return Err(words.unknown()),
    };
    let sums = accumulator == Type::F32 || (accumulator == Type::F16 && element == Type::F16);
    let n = columns(shape, k)
        .filter(|_| sums && other == Some(element))
        .ok_or_else(|| words.unknown())?;
    let registers = words.is_vector(1);
    let a = if registers {
        let regs = words.all_regs(1, 4)?;
        WgmmaA::Registers([regs[0], regs[1], regs[2], regs[3]])
    } else {
        WgmmaA::Descriptor(words.value(1)?)
    };
    // Only halves can lie with k outside, and `a` only in shared memory.
    let flags = match (k, registers) {
        (16, false) => 2,
        (16, true) => 1,
        _ => 0,
    };
    words.takes(&[6 + flags])?;
    let transposed = match flags {
        2 => [flag(words, 6)?, flag(words, 7)?],
        1 => [false, flag(words, 6)?],
        _ => [false, false],
    };
    let of_d = if accumulator == Type::F16 {
        n / 4
    } else {
        n / 2
    };
    Ok(Op::Wgmma(Box::new(Wgmma {
        n,
        element,
        accumulator,
        d: words.all_regs(0, of_d)?,
        a,
        b: words.value(2)?,
        scale_d: words.condition(3)?,
        negate: [one(words, 4)?, one(words, 5)?],
        transposed,
    })))
}
