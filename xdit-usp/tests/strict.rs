//! Runs Ulysses and Ring on the strict backend, which behaves like NCCL: the bits equal those on threads, and without batches the
//! backend reports a deadlock.

use std::time::Duration;
use xdit_comm::strict::{StrictOptions, posting_ahead, run_each, unbatched};
use xdit_comm::{DeviceMesh, Error, Group, MeshShape, Result, threads};
use xdit_kernels::attention::{Attention, AttnInput, Flash, Mask};
use xdit_kernels::{Device, Tensor};
use xdit_usp::{RING, ShardOrder, ULYSSES, plan, usp};

#[derive(Debug, Clone, Copy)]
struct Case {
    ring: usize,
    ulysses: usize,
    tokens: usize,
    causal: bool,
    masked: bool,
}

impl Case {
    fn ranks(self) -> usize {
        self.ring * self.ulysses
    }

    /// Two layers one after the other, so that hops of the second follow exchanges of the first.
    fn on_rank(self, world: &Group) -> Result<Vec<f32>> {
        let order = match self.causal {
            true => ShardOrder::Zigzag,
            false => ShardOrder::Contiguous,
        };
        let shape = MeshShape::new([(RING, self.ring), (ULYSSES, self.ulysses)]);
        let mesh = DeviceMesh::new(world, shape)?;
        let (r, u) = (mesh.coord(RING)?, mesh.coord(ULYSSES)?);
        let plan = plan(&mesh, order)?;
        let values = |salt: usize| -> Vec<f32> {
            let x = |i: usize| ((i * 37 + salt * 101) as f32 * 0.7).sin();
            (0..self.tokens * 3 * 8).map(x).collect()
        };
        let part = |salt| -> Result<Tensor> {
            let whole = Tensor::from_slice(&values(salt), [1, self.tokens, 3, 8], &Device::cpu())?;
            Ok(plan.shard(whole.view(), 1, r, u)?)
        };
        let [mut q, k, v] = [part(1)?, part(2)?, part(3)?];
        let segments = plan.segments(&[self.tokens], r, u);
        // The first token of all is seen, so that each query sees one.
        let seen = segments.iter().flat_map(|s| s.start..s.start + s.len);
        let seen: Vec<u8> = seen.map(|token| u8::from(token % 3 == 0)).collect();
        let seen = Tensor::from_slice(&seen, [1, seen.len()], &Device::cpu())?;
        let mask = Mask::default()
            .with_causal(self.causal)
            .with_key_mask(self.masked.then(|| seen.view()));
        for _ in 0..2 {
            let input = AttnInput::new(&q, &k, &v)
                .with_segments(&segments)
                .with_mask(mask);
            q = usp(&mesh, order, Flash)?.attend(&input)?.out;
        }
        Ok(q.to_vec_blocking::<f32>()?)
    }

    fn on_strict(self, seed: u64, careless: fn(Group) -> Group) -> Vec<Result<Vec<f32>>> {
        let options = StrictOptions {
            delay: Duration::from_micros(100),
            ..StrictOptions::seed(seed)
        };
        run_each(self.ranks(), &options, move |world| {
            self.on_rank(&careless(world))
        })
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let degrees = [(1, 2), (2, 1), (3, 1), (2, 2), (4, 1), (1, 4), (3, 2)];
    let kinds = [(13, false, false), (5, true, false), (13, false, true)];
    degrees.into_iter().flat_map(move |(ring, ulysses)| {
        kinds.map(|(tokens, causal, masked)| Case {
            ring,
            ulysses,
            tokens,
            causal,
            masked,
        })
    })
}

#[test]
fn any_delays_give_what_threads_give() {
    for case in cases() {
        let want = threads::run(case.ranks(), move |world| case.on_rank(&world));
        let want = want.expect("threads need no batches");
        for seed in 0..10 {
            let got = case.on_strict(seed, |group| group).into_iter();
            let got = got.map(|rank| rank.unwrap_or_else(|e| panic!("{case:?}, {seed}: {e}")));
            assert_eq!(got.collect::<Vec<_>>(), want, "{case:?}, seed {seed}");
        }
    }
}

#[test]
fn without_batches_the_ring_is_stuck() {
    for case in cases().filter(|case| case.ring > 1) {
        for outcome in case.on_strict(0, unbatched) {
            let error = outcome.expect_err("each send waits for a receive behind a send");
            assert!(matches!(error, Error::Deadlock(_)), "{case:?}: {error}");
            let text = error.to_string();
            assert!(text.contains("is queued behind send to"), "{text}");
        }
    }
}

#[test]
fn a_ring_never_posts_ahead() {
    // Where a backend says that it may, a hop is one batch all the same.
    for case in cases().filter(|case| case.ring > 1) {
        let outcomes = case.on_strict(0, posting_ahead).into_iter();
        outcomes.for_each(|rank| drop(rank.unwrap_or_else(|e| panic!("{case:?}: {e}"))));
    }
}
