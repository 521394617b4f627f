//! What every backend promises, one function a promise: run each on all ranks of a group and look at the results.
//!
//! ```
//! use xdit_comm::{conformance, threads};
//! for (name, check) in conformance::CHECKS {
//!     threads::run(3, |group| check(&group)).unwrap_or_else(|e| panic!("{name}: {e}"));
//! }
//! ```

use crate::{Axis, Degrees, DeviceMesh, Error, Group, ReduceOp, Result, Spec};
use xdit_kernels::{DType, Tensor};

/// A check that all ranks of one group run.
pub type Check = fn(&Group) -> Result<()>;

/// Every check with its name.
pub const CHECKS: &[(&str, Check)] = &[
    (
        "messages arrive in the order sent",
        messages_arrive_in_order,
    ),
    ("a ring of send_recv comes round", send_recv_ring),
    ("a message to oneself arrives", send_to_self),
    ("broadcast from every root", broadcast),
    ("scatter and gather are inverse", scatter_then_gather),
    (
        "all_gather keeps rank order and uneven shapes",
        all_gather_uneven,
    ),
    ("all_reduce gives every rank the same bytes", all_reduce),
    ("reduce_scatter is a part of all_reduce", reduce_scatter),
    ("all_to_all twice is the identity", all_to_all_twice),
    ("empty tensors travel", empty_tensors),
    ("every dtype travels bit for bit", dtypes),
    ("many operations are under way at once", many_under_way),
    ("awaiting out of order", await_out_of_order),
    ("nobody passes a barrier early", barrier),
    ("split orders by key", split_orders_by_key),
    ("subgroups do not disturb each other", subgroups_are_apart),
    ("a mesh has the group of each axis", mesh),
    ("bytes are counted", bytes_are_counted),
];

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::Kernel(what()))
    }
}

/// `len` numbers that tell their maker.
fn numbers(from: usize, len: usize) -> Result<Tensor> {
    let data: Vec<f32> = (0..len).map(|i| (from * 1000 + i) as f32).collect();
    Ok(Tensor::from_slice(&data, [len])?)
}

fn spec(len: usize) -> Spec {
    Spec::new([len], DType::F32)
}

fn same(op: &str, got: &Tensor, want: &Tensor) -> Result<()> {
    let equal = got.shape() == want.shape()
        && got.dtype() == want.dtype()
        && got.as_bytes() == want.as_bytes();
    ensure(equal, || {
        format!(
            "{op}: got {:?}, want {:?}",
            got.to_f32_vec(),
            want.to_f32_vec()
        )
    })
}

fn messages_arrive_in_order(group: &Group) -> Result<()> {
    let n = group.world_size();
    for i in 0..20 {
        for dst in 0..n {
            drop(group.start_send(&numbers(group.rank() * 100 + i, 1 + i)?, dst)?);
        }
    }
    for src in 0..n {
        for i in 0..20 {
            same(
                "recv",
                &group.recv(spec(1 + i), src)?,
                &numbers(src * 100 + i, 1 + i)?,
            )?;
        }
    }
    Ok(())
}

