//! Tests of what the conformance suite does not ask of a transport.

use std::{
    thread,
    time::{Duration, Instant},
};
use xdit_comm::{
    Call, Error, Group, ReduceOp, Result, Spec, conformance::Check, processes::mpi::Mpi, threads,
};
use xdit_kernels::{DType, Device, Tensor, TensorMut};

pub(crate) const CHECKS: &[(&str, Check)] = &[
    ("reductions have the bytes of threads", reductions),
    ("large tensors travel both ways", large_both_ways),
    ("a sent tensor is not copied", sent_from_where_it_lies),
    ("the version is a few words", version),
];

pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::other(what()))
    }
}

fn version(_: &Group) -> Result<()> {
    let version = Mpi::version();
    let is_told = ["Open MPI v", "MPICH Version: "]
        .iter()
        .any(|name| version.starts_with(name) && version.len() > name.len());
    ensure(is_told && version.len() < 40, || version)
}

/// Numbers whose sum depends on the order in which they are added.
fn delicate(rank: usize, dtype: DType) -> Result<Tensor> {
    let data: Vec<f32> = (0..1000)
        .map(|i| ((i * 37 + rank * 101) % 997) as f32 * 1e-3 + 10_f32.powi((rank + i) as i32 % 7))
        .collect();
    Ok(Tensor::from_slice(&data, [data.len()], &Device::cpu())?.to_dtype(dtype)?)
}

fn reductions(group: &Group) -> Result<()> {
    let n = group.world_size();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
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

/// The last rank sends and then calls nothing for a while: the others must not wait for it.
pub(crate) fn ends_alone(group: &Group) -> Result<()> {
    const LEN: usize = 2 << 20;
    let n = group.world_size();
    if n == 1 {
        return Ok(());
    }
    group.barrier()?;
    if group.rank() == n - 1 {
        let tensor = TensorMut::zeros([LEN], DType::F32, &Device::cpu())?.freeze();
        let sends = (0..n - 1).map(|to| Call::send(&tensor, to)).collect();
        drop(group.start(sends)?);
        thread::sleep(Duration::from_secs(3));
    } else {
        let began = Instant::now();
        group.recv(Spec::new([LEN], DType::F32), n - 1)?;
        let took = began.elapsed();
        ensure(took < Duration::from_secs(2), || {
            format!("the message took {took:?}")
        })?;
    }
    group.barrier()
}

fn large_both_ways(group: &Group) -> Result<()> {
    let (n, me) = (group.world_size(), group.rank());
    let lens: Vec<usize> = (0..n).map(|rank| 300_000 + 100_001 * rank).collect();
    let of = |rank: usize| -> Result<Tensor> {
        let data: Vec<f32> = (0..lens[rank])
            .map(|i| (rank * 7 + i % 1000) as f32)
            .collect();
        Ok(Tensor::from_slice(&data, [lens[rank]], &Device::cpu())?)
    };
    let specs: Vec<Spec> = lens
        .iter()
        .map(|len| Spec::new([*len], DType::F32))
        .collect();
    for (rank, got) in group.all_gather(&of(me)?, &specs)?.iter().enumerate() {
        let (got, want) = (
            got.to_vec_blocking::<f32>()?,
            of(rank)?.to_vec_blocking::<f32>()?,
        );
        ensure(got == want, || format!("what rank {rank} gave has changed"))?;
    }
    let (next, previous) = ((me + 1) % n, (me + n - 1) % n);
    let got = group.send_recv(&of(me)?, next, specs[previous], previous)?;
    let want = of(previous)?.to_vec_blocking::<f32>()?;
    ensure(got.to_vec_blocking::<f32>()? == want, || {
        "a message has changed".to_owned()
    })
}

/// A tensor may be dropped once it is sent, and its memory is not used again before its end.
fn sent_from_where_it_lies(group: &Group) -> Result<()> {
    let (n, me) = (group.world_size(), group.rank());
    let (next, previous) = ((me + 1) % n, (me + n - 1) % n);
    let spec = Spec::new([1 << 16], DType::U8);
    let mut sends = Vec::new();
    for i in 0..50_u8 {
        let tensor = Tensor::from_slice(&vec![i; 1 << 16], [1 << 16], &Device::cpu())?;
        sends.push(group.start_send(&tensor, next)?);
    }
    group.barrier()?;
    for i in 0..50_u8 {
        let got = group.recv(spec, previous)?;
        let bytes = got.host_bytes_blocking()?;
        ensure(bytes.iter().all(|byte| *byte == i), || {
            format!("message {i} has changed")
        })?;
    }
    sends.into_iter().try_for_each(|send| send.wait().map(drop))
}

/// More than an MPI installation has at a time.
pub(crate) fn many_groups(group: &Group) -> Result<()> {
    for i in 0..2100 {
        let half = group.split(group.rank() % 2, i)?;
        if i % 500 == 0 {
            half.barrier()?;
        }
    }
    Ok(())
}

/// Messages and an exchange of more bytes than an `int` counts.
pub(crate) fn huge(group: &Group) -> Result<()> {
    const LEN: usize = (2 << 30) + 12_345;
    let (n, me) = (group.world_size(), group.rank());
    let spec = Spec::new([LEN], DType::U8);
    let make = |rank: usize| -> Result<_> {
        let mut tensor = TensorMut::zeros([LEN], DType::U8, &Device::cpu())?;
        let bytes = tensor.host_bytes_mut()?;
        for at in [0, 1 << 30, (1 << 31) - 1, 1 << 31, LEN - 1] {
            bytes[at] = (at % 251) as u8 + rank as u8;
        }
        Ok(tensor.freeze())
    };
    let right = |got: &Tensor, rank: usize| -> Result<()> {
        let (got, want) = (got.host_bytes_blocking()?, make(rank)?);
        let same = *got == *want.host_bytes_blocking()?;
        ensure(same, || "the bytes have changed".to_owned())
    };
    let mine = make(me)?;
    let (next, previous) = ((me + 1) % n, (me + n - 1) % n);
    right(&group.send_recv(&mine, next, spec, previous)?, previous)?;
    for (rank, got) in group.all_gather(&mine, &vec![spec; n])?.iter().enumerate() {
        right(got, rank)?;
    }
    let given = (me == 0).then_some(&mine);
    right(&group.broadcast(given, spec, 0)?, 0)
}
