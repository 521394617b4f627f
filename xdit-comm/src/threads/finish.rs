//! Computes a rank's result of a collective, when all parts have been posted.

use crate::{Call, Op, ReduceOp, Result};
use std::sync::{Arc, OnceLock};
use xdit_kernels::{Device, DeviceKind, Tensor};

/// The result in the host's memory that all ranks share; none if the first rank failed. Each other rank then tries itself, so that its
/// error has the kind of the failure.
pub(crate) type Reduced = Option<Tensor>;

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
            let make = || reduce(how, &all.clone().map(|r| of(r, 0)).collect::<Vec<_>>());
            vec![shared(reduced, make)?.to_device(of(me, 0).device())?]
        }
        Op::ReduceScatter(how) => {
            let made = reduce(how, &all.map(|r| of(r, me)).collect::<Vec<_>>())?;
            vec![made.to_device(of(me, me).device())?]
        }
    })
}

/// What the first rank makes, or each for itself.
fn shared(reduced: &OnceLock<Reduced>, make: impl Fn() -> Result<Tensor>) -> Result<Tensor> {
    let mut own = None;
    let first = reduced.get_or_init(|| match make() {
        Ok(made) => Some(made),
        Err(error) => {
            own = Some(error);
            None
        }
    });
    match (first, own) {
        (Some(made), _) => Ok(made.clone()),
        (None, Some(error)) => Err(error),
        (None, None) => make(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn every_rank_is_told_that_memory_is_missing() {
        let reduced = OnceLock::new();
        let make = || {
            Err(xdit_kernels::Error::OutOfMemory {
                op: "cast",
                bytes: 12,
            }
            .into())
        };
        for _ in 0..2 {
            let Err(Error::Other(error)) = shared(&reduced, make) else {
                panic!("the error keeps its kind");
            };
            let error = error.downcast_ref::<xdit_kernels::Error>();
            assert!(matches!(
                error,
                Some(xdit_kernels::Error::OutOfMemory { bytes: 12, .. })
            ));
        }
    }
}
