//! Computes a rank's result of a collective, when all parts have been posted.

use crate::{Call, Error, Op, ReduceOp, Result};
use std::sync::{Arc, OnceLock};
use xdit_kernels::{Device, DeviceKind, Tensor};

/// The result in the host's memory that all ranks share, or the reason why there is none.
pub(crate) type Reduced = std::result::Result<Tensor, String>;

/// Returns the result of rank `me` from the parts of all ranks.
pub(crate) fn finish(
    op: Op,
    me: usize,
    calls: &[Arc<Call>],
    reduced: &OnceLock<Reduced>,
) -> Result<Vec<Tensor>> {
    let of = |rank: usize, part: usize| calls[rank].gives[part].clone();
    let all = 0..calls.len();
    Ok(match op {
        Op::Send { .. } | Op::Recv { .. } | Op::Barrier => vec![],
        Op::Broadcast { root } => vec![of(root, 0)],
        Op::Scatter { root } => vec![of(root, me)],
        Op::Gather { root } if me != root => vec![],
        Op::Gather { .. } | Op::AllGather => all.map(|r| of(r, 0)).collect(),
        Op::AllToAll => all.map(|r| of(r, me)).collect(),
        Op::AllReduce(how) => {
            let make = || reduce(how, &all.map(|r| of(r, 0)).collect::<Vec<_>>());
            let made = reduced.get_or_init(|| make().map_err(|error| error.to_string()));
            let made = made.clone().map_err(Error::Kernel)?;
            vec![made.to_device(of(me, 0).device())?]
        }
        Op::ReduceScatter(how) => {
            let made = reduce(how, &all.map(|r| of(r, me)).collect::<Vec<_>>())?;
            vec![made.to_device(of(me, me).device())?]
        }
    })
}

/// On the processor, in rank order and f32, rounded once. A mean is divided after the last sum.
pub(crate) fn reduce(how: ReduceOp, parts: &[Tensor]) -> Result<Tensor> {
    let mut total = parts[0].to_vec_blocking::<f32>()?;
    for part in &parts[1..] {
        for (sum, x) in total.iter_mut().zip(part.to_vec_blocking::<f32>()?) {
            *sum = match how {
                ReduceOp::Sum | ReduceOp::Mean => *sum + x,
                // A NaN must stay visible, so the maximum returns it.
                ReduceOp::Max => {
                    if x > *sum || x.is_nan() {
                        x
                    } else {
                        *sum
                    }
                }
            };
        }
    }
    if how == ReduceOp::Mean {
        // An f32 holds every number of ranks exactly (up to 2^24).
        let ranks = parts.len() as f32;
        total.iter_mut().for_each(|sum| *sum /= ranks);
    }
    let host = match parts[0].device().kind() {
        DeviceKind::Cpu(_) => parts[0].device().clone(),
        _ => Device::cpu(),
    };
    let total = Tensor::from_slice(&total, parts[0].shape(), &host)?;
    Ok(total.to_dtype(parts[0].dtype())?)
}