fn send_recv_ring(group: &Group) -> Result<()> {
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

fn send_to_self(group: &Group) -> Result<()> {
    let mine = numbers(group.rank(), 3)?;
    same(
        "send_recv",
        &group.send_recv(&mine, group.rank(), spec(3), group.rank())?,
        &mine,
    )
}

fn broadcast(group: &Group) -> Result<()> {
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

fn scatter_then_gather(group: &Group) -> Result<()> {
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

fn all_gather_uneven(group: &Group) -> Result<()> {
    let specs: Vec<Spec> = (0..group.world_size()).map(|r| spec(r + 1)).collect();
    let all = group.all_gather(&numbers(group.rank(), group.rank() + 1)?, &specs)?;
    for (rank, got) in all.iter().enumerate() {
        same("all_gather", got, &numbers(rank, rank + 1)?)?;
    }
    Ok(())
}

fn all_reduce(group: &Group) -> Result<()> {
    let n = group.world_size();
    let mine = numbers(group.rank(), 4)?;
    let sum = group.all_reduce(&mine, ReduceOp::Sum)?;
    let want: Vec<f32> = (0..4)
        .map(|i| (0..n).map(|r| (r * 1000 + i) as f32).sum())
        .collect();
    same("all_reduce", &sum, &Tensor::from_slice(&want, [4])?)?;
    same(
        "all_reduce max",
        &group.all_reduce(&mine, ReduceOp::Max)?,
        &numbers(n - 1, 4)?,
    )?;
    // Values whose sum depends on the order: all ranks must have added in the same one.
    let awkward = Tensor::from_slice(&[1e8f32 / (1.0 + group.rank() as f32), 1.0, -1e8], [3])?;
    let sum = group.all_reduce(&awkward, ReduceOp::Sum)?;
    let specs = vec![Spec::of(&sum); n];
    for other in group.all_gather(&sum, &specs)? {
        same("all_reduce order", &other, &sum)?;
    }
    Ok(())
}

fn reduce_scatter(group: &Group) -> Result<()> {
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
        &Tensor::from_slice(&want, [me + 1])?,
    )
}

fn all_to_all_twice(group: &Group) -> Result<()> {
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

fn empty_tensors(group: &Group) -> Result<()> {
    let empty = Tensor::from_slice::<f32>(&[], [0, 3])?;
    let specs = vec![Spec::of(&empty); group.world_size()];
    for t in group.all_gather(&empty, &specs)? {
        same("all_gather of nothing", &t, &empty)?;
    }
    Ok(())
}

fn dtypes(group: &Group) -> Result<()> {
    let n = group.world_size();
    let (next, prev) = ((group.rank() + 1) % n, (group.rank() + n - 1) % n);
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let make = |rank: usize| -> Result<Tensor> {
            let data = [f32::NAN, -0.0, f32::INFINITY, rank as f32 + 0.5];
            Ok(Tensor::from_slice(&data, [2, 2])?.to_dtype(dtype)?)
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

fn many_under_way(group: &Group) -> Result<()> {
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

fn await_out_of_order(group: &Group) -> Result<()> {
    let n = group.world_size();
    let (next, prev) = ((group.rank() + 1) % n, (group.rank() + n - 1) % n);
    let first = group.start_recv(spec(1), prev)?;
    let sum = group.start_all_reduce(&numbers(group.rank(), 2)?, ReduceOp::Max)?;
    let second = group.start_recv(spec(2), prev)?;
    group.send(&numbers(group.rank(), 1)?, next)?;
    group.send(&numbers(group.rank() + 50, 2)?, next)?;
    same("second", &second.wait_one()?, &numbers(prev + 50, 2)?)?;
    same("max", &sum.wait_one()?, &numbers(n - 1, 2)?)?;
    same("first", &first.wait_one()?, &numbers(prev, 1)?)
}

fn barrier(group: &Group) -> Result<()> {
    // After a barrier, what every rank sent before it is there: each receive below finds its message or fails by order.
    for dst in 0..group.world_size() {
        drop(group.start_send(&numbers(group.rank(), 1)?, dst)?);
    }
    group.barrier()?;
    for src in 0..group.world_size() {
        same(
            "after the barrier",
            &group.recv(spec(1), src)?,
            &numbers(src, 1)?,
        )?;
    }
    Ok(())
}

fn split_orders_by_key(group: &Group) -> Result<()> {
    let (n, me) = (group.world_size(), group.rank());
    let reversed = group.split(0, n - me)?;
    ensure(
        reversed.rank() == n - 1 - me && reversed.world_size() == n,
        || {
            format!(
                "split: rank {} of {}",
                reversed.rank(),
                reversed.world_size()
            )
        },
    )?;
    let parity = group.split(me % 2, 0)?;
    ensure(
        parity.rank() == me / 2 && parity.world_size() == (n + 1 - me % 2) / 2,
        || {
            format!(
                "split by parity: rank {} of {}",
                parity.rank(),
                parity.world_size()
            )
        },
    )
}

fn subgroups_are_apart(group: &Group) -> Result<()> {
    let me = group.rank();
    let parity = group.split(me % 2, me)?;
    // Different numbers of operations in the two subgroups, and the whole group's in between.
    for _ in 0..=(me % 2) * 3 {
        let sum = parity.all_reduce(&numbers(me % 2, 1)?, ReduceOp::Max)?;
        same("in the subgroup", &sum, &numbers(me % 2, 1)?)?;
    }
    let all = group.all_reduce(&numbers(me, 1)?, ReduceOp::Max)?;
    same("in the whole", &all, &numbers(group.world_size() - 1, 1)?)
}

fn mesh(group: &Group) -> Result<()> {
    let n = group.world_size();
    let ulysses = if n.is_multiple_of(2) { 2 } else { 1 };
    let degrees = Degrees {
        ulysses,
        ring: n / ulysses,
        ..Default::default()
    };
    let mesh = DeviceMesh::new(group, degrees)?;
    let (u, r) = (mesh.coord(Axis::Ulysses), mesh.coord(Axis::Ring));
    ensure(u + ulysses * r == group.rank(), || {
        format!("mesh: rank {} at ulysses {u}, ring {r}", group.rank())
    })?;
    let specs = vec![spec(1); ulysses];
    let neighbours = mesh
        .group(Axis::Ulysses)
        .all_gather(&numbers(group.rank(), 1)?, &specs)?;
    for (i, t) in neighbours.iter().enumerate() {
        same("ulysses neighbours", t, &numbers(r * ulysses + i, 1)?)?;
    }
    Ok(())
}

fn bytes_are_counted(group: &Group) -> Result<()> {
    let n = group.world_size();
    let before = group.stats();
    let total = |stats: &crate::Stats, op| {
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
    })
}
