//! Tests of batches of messages between two ranks.

use super::support::{ensure, numbers, same, spec};
use crate::{Call, Group, ReduceOp, Result, Spec};
use xdit_kernels::{DType, Device, Tensor};

/// A message to each rank, and one from each.
fn to_all(group: &Group, sent: impl Fn(usize) -> Result<Tensor>, len: usize) -> Result<Vec<Call>> {
    let ranks = 0..group.world_size();
    let sends = ranks.clone().map(|dst| Ok(Call::send(&sent(dst)?, dst)));
    let recvs = ranks.map(|src| Ok(Call::recv(spec(len), src)));
    sends.chain(recvs).collect()
}

pub(super) fn messages_arrive_in_order(group: &Group) -> Result<()> {
    // Some in one batch, some in batches one after the other.
    let mut started = vec![];
    for i in 0..20 {
        let mut batch = vec![];
        for len in [i + 1, i + 31] {
            batch.extend(to_all(
                group,
                |_| numbers(group.rank() * 100 + i, len),
                len,
            )?);
        }
        started.push(group.start(batch)?);
    }
    for (i, pending) in started.into_iter().enumerate() {
        let arrived = pending.wait()?;
        let (short, long) = arrived.split_at(arrived.len() / 2);
        for (len, tensors) in [(i + 1, short), (i + 31, long)] {
            for (src, got) in tensors.iter().enumerate() {
                same("recv", got, &numbers(src * 100 + i, len)?)?;
            }
        }
    }
    Ok(())
}

pub(super) fn calls_of_a_batch_progress_together(group: &Group) -> Result<()> {
    let n = group.world_size();
    let (next, prev) = ((group.rank() + 1) % n, (group.rank() + n - 1) % n);
    // The receive comes first, and needs a send that its own rank starts after it.
    let batch = vec![
        Call::recv(spec(2), prev),
        Call::recv(spec(3), next),
        Call::send(&numbers(group.rank(), 2)?, next),
        Call::send(&numbers(group.rank(), 3)?, prev),
    ];
    let arrived = group.start(batch)?.wait()?;
    ensure(arrived.len() == 2, || {
        format!("{} tensors of two receives", arrived.len())
    })?;
    same("recv from the left", &arrived[0], &numbers(prev, 2)?)?;
    same("recv from the right", &arrived[1], &numbers(next, 3)?)
}

pub(super) fn an_empty_batch_is_done(group: &Group) -> Result<()> {
    let arrived = group.start(vec![])?.wait()?;
    ensure(arrived.is_empty(), || {
        format!("{} tensors of no call", arrived.len())
    })
}

pub(super) fn receives_come_ahead(group: &Group) -> Result<()> {
    if !group.receives_ahead() {
        return Ok(());
    }
    let n = group.world_size();
    let (next, prev) = ((group.rank() + 1) % n, (group.rank() + n - 1) % n);
    let first = group.start_recv(spec(1), prev)?;
    let second = group.start_recv(spec(2), prev)?;
    group.send(&numbers(group.rank(), 1)?, next)?;
    group.send(&numbers(group.rank() + 50, 2)?, next)?;
    same("second", &second.wait_one()?, &numbers(prev + 50, 2)?)?;
    same("first", &first.wait_one()?, &numbers(prev, 1)?)
}

pub(super) fn send_recv_ring(group: &Group) -> Result<()> {
    let n = group.world_size();
    let (next, prev) = ((group.rank() + 1) % n, (group.rank() + n - 1) % n);
    let mut held = numbers(group.rank(), 7)?;
    for hop in 1..=n {
        held = group.send_recv(&held, next, spec(7), prev)?;
        same(
            "send_recv",
            &held,
            &numbers((group.rank() + n * hop - hop) % n, 7)?,
        )?;
    }
    Ok(())
}

pub(super) fn send_to_self(group: &Group) -> Result<()> {
    let mine = numbers(group.rank(), 3)?;
    same(
        "send_recv",
        &group.send_recv(&mine, group.rank(), spec(3), group.rank())?,
        &mine,
    )
}

pub(super) fn dtypes(group: &Group) -> Result<()> {
    let n = group.world_size();
    let (next, prev) = ((group.rank() + 1) % n, (group.rank() + n - 1) % n);
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let make = |rank: usize| -> Result<Tensor> {
            let data = [f32::NAN, -0.0, f32::INFINITY, rank as f32 + 0.5];
            Ok(Tensor::from_slice(&data, [2, 2], &Device::cpu())?.to_dtype(dtype)?)
        };
        let mine = make(group.rank())?;
        same(
            "send_recv",
            &group.send_recv(&mine, next, Spec::of(&mine), prev)?,
            &make(prev)?,
        )?;
    }
    Ok(())
}

pub(super) fn await_out_of_order(group: &Group) -> Result<()> {
    let n = group.world_size();
    let (next, prev) = ((group.rank() + 1) % n, (group.rank() + n - 1) % n);
    let first = group.start_send_recv(&numbers(group.rank(), 1)?, next, spec(1), prev)?;
    let sum = group.start_all_reduce(&numbers(group.rank(), 2)?, ReduceOp::Max)?;
    let second = group.start_send_recv(&numbers(group.rank() + 50, 2)?, next, spec(2), prev)?;
    same("second", &second.wait_one()?, &numbers(prev + 50, 2)?)?;
    same("max", &sum.wait_one()?, &numbers(n - 1, 2)?)?;
    same("first", &first.wait_one()?, &numbers(prev, 1)?)
}

pub(super) fn dropped_batches_run_on(group: &Group) -> Result<()> {
    let n = group.world_size();
    let (next, prev) = ((group.rank() + 1) % n, (group.rank() + n - 1) % n);
    let mine = numbers(group.rank(), 4)?;
    drop(group.start_send_recv(&mine, next, spec(4), prev)?);
    drop(group.start_all_gather(&mine, &vec![spec(4); n])?);
    let later = numbers(group.rank() + 7, 4)?;
    let got = group.send_recv(&later, next, spec(4), prev)?;
    same("after what was dropped", &got, &numbers(prev + 7, 4)?)
}
