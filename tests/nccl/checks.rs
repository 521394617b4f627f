//! What the conformance suite does not ask of a transport.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use xdit_comm::conformance::Check;
use xdit_comm::{Error, Group, ReduceOp, Result, Spec, threads};
use xdit_kernels::elementwise::{add, scale};
use xdit_kernels::{DType, Device, Tensor};

pub(crate) const CHECKS: &[(&str, Check)] = &[
    ("reductions have the bytes of threads", reductions),
    ("messages are in the order of queues", rounds),
    ("a barrier is one", barrier),
    ("many batches wait in line", many),
];

pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    match holds {
        true => Ok(()),
        false => Err(Error::other(what())),
    }
}

fn device(group: &Group) -> Result<Device> {
    let device = group.device().cloned();
    device.ok_or_else(|| Error::other("the rank has no device"))
}

/// Numbers whose sum depends on the order in which they are added.
fn delicate(rank: usize, dtype: DType) -> Result<Tensor> {
    let data: Vec<f32> = (0..200)
        .map(|i| ((i * 37 + rank * 101) % 997) as f32 * 1e-3 + 10_f32.powi((rank + i) as i32 % 7))
        .collect();
    Ok(Tensor::from_slice(&data, [data.len()], &Device::cpu())?.to_dtype(dtype)?)
}

fn reductions(group: &Group) -> Result<()> {
    let n = group.world_size();
    for dtype in [DType::F32, DType::BF16] {
        for how in [ReduceOp::Sum, ReduceOp::Mean, ReduceOp::Max] {
            let all = move |group: &Group| -> Result<Vec<Vec<u8>>> {
                let mine = delicate(group.rank(), dtype)?;
                let parts = (0..group.world_size()).map(|i| delicate(group.rank() + i, dtype));
                let reduced = group.all_reduce(&mine, how)?;
                let scattered = group.reduce_scatter(parts.collect::<Result<_>>()?, how)?;
                let bytes = [reduced, scattered];
                let bytes = bytes
                    .iter()
                    .map(|t| Ok(t.host_bytes_blocking()?.into_owned()));
                bytes.collect()
            };
            let want = threads::run(n, move |group| all(&group))?.swap_remove(group.rank());
            let got = all(group)?;
            ensure(got == want, || {
                format!("{how} of {dtype} differs from threads'")
            })?;
        }
    }
    Ok(())
}

/// Ranks compute, send what they have just computed, drop it, and compute with what comes. No thread waits for a GPU before the end:
/// what events do not order is not ordered.
fn rounds(group: &Group) -> Result<()> {
    let (n, me) = (group.world_size(), group.rank());
    let (next, previous) = ((me + 1) % n, (me + n - 1) % n);
    let device = device(group)?;
    let numbers: Vec<f32> = (0..1500u16).map(f32::from).collect();
    let mut x = Tensor::from_slice(&numbers, [numbers.len()], &device)?;
    let spec = Spec::of(&x);
    for _ in 0..4 {
        let half = scale(&x, 0.5)?;
        let pending = group.start_send_recv(&half, next, spec, previous)?;
        drop(half);
        let mine = scale(&x, 0.25)?;
        let theirs = pending.wait_one()?;
        let sum = add(&mine, &scale(&theirs, 0.5)?)?;
        drop((mine, theirs, x));
        let all = group.all_gather(&sum, &vec![spec; n])?;
        let largest = all.last().ok_or_else(|| Error::other("nothing came"))?;
        x = add(largest, &all[0])?;
    }
    let got = x.to_vec_blocking::<f32>()?;
    ensure(got == numbers, || format!("wrong result: {:?}", &got[..4]))
}

/// Nobody leaves before all have come. The ranks are threads, which count together.
fn barrier(group: &Group) -> Result<()> {
    static CAME: AtomicUsize = AtomicUsize::new(0);
    let n = group.world_size();
    for round in 1..=3 {
        if group.rank() == round % n {
            thread::sleep(Duration::from_millis(20));
        }
        CAME.fetch_add(1, Ordering::AcqRel);
        group.barrier()?;
        let came = CAME.load(Ordering::Acquire);
        ensure(came >= round * n, || {
            format!("{came} of {} have come", round * n)
        })?;
        group.barrier()?;
    }
    Ok(())
}

/// More batches than a stream has room for, of which the host waits for none before the last.
fn many(group: &Group) -> Result<()> {
    let (n, me) = (group.world_size(), group.rank());
    let (next, previous) = ((me + 1) % n, (me + n - 1) % n);
    let device = device(group)?;
    let mine = Tensor::from_slice(&[me as f32], [1], &device)?;
    let mut last = None;
    for _ in 0..300 {
        last = Some(group.start_send_recv(&mine, next, Spec::of(&mine), previous)?);
    }
    let last = last.ok_or_else(|| Error::other("no batch"))?;
    let got = last.wait_one()?.to_vec_blocking::<f32>()?;
    ensure(got == [previous as f32], || {
        format!("wrong result: {got:?}")
    })
}
