//! The attention of a long-context prefill over four ranks: 32,768 tokens, 8 query heads, 2 key/value heads, causal; borrowed
//! slices in, borrowed slices out; checked against one rank.
//!
//!     cargo run --release -p xdit-usp --example long_context_prefill [tokens]

use std::{sync::Arc, time::Instant};
use xdit_comm::{DeviceMesh, MeshShape, threads};
use xdit_kernels::{
    Device, View, ViewMut,
    attention::{Attention, AttnInput, Flash, Mask},
    layout,
};
use xdit_usp::{RING, ShardOrder, ULYSSES, plan, usp};

const HEADS: usize = 8;
const KV_HEADS: usize = 2;
const D: usize = 64;

fn numbers(len: usize, mut state: u32) -> Vec<f32> {
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / 2_147_483_648.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Queries, keys and values in the caller's memory.
fn views_of<'a>(
    [q, k, v]: &'a [Vec<f32>; 3],
    tokens: usize,
    device: &'a Device,
) -> xdit_kernels::Result<[View<'a>; 3]> {
    let view = |data, heads| View::from_slice(data, [1, tokens, heads, D], device);
    Ok([view(q, HEADS)?, view(k, KV_HEADS)?, view(v, KV_HEADS)?])
}

fn causal_mask() -> Mask<'static> {
    Mask::default().with_causal(true)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tokens: usize = std::env::args().nth(1).map_or(Ok(32_768), |n| n.parse())?;
    // Queries long enough that a few keys take most of the weight.
    let q: Vec<f32> = numbers(tokens * HEADS * D, 1)
        .iter()
        .map(|x| 8.0 * x)
        .collect();
    let k = numbers(tokens * KV_HEADS * D, 2);
    let v = numbers(tokens * KV_HEADS * D, 3);
    // Ranks borrow from what all share.
    let data = Arc::new([q, k, v]);
    let device = Device::cpu();
    let [q, k, v] = views_of(&data, tokens, &device)?;

    let start = Instant::now();
    let want = Flash
        .attend(&AttnInput::new(q, k, v).with_mask(causal_mask()))?
        .out;
    println!("one rank:   {:.2} s", start.elapsed().as_secs_f64());

    // Each rank returns its rows, and where they belong.
    let start = Instant::now();
    let (shared, queue) = (data.clone(), device.clone());
    let ranks = threads::run(4, move |world| {
        let mesh = DeviceMesh::new(&world, MeshShape::new([(RING, 2), (ULYSSES, 2)]))?;
        let (r, u) = (mesh.coord(RING)?, mesh.coord(ULYSSES)?);
        let plan = plan(&mesh, ShardOrder::Zigzag)?;
        let [q, k, v] = views_of(&shared, tokens, &queue)?.map(|x| plan.shard(x, 1, r, u));
        let (q, k, v) = (q?, k?, v?);
        let segments = plan.segments(&[tokens], r, u);
        let mut attention = usp(&mesh, ShardOrder::Zigzag, Flash)?;
        let input = AttnInput::new(&q, &k, &v)
            .with_segments(&segments)
            .with_mask(causal_mask())
            .with_lse(false);
        Ok((attention.attend(&input)?.out, plan.runs(tokens, r, u)))
    })?;
    let mut out = vec![0f32; tokens * HEADS * D];
    let mut whole = ViewMut::from_slice(&mut out, [1, tokens, HEADS, D], &device)?;
    for (local, runs) in ranks {
        let mut at = 0;
        for run in runs {
            let rows = local.view().narrow(1, at, run.len)?;
            layout::copy_into(rows, whole.reborrow().narrow(1, run.start, run.len)?)?;
            at += run.len;
        }
    }
    println!(
        "four ranks: {:.2} s (threads of one machine: no faster, the same work)",
        start.elapsed().as_secs_f64()
    );

    let want = want.to_vec_blocking::<f32>()?;
    let squares = |of: &dyn Fn(usize) -> f32| -> f64 {
        (0..out.len()).map(|i| f64::from(of(i)).powi(2)).sum()
    };
    let far = (squares(&|i| out[i] - want[i]) / squares(&|i| want[i])).sqrt();
    println!("relative difference (L2): {far:.1e}");
    // The bound of the tests: sums over keys are taken in another order, nothing else differs.
    if far <= 1e-5 {
        Ok(())
    } else {
        Err(format!("differs by {far}").into())
    }
}
