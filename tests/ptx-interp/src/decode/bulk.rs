//! `cp.async`: copies of single threads and copies by the asynchronous unit.

use crate::decode::memory::is_level;
use crate::decode::{Decoded, Words};
use crate::ir::{BulkOp, MbarrierOp, Op};
use crate::types::Type;

pub(super) fn decode(words: &Words<'_, '_>) -> Decoded {
    match words.opcode() {
        ["cp", "async", "bulk", rest @ ..] => bulk(words, rest),
        ["cp", "async", "commit_group"] => Ok(Op::CopyCommit),
        ["cp", "async", "wait_all"] => Ok(Op::CopyWait { groups: None }),
        ["cp", "async", "wait_group"] => Ok(Op::CopyWait {
            groups: Some(words.constant(0)? as usize),
        }),
        ["cp", "async", "mbarrier", "arrive", rest @ ..] => {
            let counted = match rest {
                ["noinc", "b64"] | ["noinc", "shared" | "shared::cta", "b64"] => true,
                ["b64"] | ["shared" | "shared::cta", "b64"] => false,
                _ => return Err(words.unknown()),
            };
            words.takes(&[1])?;
            Ok(Op::Mbarrier {
                op: MbarrierOp::ArriveAfterCopies { counted },
                at: words.address(0)?,
            })
        }
        [
            "cp",
            "async",
            cache @ ("ca" | "cg"),
            "shared" | "shared::cta",
            "global",
            hints @ ..,
        ] if hints.iter().all(|hint| is_level(hint)) => {
            let policy = usize::from(hints.contains(&"L2::cache_hint"));
            words.takes(&[3 + policy, 4 + policy])?;
            let size = words.constant(2)? as usize;
            let sizes: &[usize] = if *cache == "cg" { &[16] } else { &[4, 8, 16] };
            if !sizes.contains(&size) {
                return Err(format!(
                    "cp.async.{cache} copies {sizes:?} bytes, not {size}"
                ));
            }
            let read = if words.count() == 4 + policy {
                if words.register_type(3) == Some(Type::Pred) {
                    return Err("a predicate that ignores the source is not supported".to_owned());
                }
                Some(words.value(3)?)
            } else {
                None
            };
            Ok(Op::CopyAsync {
                shared: words.address(0)?,
                global: words.address(1)?,
                size,
                read,
            })
        }
        ["cp", "reduce", ..] => {
            Err("reductions by the asynchronous unit are not supported".to_owned())
        }
        _ => Err(words.unknown()),
    }
}

const TO_SHARED: [&str; 3] = ["shared::cluster", "global", "mbarrier::complete_tx::bytes"];
const TO_GLOBAL: [&str; 3] = ["global", "shared::cta", "bulk_group"];

fn bulk(words: &Words<'_, '_>, rest: &[&str]) -> Decoded {
    if rest.iter().any(|w| w.starts_with("multicast")) {
        return Err("clusters of blocks are not supported, so there is no multicast".to_owned());
    }
    let hint = rest.last() == Some(&"L2::cache_hint");
    let rest = if hint { &rest[..rest.len() - 1] } else { rest };
    let policy = usize::from(hint);
    let op = match rest {
        ["commit_group"] => BulkOp::Commit,
        // `.read` waits for the source only; here a store reads and writes at once.
        ["wait_group"] | ["wait_group", "read"] => BulkOp::Wait {
            groups: words.constant(0)? as usize,
        },
        ["tensor", dims, rest @ ..] => {
            let rest: Vec<&str> = rest
                .iter()
                .copied()
                .filter(|word| *word != "tile")
                .collect();
            let dims = dims.strip_suffix('d').and_then(|d| d.parse::<usize>().ok());
            let dims = dims
                .filter(|d| (1..=5).contains(d))
                .ok_or_else(|| words.unknown())?;
            let load = rest == TO_SHARED;
            if !load && rest != TO_GLOBAL {
                return Err(format!(
                    "{}; only tiles are copied, to shared and to global memory",
                    words.unknown()
                ));
            }
            words.takes(&[if load { 3 } else { 2 } + policy])?;
            let (map, coordinates) = words.tensor(usize::from(load))?;
            if coordinates.len() != dims {
                return Err(format!("{dims} coordinates are expected"));
            }
            if load {
                BulkOp::TensorLoad {
                    shared: words.address(0)?,
                    map,
                    coordinates,
                    mbarrier: words.address(2)?,
                }
            } else {
                BulkOp::TensorStore {
                    shared: words.address(1)?,
                    map,
                    coordinates,
                }
            }
        }
        rest if rest == TO_SHARED => {
            words.takes(&[4 + policy])?;
            BulkOp::Load {
                shared: words.address(0)?,
                global: words.address(1)?,
                size: words.value(2)?,
                mbarrier: words.address(3)?,
            }
        }
        rest if rest == TO_GLOBAL => {
            words.takes(&[3 + policy])?;
            BulkOp::Store {
                global: words.address(0)?,
                shared: words.address(1)?,
                size: words.value(2)?,
            }
        }
        _ => return Err(words.unknown()),
    };
    Ok(Op::Bulk(op))
}
