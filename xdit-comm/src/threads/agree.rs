//! Checks that the calls of two ranks fit each other.

use crate::{Call, Op, Spec};
use std::fmt;

/// What a call says of its tensors, without the tensors.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CallSpecs {
    pub(crate) op: Op,
    pub(crate) gives: Vec<Spec>,
    pub(crate) expects: Vec<Spec>,
}

impl CallSpecs {
    pub(crate) fn of(call: &Call) -> Self {
        Self {
            op: call.op,
            gives: call.gives.iter().map(Spec::of).collect(),
            expects: call.expects.clone(),
        }
    }
}

impl fmt::Display for CallSpecs {
    /// As [`Call`] does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, gives, expects } = self;
        write!(f, "{op}, gives {gives:?}, expects {expects:?}")
    }
}

/// `a` is rank `i`'s call, `b` rank `j`'s, in the same place of the order of collectives.
pub(crate) fn agree(i: usize, a: &CallSpecs, j: usize, b: &CallSpecs) -> bool {
    // What the root `r` gives must be what the other expects.
    let from_root = |r: usize, other: usize, root: &CallSpecs, call: &CallSpecs| {
        debug_assert_ne!(r, other, "two different ranks are compared");
        let given = if root.gives.len() == 1 {
            root.gives.first()
        } else {
            root.gives.get(other)
        };
        given == call.expects.first()
    };
    if a.op != b.op {
        return false;
    }
    match a.op {
        Op::Barrier | Op::Send { .. } | Op::Recv { .. } => true,
        Op::AllReduce(_) | Op::ReduceScatter(_) => a.gives == b.gives,
        Op::AllGather => {
            a.expects == b.expects
                && a.expects.get(i) == a.gives.first()
                && b.expects.get(j) == b.gives.first()
        }
        Op::AllToAll => a.gives.get(j) == b.expects.get(i) && b.gives.get(i) == a.expects.get(j),
        Op::Broadcast { .. } => {
            a.expects == b.expects
                && [a, b]
                    .iter()
                    .all(|c| c.gives.is_empty() || c.gives == c.expects)
        }
        Op::Scatter { root } => match (i == root, j == root) {
            (true, _) => from_root(i, j, a, b),
            (_, true) => from_root(j, i, b, a),
            _ => true,
        },
        Op::Gather { root } => match (i == root, j == root) {
            (true, _) => a.expects.get(j) == b.gives.first(),
            (_, true) => b.expects.get(i) == a.gives.first(),
            _ => true,
        },
    }
}
