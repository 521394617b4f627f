//! Tests of the operations that all ranks of a group call.

use super::support::{ensure, numbers, same, spec};
use crate::{Group, ReduceOp, Result, Spec, Stats};
use xdit_kernels::{DType, Device, Tensor};

pub(super) fn broadcast(group: &Group) -> Result<()> {
    for root in 0..group.world_size() {
        let tensor = numbers(root, 5)?;
        let given = (root == group.rank()).then_some(&tensor);
        same(
            "broadcast",
            &group.broadcast(given, spec(5), root)?,
            &tensor,
        )?;
    }
    Ok(())
}

pub(super) fn scatter_then_gather(group: &Group) -> Result<()> {
    for root in 0..group.world_size() {
        let parts: Vec<Tensor> = (0..group.world_size())
            .map(|r| numbers(r, 2 + r))
            .collect::<Result<_>>()?;
        let specs: Vec<Spec> = parts.iter().map(Spec::of).collect();
        let given = (root == group.rank()).then(|| parts.clone());
        let mine = group.scatter(given, specs[group.rank()], root)?;
        same("scatter", &mine, &parts[group.rank()])?;
        let back = group.gather(&mine, &specs, root)?;
        ensure(
            (back.len() == parts.len()) == (group.rank() == root) || parts.is_empty(),
            || format!("gather: {} tensors on rank {}", back.len(), group.rank()),
        )?;
        for (got, want) in back.iter().zip(&parts) {
            same("gather", got, want)?;
        }
    }
    Ok(())
}

pub(super) fn all_gather_uneven(group: &Group) -> Result<()> {
    let specs: Vec<Spec> = (0..group.world_size()).map(|r| spec(r + 1)).collect();
    let all = group.all_gather(&numbers(group.rank(), group.rank() + 1)?, &specs)?;
    for (rank, got) in all.iter().enumerate() {
        same("all_gather", got, &numbers(rank, rank + 1)?)?;
    }
    Ok(())
}

pub(super) fn all_reduce(group: &Group) -> Result<()> {
    let n = group.world_size();
    let mine = numbers(group.rank(), 4)?;
    let sum = group.all_reduce(&mine, ReduceOp::Sum)?;
    let want: Vec<f32> = (0..4)
        .map(|i| (0..n).map(|r| (r * 1000 + i) as f32).sum())
        .collect();
    same(
        "all_reduce",
        &sum,
        &Tensor::from_slice(&want, [4], &Device::cpu())?,
    )?;
    same(
        "all_reduce max",
        &group.all_reduce(&mine, ReduceOp::Max)?,
        &numbers(n - 1, 4)?,
    )?;
    // Values whose sum depends on the order: all ranks must have added in the same one.
    let awkward = Tensor::from_slice(
        &[1e8f32 / (1.0 + group.rank() as f32), 1.0, -1e8],
        [3],
        &Device::cpu(),
    )?;
    let sum = group.all_reduce(&awkward, ReduceOp::Sum)?;
    let specs = vec![Spec::of(&sum); n];
    for other in group.all_gather(&sum, &specs)? {
        same("all_reduce order", &other, &sum)?;
    }
    Ok(())
}

pub(super) fn reduce_scatter(group: &Group) -> Result<()> {
    let n = group.world_size();
    let shares: Vec<Tensor> = (0..n)
        .map(|r| numbers(group.rank() + r, r + 1))
        .collect::<Result<_>>()?;
    let mine = group.reduce_scatter(shares, ReduceOp::Sum)?;
    let me = group.rank();
    let want: Vec<f32> = (0..=me)
        .map(|i| (0..n).map(|r| ((r + me) * 1000 + i) as f32).sum())
        .collect();
    same(
        "reduce_scatter",
        &mine,
        &Tensor::from_slice(&want, [me + 1], &Device::cpu())?,
    )
}

/// A mean is divided once, in f32, after the last sum and before the result is rounded to the dtype of the tensors.
pub(super) fn mean(group: &Group) -> Result<()> {
    let (n, me) = (group.world_size(), group.rank());
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        // Whole numbers: their sums are exact in f32 in any order, but not in the 16-bit dtypes.
        let of_rank = |rank: usize, shift: usize| -> Result<Tensor> {
            let values = [1, 3, 255, 0].map(|x| (x * (rank + 1) + shift) as f32);
            let tensor = Tensor::from_slice(&values, [4], &Device::cpu())?;
            Ok(tensor.to_dtype(dtype)?)
        };
        let want = |shift: usize| -> Result<Tensor> {
            let mut sums = [0f32; 4];
            for rank in 0..n {
                let values = of_rank(rank, shift)?.to_vec_blocking::<f32>()?;
                sums.iter_mut().zip(values).for_each(|(sum, x)| *sum += x);
            }
            let means = sums.map(|sum| sum / n as f32);
            Ok(Tensor::from_slice(&means, [4], &Device::cpu())?.to_dtype(dtype)?)
        };
        let got = group.all_reduce(&of_rank(me, 0)?, ReduceOp::Mean)?;
        same("all_reduce mean", &got, &want(0)?)?;
        let shares = (0..n).map(|r| of_rank(me, r)).collect::<Result<_>>()?;
        let got = group.reduce_scatter(shares, ReduceOp::Mean)?;
        same("reduce_scatter mean", &got, &want(me)?)?;
    }
    Ok(())
}

