//! Instructions on single values, packed values, comparisons and addresses.

use crate::decode::{Decoded, Words};
use crate::ir::{BoolOp, Op, Operand};
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::scalar::{ScalarFn, compare, conversion, scalar};
use crate::types::Type;

pub(super) fn decode(words: &Words<'_, '_>) -> Decoded {
    let opcode = words.opcode();
    match opcode[0] {
        "mov" if words.is_vector(0) => return unpack(words),
        "mov" if words.is_vector(1) => return pack(words),
        "setp" | "set" => return comparison(words),
        "cvt" => return convert(words),
        "cvta" => return address(words),
        "isspacep" => return is_space(words),
        "bfi" => {
            words.takes(&[5])?;
            let size = match opcode {
                [_, "b32"] => 4,
                [_, "b64"] => 8,
                _ => return Err(words.unknown()),
            };
            return Ok(Op::Insert {
                dst: words.reg(0)?,
                src: [
                    words.value(1)?,
                    words.value(2)?,
                    words.value(3)?,
                    words.value(4)?,
                ],
                size,
            });
        }
        "lop3" => {
            words.takes(&[5])?;
            if opcode[1..] != ["b32"] {
                return Err(words.unknown());
            }
            return Ok(Op::Lop3 {
                dst: words.reg(0)?,
                src: [words.value(1)?, words.value(2)?, words.value(3)?],
                table: u8::try_from(words.constant(4)?)
                    .map_err(|_| "a table of lop3 has 8 bits".to_owned())?,
            });
        }
        "createpolicy" => return Ok(Op::Nothing),
        _ => {}
    }
    let found = scalar(opcode).ok_or_else(|| words.unknown())?;
    words.takes(&[found.operands + 1])?;
    let mut src = [Operand::Imm(0); 3];
    for (i, operand) in src.iter_mut().enumerate().take(found.operands) {
        *operand = words.value(i + 1)?;
    }
    let dst = words.reg(0)?;
    let special = ["ex2", "lg2", "rcp", "rsqrt", "sqrt", "sin", "cos", "tanh"];
    Ok(if special.contains(&opcode[0]) {
        Op::Special {
            f: found.f,
            dst,
            src: src[0],
        }
    } else {
        Op::Scalar {
            f: found.f,
            dst,
            src,
        }
    })
}

/// The size of `mov.b32` and the like.
fn moved_size(words: &Words<'_, '_>) -> Result<usize, String> {
    match words.opcode() {
        ["mov", ty] => Type::from_name(ty)
            .map(Type::size)
            .ok_or_else(|| words.unknown()),
        _ => Err(words.unknown()),
    }
}

fn unpack(words: &Words<'_, '_>) -> Decoded {
    words.takes(&[2])?;
    let (dst, size) = (words.regs(0)?, moved_size(words)?);
    if !size.is_multiple_of(dst.len()) || dst.len() > 8 {
        return Err(format!(
            "{size} bytes cannot be divided into {} parts",
            dst.len()
        ));
    }
    Ok(Op::Unpack {
        dst,
        src: words.value(1)?,
        size,
    })
}

fn pack(words: &Words<'_, '_>) -> Decoded {
    words.takes(&[2])?;
    let (src, size) = (words.values(1)?, moved_size(words)?);
    if src.is_empty() || !size.is_multiple_of(src.len()) || src.len() > 8 {
        return Err(format!("{size} bytes cannot hold {} parts", src.len()));
    }
    Ok(Op::Pack {
        dst: words.reg(0)?,
        src,
        size,
    })
}

