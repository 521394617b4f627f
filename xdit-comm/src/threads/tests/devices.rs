//! The devices of ranks.

use crate::{
    ReduceOp, Spec,
    threads::{Caller, Options, Ranks},
};
use xdit_kernels::{Device, Tensor, Tier};

#[test]
fn what_a_rank_receives_is_of_its_own_device() {
    // Two devices that are not equal, wherever the processor has more than the portable tier.
    let portable = Device::cpu_with(Tier::Portable).unwrap();
    let mut ranks = Ranks::<()>::on(vec![portable, Device::cpu()], Options::default());
    let work = |group: &crate::Group, _: &mut (), _: Caller<()>| {
        let own = group.device().cloned().expect("the rank has one");
        let (rank, peer) = (group.rank(), 1 - group.rank());
        let mine = Tensor::from_slice(&[rank as f32 + 1.0], [1], &own)?;
        let spec = Spec::of(&mine);
        let got = group.start_send_recv(&mine, peer, spec, peer)?.wait_one()?;
        let all = group.all_gather(&mine, &[spec; 2])?;
        let sum = group.all_reduce(&mine, ReduceOp::Sum)?;
        let subgroup = group.split(0, rank)?;
        let again = subgroup.broadcast((rank == 1).then_some(&mine), spec, 1)?;
        for tensor in all.iter().chain([&got, &sum, &again]) {
            assert_eq!(tensor.device(), &own);
        }
        assert_eq!(subgroup.device(), Some(&own));
        let values = [&got, &all[0], &all[1], &sum, &again];
        let values = values.map(|tensor| tensor.to_vec_blocking::<f32>());
        values.into_iter().map(|v| Ok(v?[0])).collect()
    };
    for _ in 0..2 {
        let outcomes = ranks.call(work, |()| {});
        let values: Vec<Vec<f32>> = outcomes.into_iter().collect::<crate::Result<_>>().unwrap();
        assert_eq!(
            values,
            [[2.0, 1.0, 2.0, 3.0, 2.0], [1.0, 1.0, 2.0, 3.0, 2.0]]
        );
    }
}
