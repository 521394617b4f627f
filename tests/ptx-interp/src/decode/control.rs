//! Barriers, fences, ends and hints.

use crate::decode::memory::is_level;
use crate::decode::{Decoded, Words};
use crate::ir::{BarrierReduction, Op};

pub(super) fn decode(words: &Words<'_, '_>) -> Decoded {
    match words.opcode() {
        ["ret" | "exit", rest @ ..] if rest.is_empty() || rest == ["uni"] => Ok(Op::Exit),
        ["trap"] => Ok(Op::Trap),
        ["bar", "warp", "sync"] => {
            words.takes(&[1])?;
            Ok(Op::WarpSync {
                mask: words.value(0)?,
            })
        }
        ["bar" | "barrier", rest @ ..] => barrier(words, rest),
        ["membar", "gl" | "cta" | "sys"] => Ok(Op::Fence),
        ["fence", "proxy", "async"]
        | ["fence", "proxy", "async", "shared::cta" | "shared::cluster"] => Ok(Op::ProxyFence),
        // The asynchronous units' accesses to global memory need no fence here.
        ["fence", "proxy", "alias"]
        | ["fence", "proxy", "async", "global"]
        | ["fence", "mbarrier_init", "release", "cluster"] => Ok(Op::Nothing),
        ["fence", rest @ ..]
            if rest
                .iter()
                .all(|w| ["sc", "acq_rel", "cta", "gpu", "sys", "cluster"].contains(w)) =>
        {
            Ok(Op::Fence)
        }
        ["setmaxnreg", "inc" | "dec", "sync", "aligned", "u32"] => {
            words.takes(&[1])?;
            match words.constant(0)? {
                24..=256 if words.constant(0)?.is_multiple_of(8) => Ok(Op::Nothing),
                count => Err(format!(
                    "{count} registers: 24 to 256 in steps of 8 are possible"
                )),
            }
        }
        ["prefetch" | "prefetchu", rest @ ..]
            if rest.iter().all(|w| {
                ["global", "local", "L1", "L2", "tensormap", "param", "const"].contains(w)
                    || is_level(w)
            }) =>
        {
            Ok(Op::Nothing)
        }
        ["nanosleep", "u32"] | ["griddepcontrol", "launch_dependents" | "wait"] => Ok(Op::Nothing),
        _ => Err(words.unknown()),
    }
}

/// `bar.sync a{, b}`, `bar.arrive a, b`, `bar.red.op d, a{, b}, c`
fn barrier(words: &Words<'_, '_>, rest: &[&str]) -> Decoded {
    if rest.contains(&"cluster") {
        return Err("clusters of blocks are not supported".to_owned());
    }
    let rest: Vec<&str> = rest.iter().copied().filter(|word| *word != "cta").collect();
    let aligned = words.opcode()[0] == "bar" || rest.contains(&"aligned");
    let rest: Vec<&str> = rest.into_iter().filter(|word| *word != "aligned").collect();
    let (arrive, reduction) = match rest.as_slice() {
        ["sync"] => (false, None),
        ["arrive"] => (true, None),
        ["red", "popc", "u32"] => (false, Some(BarrierReduction::Popc)),
        ["red", "and", "pred"] => (false, Some(BarrierReduction::And)),
        ["red", "or", "pred"] => (false, Some(BarrierReduction::Or)),
        _ => return Err(words.unknown()),
    };
    let first = usize::from(reduction.is_some());
    match (arrive, reduction.is_some()) {
        (true, _) => words.takes(&[2])?,
        (_, true) => words.takes(&[3, 4])?,
        _ => words.takes(&[1, 2])?,
    }
    let counted = words.count() == 2 * (first + 1);
    let last = words.count() - first;
    let reduce = match reduction {
        Some(op) => Some((op, words.reg(0)?, words.condition(last)?)),
        None => None,
    };
    Ok(Op::Barrier {
        id: words.value(first)?,
        threads: if counted {
            Some(words.value(first + 1)?)
        } else {
            None
        },
        arrive,
        aligned,
        reduce,
    })
}