pub(super) fn all_to_all_twice(group: &Group) -> Result<()> {
    let (n, me) = (group.world_size(), group.rank());
    // Rank i gives rank j i + 2·j + 1 numbers.
    let gives: Vec<Tensor> = (0..n)
        .map(|j| numbers(me * 10 + j, me + 2 * j + 1))
        .collect::<Result<_>>()?;
    let expected: Vec<Spec> = (0..n).map(|i| spec(i + 2 * me + 1)).collect();
    let got = group.all_to_all(gives.clone(), &expected)?;
    for (i, t) in got.iter().enumerate() {
        same("all_to_all", t, &numbers(i * 10 + me, i + 2 * me + 1)?)?;
    }
    let back_specs: Vec<Spec> = gives.iter().map(Spec::of).collect();
    for (back, gave) in group.all_to_all(got, &back_specs)?.iter().zip(&gives) {
        same("all_to_all back", back, gave)?;
    }
    Ok(())
}

pub(super) fn empty_tensors(group: &Group) -> Result<()> {
    let empty = Tensor::from_slice::<f32>(&[], [0, 3], &Device::cpu())?;
    let specs = vec![Spec::of(&empty); group.world_size()];
    for t in group.all_gather(&empty, &specs)? {
        same("all_gather of nothing", &t, &empty)?;
    }
    Ok(())
}

pub(super) fn many_under_way(group: &Group) -> Result<()> {
    let specs = vec![spec(9); group.world_size()];
    let started: Vec<_> = (0..50)
        .map(|i| group.start_all_gather(&numbers(group.rank() + i, 9)?, &specs))
        .collect::<Result<_>>()?;
    for (i, pending) in started.into_iter().enumerate() {
        for (rank, got) in pending.wait()?.iter().enumerate() {
            same("all_gather under way", got, &numbers(rank + i, 9)?)?;
        }
    }
    Ok(())
}

pub(super) fn barrier(group: &Group) -> Result<()> {
    let n = group.world_size();
    let (next, prev) = ((group.rank() + 1) % n, (group.rank() + n - 1) % n);
    for i in 0..3 {
        let pending = group.start_send_recv(&numbers(group.rank(), i)?, next, spec(i), prev)?;
        group.barrier()?;
        same("around a barrier", &pending.wait_one()?, &numbers(prev, i)?)?;
    }
    Ok(())
}

pub(super) fn bytes_are_counted(group: &Group) -> Result<()> {
    let n = group.world_size();
    let before = group.stats();
    let total = |stats: &Stats, op| {
        stats
            .iter()
            .filter(|((o, _), _)| *o == op)
            .map(|(_, s)| s.bytes)
            .sum::<usize>()
    };
    group.all_gather(&numbers(0, 6)?, &vec![spec(6); n])?;
    let sent = total(&group.stats(), "all_gather") - total(&before, "all_gather");
    ensure(sent == 24 * (n - 1), || {
        format!("all_gather of 24 bytes on {n} ranks counted {sent}")
    })?;
    let gives: Vec<Tensor> = (0..n).map(|_| numbers(0, 2)).collect::<Result<_>>()?;
    group.all_to_all(gives, &vec![spec(2); n])?;
    let sent = total(&group.stats(), "all_to_all") - total(&before, "all_to_all");
    ensure(sent == 8 * (n - 1), || {
        format!("all_to_all of 8 bytes each on {n} ranks counted {sent}")
    })?;
    // All reductions send the same.
    for (how, calls) in [(ReduceOp::Sum, 1), (ReduceOp::Mean, 2), (ReduceOp::Max, 3)] {
        group.all_reduce(&numbers(0, 6)?, how)?;
        group.reduce_scatter(vec![numbers(0, 2)?; n], how)?;
        for (op, bytes) in [("all_reduce", 24), ("reduce_scatter", 8)] {
            let sent = total(&group.stats(), op) - total(&before, op);
            ensure(sent == calls * bytes * (n - 1), || {
                format!(
                    "{calls} calls of {op} of {bytes} bytes, the last {how}, on {n} ranks counted {sent}"
                )
            })?;
        }
    }
    Ok(())
}
