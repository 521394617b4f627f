//! `mma.sync`, `ldmatrix` and `stmatrix`.

use crate::decode::{Decoded, Words};
use crate::ir::{MmaShape, Op};
use crate::types::Type;

pub(super) fn decode(words: &Words<'_, '_>) -> Decoded {
    match words.opcode() {
        ["mma", "sync", "aligned", shape, "row", "col", d, a, b, c] => {
            mma(words, shape, [d, a, b, c])
        }
        [
            "ldmatrix" | "stmatrix",
            "sync",
            "aligned",
            "m8n8",
            rest @ ..,
        ] => {
            let (count, rest) = match rest {
                ["x1", rest @ ..] => (1, rest),
                ["x2", rest @ ..] => (2, rest),
                ["x4", rest @ ..] => (4, rest),
                _ => return Err(words.unknown()),
            };
            let transposed = match rest {
                ["shared" | "shared::cta", "b16"] => false,
                ["trans", "shared" | "shared::cta", "b16"] => true,
                _ => return Err(words.unknown()),
            };
            words.takes(&[2])?;
            if words.opcode()[0] == "ldmatrix" {
                Ok(Op::LoadMatrix {
                    transposed,
                    dst: words.all_regs(0, count)?,
                    from: words.address(1)?,
                })
            } else {
                Ok(Op::StoreMatrix {
                    transposed,
                    src: words.all_values(1, count)?,
                    to: words.address(0)?,
                })
            }
        }
        _ => Err(words.unknown()),
    }
}

fn mma(words: &Words<'_, '_>, shape: &str, types: [&str; 4]) -> Decoded {
    let k = match shape {
        "m16n8k4" => 4,
        "m16n8k8" => 8,
        "m16n8k16" => 16,
        _ => return Err(words.unknown()),
    };
    let [d, a, b, c] = types.map(Type::from_name);
    let (Some(element), Some(accumulator)) = (a, d) else {
        return Err(words.unknown());
    };
    let halves = matches!(element, Type::F16 | Type::Bf16) && k >= 8;
    let tf32 = element == Type::Tf32 && k <= 8;
    let sums = accumulator == Type::F32 || (accumulator == Type::F16 && element == Type::F16);
    if a != b || c != d || !(halves || tf32) || !sums {
        return Err(words.unknown());
    }
    words.takes(&[4])?;
    // A register holds four bytes: two halves or one tf32.
    let bytes = if tf32 { 4 } else { 2 };
    let (of_a, of_b) = (16 * k * bytes / 128, 8 * k * bytes / 128);
    let of_c = if accumulator == Type::F16 { 2 } else { 4 };
    Ok(Op::Mma {
        shape: MmaShape {
            k,
            element,
            accumulator,
        },
        d: words.all_regs(0, of_c)?,
        a: words.all_values(1, of_a)?,
        b: words.all_values(2, of_b)?,
        c: words.all_values(3, of_c)?,
    })
}
