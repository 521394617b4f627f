//! Instructions that the lanes of a warp execute together.

use crate::decode::{Decoded, Words};
use crate::ir::{Op, ReduxOp, ShuffleMode, VoteMode};
use crate::types::Type;

pub(super) fn decode(words: &Words<'_, '_>) -> Decoded {
    match words.opcode() {
        ["shfl", "sync", mode, "b32"] => {
            words.takes(&[5])?;
            let mode = match *mode {
                "up" => ShuffleMode::Up,
                "down" => ShuffleMode::Down,
                "bfly" => ShuffleMode::Butterfly,
                "idx" => ShuffleMode::Index,
                _ => return Err(words.unknown()),
            };
            let (dst, valid) = words.pair(0)?;
            let (src, lane) = (words.value(1)?, words.value(2)?);
            Ok(Op::Shuffle {
                mode,
                dst,
                valid,
                src,
                lane,
                clamp: words.value(3)?,
                mask: words.value(4)?,
            })
        }
        ["vote", "sync", mode, ty] => {
            words.takes(&[3])?;
            let mode = match (*mode, *ty) {
                ("all", "pred") => VoteMode::All,
                ("any", "pred") => VoteMode::Any,
                ("uni", "pred") => VoteMode::Uniform,
                ("ballot", "b32") => VoteMode::Ballot,
                _ => return Err(words.unknown()),
            };
            Ok(Op::Vote {
                mode,
                dst: words.reg(0)?,
                condition: words.condition(1)?,
                mask: words.value(2)?,
            })
        }
        [
            "match",
            mode @ ("any" | "all"),
            "sync",
            ty @ ("b32" | "b64"),
        ] => {
            words.takes(&[3])?;
            let (dst, valid) = words.pair(0)?;
            let size = Type::from_name(ty).map_or(4, Type::size);
            Ok(Op::Match {
                all: *mode == "all",
                dst,
                valid,
                src: words.value(1)?,
                size,
                mask: words.value(2)?,
            })
        }
        ["redux", "sync", op, ty] => {
            words.takes(&[3])?;
            let op = match (*op, *ty) {
                ("add", "u32" | "s32") => ReduxOp::Add,
                ("min", "u32" | "s32") => ReduxOp::Min,
                ("max", "u32" | "s32") => ReduxOp::Max,
                ("and", "b32") => ReduxOp::And,
                ("or", "b32") => ReduxOp::Or,
                ("xor", "b32") => ReduxOp::Xor,
                _ => return Err(words.unknown()),
            };
            Ok(Op::Redux {
                op,
                signed: *ty == "s32",
                dst: words.reg(0)?,
                src: words.value(1)?,
                mask: words.value(2)?,
            })
        }
        ["activemask", "b32"] => {
            words.takes(&[1])?;
            Ok(Op::ActiveMask { dst: words.reg(0)? })
        }
        ["elect", "sync"] => {
            words.takes(&[2])?;
            let (lane, chosen) = words.pair(0)?;
            Ok(Op::Elect {
                lane,
                chosen,
                mask: words.value(1)?,
            })
        }
        _ => Err(words.unknown()),
    }
}