/// `setp.lt.and.f32 p|q, a, b, c` and `set.lt.u32.f32 d, a, b`
fn comparison(words: &Words<'_, '_>) -> Decoded {
    let (mut test, mut combine, mut ftz, mut types) = (None, None, false, Vec::new());
    for word in &words.opcode()[1..] {
        match *word {
            "and" => combine = Some(BoolOp::And),
            "or" => combine = Some(BoolOp::Or),
            "xor" => combine = Some(BoolOp::Xor),
            "ftz" => ftz = true,
            word => match Type::from_name(word) {
                Some(ty) => types.push(ty),
                None if test.is_none() => test = Some(word),
                None => return Err(words.unknown()),
            },
        }
    }
    let is_set = words.opcode()[0] == "set";
    let (Some(test), Some(ty)) = (test, types.last()) else {
        return Err(words.unknown());
    };
    if let (true, [to @ (Type::F16x2 | Type::Bf16x2), from]) = (is_set, types.as_slice())
        && to == from
        && combine.is_none()
    {
        let (half, truth) = match to {
            Type::F16x2 => (Type::F16, 0x3c00),
            _ => (Type::Bf16, 0x3f80),
        };
        words.takes(&[3])?;
        return Ok(Op::ComparePacked {
            test: compare(test, half, ftz).ok_or_else(|| words.unknown())?,
            dst: words.reg(0)?,
            src: [words.value(1)?, words.value(2)?],
            truth,
        });
    }
    let test = compare(test, *ty, ftz).ok_or_else(|| words.unknown())?;
    let truth = match (is_set, types.as_slice()) {
        (false, [_]) => 1,
        (true, [Type::F32, _]) => u64::from(1f32.to_bits()),
        (true, [Type::U32 | Type::S32, _]) => 0xffff_ffff,
        (true, [Type::F16, _]) => 0x3c00,
        (true, [Type::Bf16, _]) => 0x3f80,
        (true, [Type::U16 | Type::S16, _]) => 0xffff,
        _ => return Err(words.unknown()),
    };
    words.takes(&[if combine.is_some() { 4 } else { 3 }])?;
    let (dst, inverse) = words.pair(0)?;
    if is_set && inverse.is_some() {
        return Err("`set` has one result".to_owned());
    }
    let combine = match combine {
        Some(op) => Some((op, words.condition(3)?)),
        None => None,
    };
    Ok(Op::Compare {
        test,
        dst,
        inverse,
        src: [words.value(1)?, words.value(2)?],
        combine,
        truth,
    })
}

fn convert(words: &Words<'_, '_>) -> Decoded {
    let how = conversion(words.opcode()).ok_or_else(|| words.unknown())?;
    words.takes(&[if how.is_packed() { 3 } else { 2 }])?;
    let second = if how.is_packed() {
        words.value(2)?
    } else {
        Operand::Imm(0)
    };
    Ok(Op::Convert {
        how,
        filled: words.filled(0),
        dst: words.reg(0)?,
        src: [words.value(1)?, second],
    })
}

fn same(a: u64, _: u64, _: u64) -> u64 {
    a
}

fn plus(a: u64, window: u64, _: u64) -> u64 {
    a.wrapping_add(window)
}

fn minus(a: u64, window: u64, _: u64) -> u64 {
    a.wrapping_sub(window)
}

/// The window of a space in generic addresses; 0 for global and constant memory, whose addresses are generic.
fn window(space: &str) -> Option<u64> {
    Some(match space {
        "shared" | "shared::cta" | "shared::cluster" => SHARED_WINDOW,
        "local" => LOCAL_WINDOW,
        "param" => PARAM_WINDOW,
        "global" | "const" => 0,
        _ => return None,
    })
}

/// `cvta.space` and `cvta.to.space`
fn address(words: &Words<'_, '_>) -> Decoded {
    words.takes(&[2])?;
    let (space, to) = match words.opcode() {
        ["cvta", "to", space, "u64"] => (space, true),
        ["cvta", space, "u64"] => (space, false),
        _ => return Err(words.unknown()),
    };
    let window = window(space).ok_or_else(|| words.unknown())?;
    let f: ScalarFn = match (window, to) {
        (0, _) => &same,
        (_, true) => &minus,
        (_, false) => &plus,
    };
    Ok(Op::Scalar {
        f,
        dst: words.reg(0)?,
        src: [words.value(1)?, Operand::Imm(window), Operand::Imm(0)],
    })
}

fn in_window(a: u64, window: u64, _: u64) -> u64 {
    u64::from(a >> 32 == window >> 32)
}

fn in_no_window(a: u64, _: u64, _: u64) -> u64 {
    u64::from(
        [SHARED_WINDOW, LOCAL_WINDOW, PARAM_WINDOW]
            .iter()
            .all(|w| a >> 32 != w >> 32),
    )
}

fn is_space(words: &Words<'_, '_>) -> Decoded {
    words.takes(&[2])?;
    let window = match words.opcode() {
        ["isspacep", "const"] | ["isspacep"] => return Err(words.unknown()),
        ["isspacep", space] => window(space).ok_or_else(|| words.unknown())?,
        _ => return Err(words.unknown()),
    };
    let f: ScalarFn = if window == 0 {
        &in_no_window
    } else {
        &in_window
    };
    Ok(Op::Scalar {
        f,
        dst: words.reg(0)?,
        src: [words.value(1)?, Operand::Imm(window), Operand::Imm(0)],
    })
}
