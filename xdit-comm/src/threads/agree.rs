//! Checks that the calls of two ranks fit each other.

use crate::{Call, Op, Spec};

/// `a` is rank `i`'s call, `b` rank `j`'s, in the same place of the order of collectives.
pub(crate) fn agree(i: usize, a: &Call, j: usize, b: &Call) -> bool {
    let specs = |call: &Call| call.gives.iter().map(Spec::of).collect::<Vec<_>>();
    // What the root `r` gives must be what the other expects.
    let from_root = |r: usize, other: usize, root: &Call, call: &Call| {
        debug_assert_ne!(r, other, "two different ranks are compared");
        let given = if root.gives.len() == 1 {
            root.gives.first()
        } else {
            root.gives.get(other)
        };
        given.map(Spec::of) == call.expects.first().copied()
    };
    if a.op != b.op {
        return false;
    }
    match a.op {
        Op::Barrier | Op::Send { .. } | Op::Recv { .. } => true,
        Op::AllReduce(_) | Op::ReduceScatter(_) => specs(a) == specs(b),
        Op::AllGather => {
            a.expects == b.expects
                && a.expects.get(i) == specs(a).first()
                && b.expects.get(j) == specs(b).first()
        }
        Op::AllToAll => specs(a).get(j) == b.expects.get(i) && specs(b).get(i) == a.expects.get(j),
        Op::Broadcast { .. } => {
            a.expects == b.expects
                && [a, b]
                    .iter()
                    .all(|c| c.gives.is_empty() || specs(c) == c.expects)
        }
        Op::Scatter { root } => match (i == root, j == root) {
            (true, _) => from_root(i, j, a, b),
            (_, true) => from_root(j, i, b, a),
            _ => true,
        },
        Op::Gather { root } => match (i == root, j == root) {
            (true, _) => a.expects.get(j) == specs(b).first(),
            (_, true) => b.expects.get(i) == specs(a).first(),
            _ => true,
        },
    }
}
