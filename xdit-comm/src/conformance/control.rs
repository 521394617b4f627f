//! Tests of the control plane.

use super::support::{ensure, numbers, same, spec};
use crate::{Group, Result};

pub(super) fn control_keeps_bytes_and_order(group: &Group) -> Result<()> {
    let (n, me) = (group.world_size(), group.rank());
    // Of uneven lengths; several under way; awaited out of order.
    let of = |rank: usize, i: usize| vec![(rank * 16 + i) as u8; rank + i];
    let started = (0..10).map(|i| group.control().start_all_gather(&of(me, i)));
    let started = started.collect::<Result<Vec<_>>>()?;
    for (i, pending) in started.into_iter().enumerate().rev() {
        let want: Vec<Vec<u8>> = (0..n).map(|rank| of(rank, i)).collect();
        let got = pending.wait()?;
        ensure(got == want, || {
            format!("control: got {got:?}, want {want:?}")
        })?;
    }
    let values = |rank: usize| vec![1.0 / (3.0 + rank as f64), -0.0, f64::MIN_POSITIVE / 8.0];
    let bits = |all: &[f64]| all.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let all = group.control().all_gather_f64(&values(me))?;
    for (rank, got) in all.iter().enumerate() {
        ensure(bits(got) == bits(&values(rank)), || {
            format!("control: rank {rank} gave {got:?}")
        })?;
    }
    for root in 0..n {
        let got = group.control().broadcast(&of(me, 3), root)?;
        ensure(got == of(root, 3), || {
            format!("control: broadcast of {root}: {got:?}")
        })?;
    }
    let any = group.control().any([me == 0, me + 1 == n, false])?;
    ensure(any == [true, true, false], || {
        format!("control: any {any:?}")
    })
}

pub(super) fn control_is_beside_the_data(group: &Group) -> Result<()> {
    // The first rank begins with the control plane, the others with the data plane: neither holds up the other.
    let n = group.world_size();
    let (mine, specs) = (numbers(group.rank(), 5)?, vec![spec(5); n]);
    let (bytes, tensors) = match group.rank() {
        0 => {
            let bytes = group.control().all_gather(&[0])?;
            (bytes, group.all_gather(&mine, &specs)?)
        }
        rank => {
            let pending = group.start_all_gather(&mine, &specs)?;
            let bytes = group.control().all_gather(&[rank as u8])?;
            (bytes, pending.wait()?)
        }
    };
    let want: Vec<Vec<u8>> = (0..n).map(|rank| vec![rank as u8]).collect();
    ensure(bytes == want, || format!("control: {bytes:?}"))?;
    for (rank, got) in tensors.iter().enumerate() {
        same("all_gather beside it", got, &numbers(rank, 5)?)?;
    }
    Ok(())
}
