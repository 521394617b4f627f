//! `mbarrier`: barriers in shared memory that count arrivals and bytes.

use crate::decode::{Decoded, Words};
use crate::ir::{Address, MbarrierOp, Op, Operand};

/// Words that name the space and the order of memory, which is the only one here.
fn is_plain(word: &str) -> bool {
    ["shared", "shared::cta", "release", "acquire", "cta", "b64"].contains(&word)
}

pub(super) fn decode(words: &Words<'_, '_>) -> Decoded {
    let parts: Vec<&str> = words.opcode()[1..]
        .iter()
        .copied()
        .filter(|w| !is_plain(w))
        .collect();
    let address = |i| words.address(i);
    let (op, at) = match parts.as_slice() {
        ["init"] => {
            words.takes(&[2])?;
            (
                MbarrierOp::Init {
                    count: words.value(1)?,
                },
                address(0)?,
            )
        }
        ["inval"] => {
            words.takes(&[1])?;
            (MbarrierOp::Inval, address(0)?)
        }
        ["expect_tx"] => {
            words.takes(&[2])?;
            (
                MbarrierOp::ExpectTx {
                    transactions: words.value(1)?,
                },
                address(0)?,
            )
        }
        ["complete_tx"] => {
            words.takes(&[2])?;
            (
                MbarrierOp::CompleteTx {
                    transactions: words.value(1)?,
                },
                address(0)?,
            )
        }
        ["arrive" | "arrive_drop", rest @ ..] => {
            let expects = match rest {
                [] | ["noComplete"] => false,
                ["expect_tx"] => true,
                _ => return Err(words.unknown()),
            };
            // The state may be left out or be `_`.
            let first = usize::from(!words.is_address(0));
            let state = if first == 1 {
                words.optional_reg(0)?
            } else {
                None
            };
            words.takes(&[first + 1, first + 2])?;
            let last = if words.count() == first + 2 {
                Some(words.value(first + 1)?)
            } else {
                None
            };
            let (count, transactions) = match (expects, last) {
                (true, None) => return Err("the number of bytes is missing".to_owned()),
                (true, bytes) => (Operand::Imm(1), bytes),
                (false, count) => (count.unwrap_or(Operand::Imm(1)), None),
            };
            (
                MbarrierOp::Arrive {
                    state,
                    count,
                    transactions,
                    drop: parts[0] == "arrive_drop",
                },
                address(first)?,
            )
        }
        [test @ ("test_wait" | "try_wait"), rest @ ..] => {
            let parity = match rest {
                [] => false,
                ["parity"] => true,
                _ => return Err(words.unknown()),
            };
            words.takes(if *test == "try_wait" { &[3, 4] } else { &[3] })?;
            (
                MbarrierOp::Test {
                    done: words.reg(0)?,
                    phase: words.value(2)?,
                    parity,
                },
                address(1)?,
            )
        }
        ["pending_count"] => {
            words.takes(&[2])?;
            let at = Address {
                base: Operand::Imm(0),
                offset: 0,
            };
            (
                MbarrierOp::PendingCount {
                    count: words.reg(0)?,
                    state: words.value(1)?,
                },
                at,
            )
        }
        _ => return Err(words.unknown()),
    };
    Ok(Op::Mbarrier { op, at })
}
