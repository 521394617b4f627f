//! Which tensors of a call travel from whom to whom, and what a rank makes of those that it got. For transports that send each
//! tensor from one rank to another.

use crate::{Call, Op, Result, Spec, threads::finish::reduce};
use xdit_kernels::Tensor;

/// Returns the tensors that rank `rank` sends, with their receivers, in rank order. Only a [`Op::Send`] may have the rank itself as
/// its receiver: of a collective, the rank's own part stays where it is ([`own`]). A barrier has no tensors, though each rank waits
/// for all.
pub(super) fn outgoing(call: &Call, rank: usize, world_size: usize) -> Vec<(usize, &Tensor)> {
    let others = (0..world_size).filter(|other| *other != rank);
    let part = |receiver: usize, i: usize| Some((receiver, call.gives.get(i)?));
    match call.op {
        Op::Recv { .. } | Op::Barrier => Vec::new(),
        Op::Send { dst } => part(dst, 0).into_iter().collect(),
        Op::Gather { root } => part(root, 0).filter(|_| root != rank).into_iter().collect(),
        // Of a broadcast, only the root has a tensor.
        Op::Broadcast { .. } | Op::AllGather | Op::AllReduce(_) => {
            others.filter_map(|other| part(other, 0)).collect()
        }
        // Of a scatter, only the root has tensors.
        Op::Scatter { .. } | Op::ReduceScatter(_) | Op::AllToAll => {
            others.filter_map(|other| part(other, other)).collect()
        }
    }
}

/// Returns the ranks whose tensors `rank` gets, with the spec of each, in the order in which [`result`] takes them. The rank itself
/// is among them where it has a part of its own.
pub(super) fn incoming(call: &Call, rank: usize, world_size: usize) -> Vec<(usize, Spec)> {
    let each = call.expects.iter().copied();
    let one = |sender: usize| each.clone().map(move |spec| (sender, spec)).collect();
    match call.op {
        Op::Send { .. } | Op::Barrier => Vec::new(),
        Op::Recv { src } => one(src),
        Op::Broadcast { root } | Op::Scatter { root } => one(root),
        Op::Gather { root } if root != rank => Vec::new(),
        Op::Gather { .. } | Op::AllGather | Op::AllToAll => each.enumerate().collect(),
        // What is reduced has the spec of the result.
        Op::AllReduce(_) | Op::ReduceScatter(_) => {
            let spec = each.clone().next();
            let parts = (0..world_size).filter_map(|sender| Some((sender, spec?)));
            parts.collect()
        }
    }
}

/// Returns the part of a collective that a rank has for itself.
pub(super) fn own(call: &Call, rank: usize) -> Option<&Tensor> {
    match call.op {
        Op::Send { .. } | Op::Recv { .. } | Op::Barrier => None,
        Op::Broadcast { .. } | Op::Gather { .. } | Op::AllGather | Op::AllReduce(_) => {
            call.gives.first()
        }
        Op::Scatter { .. } | Op::ReduceScatter(_) | Op::AllToAll => call.gives.get(rank),
    }
}

/// Returns the tensors that the call expects, from those of [`incoming`]. Reductions add in rank order.
///
/// # Errors
/// If there is no memory.
pub(super) fn result(call: &Call, parts: Vec<Tensor>) -> Result<Vec<Tensor>> {
    match call.op {
        Op::AllReduce(how) | Op::ReduceScatter(how) => Ok(vec![reduce(how, &parts)?]),
        _ => Ok(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ReduceOp,
        threads::agree::{CallSpecs, agree},
    };
    use proptest::prelude::*;
    use xdit_kernels::{DType, Device};

    fn tensor(from: usize, to: usize) -> Tensor {
        let data: Vec<f32> = (0..from + 2 * to).map(|i| i as f32).collect();
        Tensor::from_slice(&data, [data.len()], &Device::cpu()).unwrap()
    }

    fn spec(from: usize, to: usize) -> Spec {
        Spec::new([from + 2 * to], DType::F32)
    }

    /// Rank `rank`'s part in a collective in which every pair of ranks has a shape of its own, where the operation lets it.
    fn part(op: Op, rank: usize, n: usize) -> Call {
        let all = 0..n;
        let (gives, expects) = match op {
            Op::Broadcast { root } => (
                (root == rank)
                    .then(|| tensor(root, 0))
                    .into_iter()
                    .collect(),
                vec![spec(root, 0)],
            ),
            Op::Scatter { root } => (
                all.filter(|_| root == rank)
                    .map(|to| tensor(root, to))
                    .collect(),
                vec![spec(root, rank)],
            ),
            Op::Gather { root } => (
                vec![tensor(rank, 0)],
                all.filter(|_| root == rank)
                    .map(|from| spec(from, 0))
                    .collect(),
            ),
            Op::AllGather => (
                vec![tensor(rank, 0)],
                all.map(|from| spec(from, 0)).collect(),
            ),
            Op::AllReduce(_) => (vec![tensor(3, 0)], vec![spec(3, 0)]),
            Op::ReduceScatter(_) => (all.map(|to| tensor(0, to)).collect(), vec![spec(0, rank)]),
            Op::AllToAll => (
                all.clone().map(|to| tensor(rank, to)).collect(),
                all.map(|from| spec(from, rank)).collect(),
            ),
            Op::Send { .. } | Op::Recv { .. } | Op::Barrier => (vec![], vec![]),
        };
        Call { op, gives, expects }
    }

    proptest! {
        /// What leaves one rank is what another waits for, and the parts have the specs of the result.
        #[test]
        fn every_part_has_one_sender_and_one_receiver(n in 1_usize..6, root in 0_usize..6, which in 0_usize..8) {
            let root = root % n;
            let op = [
                Op::Broadcast { root }, Op::Scatter { root }, Op::Gather { root }, Op::AllGather,
                Op::AllReduce(ReduceOp::Sum), Op::ReduceScatter(ReduceOp::Max), Op::AllToAll, Op::Barrier,
            ][which];
            let calls: Vec<Call> = (0..n).map(|rank| part(op, rank, n)).collect();
            let mut sent = Vec::new();
            let mut wanted = Vec::new();
            for (rank, call) in calls.iter().enumerate() {
                call.check(rank, n).unwrap();
                for (j, other) in calls.iter().enumerate().filter(|(j, _)| *j != rank) {
                    prop_assert!(agree(rank, &CallSpecs::of(call), j, &CallSpecs::of(other)), "{call} {other}");
                }
                for (to, tensor) in outgoing(call, rank, n) {
                    prop_assert_ne!(to, rank);
                    sent.push((rank, to, Spec::of(tensor)));
                }
                for (from, spec) in incoming(call, rank, n) {
                    if from == rank {
                        prop_assert_eq!(own(call, rank).map(Spec::of), Some(spec));
                    } else {
                        wanted.push((from, rank, spec));
                    }
                }
            }
            let key = |(from, to, _): &(usize, usize, Spec)| (*from, *to);
            sent.sort_by_key(key);
            wanted.sort_by_key(key);
            prop_assert_eq!(sent, wanted);
        }
    }

    #[test]
    fn messages_may_go_to_oneself() {
        let sent = tensor(2, 0);
        assert_eq!(outgoing(&Call::send(&sent, 1), 1, 2).len(), 1);
        let received = Call::recv(spec(2, 0), 1);
        assert_eq!(incoming(&received, 1, 2), [(1, spec(2, 0))]);
    }
}
