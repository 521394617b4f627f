//! Checks that zigzag sharding divides causal work evenly. Counts the work in the calls of the inner attention.

use xdit_comm::{DeviceMesh, MeshShape, threads};
use xdit_kernels::{
    Result, Tensor,
    attention::{Attention, AttnInput, AttnOut, Flash, Mask},
};
use xdit_usp::{RING, ShardOrder, ULYSSES, plan, usp};

/// Counts pairs of a query and a key that it sees, for each query head.
struct Counting<'a> {
    pairs: &'a mut u64,
}

impl Attention for Counting<'_> {
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
        let (rows, heads, keys) = (input.q.dim(1), input.q.dim(2), input.k.dim(1));
        let seen = match input.mask.causal {
            true => rows * (rows + 1) / 2,
            false => rows * keys,
        };
        *self.pairs += (heads * seen) as u64;
        Flash.attend(input)
    }
}

/// Pairs that each rank of ring 4 × Ulysses 2 computes of `total` rows and 4 heads.
fn work(order: ShardOrder, total: usize) -> Vec<u64> {
    let ranks = threads::run(8, move |world| {
        let mesh = DeviceMesh::new(&world, MeshShape::new([(RING, 4), (ULYSSES, 2)]))?;
        let (r, u) = (mesh.coord(RING)?, mesh.coord(ULYSSES)?);
        let plan = plan(&mesh, order)?;
        let whole = Tensor::zeros(
            [1, total, 4, 32],
            xdit_kernels::DType::F32,
            &xdit_kernels::Device::cpu(),
        )?;
        let x = plan.shard(whole.view(), 1, r, u)?;
        let segments = plan.segments(&[total], r, u);
        let mut pairs = 0;
        let input = AttnInput::new(&x, &x, &x)
            .with_segments(&segments)
            .with_mask(Mask::default().with_causal(true));
        usp(&mesh, order, Counting { pairs: &mut pairs })?.attend(&input)?;
        Ok(pairs)
    });
    ranks.expect("no rank fails")
}

#[test]
fn the_slowest_rank_is_within_a_twentieth_of_the_mean() {
    for total in [512, 1009] {
        let pairs = work(ShardOrder::Zigzag, total);
        let all = 4 * total as u64 * (total as u64 + 1) / 2;
        assert_eq!(pairs.iter().sum::<u64>(), all, "each pair is computed once");
        let (mean, slowest) = (all as f64 / 8.0, pairs.iter().max().copied().unwrap_or(0));
        // The bound.
        assert!(slowest as f64 <= 1.05 * mean, "{total} rows: {pairs:?}");
    }
    let straight = work(ShardOrder::Contiguous, 512);
    assert!(
        straight[7] > 6 * straight[0],
        "without zigzag the last rank does most: {straight:?}"
    );
}
