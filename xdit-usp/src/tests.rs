//! Compares any number of ranks with one rank, and the bytes sent with the formula.

use crate::{RING, SequencePlan, ShardOrder, ULYSSES, heads::Heads, plan, usp};
use proptest::prelude::*;
use xdit_comm::{Axis, DeviceMesh, MeshShape, Result, Shard, Stats, threads};
use xdit_kernels::{
    Device, Tensor, View,
    attention::{Attention, AttnInput, Flash, Mask},
};

#[derive(Debug, Clone)]
struct Case {
    ulysses: usize,
    ring: usize,
    batch: usize,
    /// Rows of each stream.
    totals: Vec<usize>,
    heads: usize,
    kv_heads: usize,
    d: usize,
    causal: bool,
    masked: bool,
}

/// The mask [b, l] of tokens as attention takes it.
fn seen_of(mask: Option<&[bool]>, batch: usize) -> Option<Tensor> {
    let mask = mask?;
    let seen: Vec<u8> = mask.iter().map(|&seen| u8::from(seen)).collect();
    let shape = [batch, seen.len() / batch];
    Some(Tensor::from_slice(&seen, shape, &Device::cpu()).unwrap())
}

impl Case {
    fn order(&self) -> ShardOrder {
        if self.causal {
            ShardOrder::Zigzag
        } else {
            ShardOrder::Contiguous
        }
    }

    fn plan(&self) -> SequencePlan {
        SequencePlan {
            ring: self.ring,
            ulysses: self.ulysses,
            order: self.order(),
        }
    }

    fn tokens(&self) -> usize {
        self.totals.iter().sum()
    }

    /// Normal-ish numbers from a counter.
    fn tensor(&self, salt: u32, heads: usize) -> Tensor {
        let shape = [self.batch, self.tokens(), heads, self.d];
        let mut state = salt.wrapping_mul(0x9e37_79b9) | 1;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / 4_294_967_296.0 - 0.5
        };
        let data: Vec<f32> = (0..shape.iter().product())
            .map(|_| uniform() + uniform() + uniform())
            .collect();
        Tensor::from_slice(&data, shape, &Device::cpu()).unwrap()
    }

    /// Each batch row hides another part of the keys; no row hides all.
    fn mask(&self) -> Option<Vec<bool>> {
        let tokens = self.tokens();
        let seen = move |b: usize, i: usize| i == 0 || !(i * 7 + b * 3).is_multiple_of(5);
        self.masked.then(|| {
            (0..self.batch)
                .flat_map(|b| (0..tokens).map(move |i| seen(b, i)))
                .collect()
        })
    }

    /// Rows of all streams that the rank holds, as places in the concatenation of the whole streams.
    fn local_rows(&self, ring_rank: usize, ulysses_rank: usize) -> Vec<Shard> {
        let mut base = 0;
        let mut rows = Vec::new();
        for &total in &self.totals {
            for run in self.plan().runs(total, ring_rank, ulysses_rank) {
                rows.push(Shard {
                    start: base + run.start,
                    len: run.len,
                });
            }
            base += total;
        }
        rows
    }

    fn local(&self, x: View<'_>, rows: &[Shard]) -> Tensor {
        let parts: Vec<View<'_>> = rows
            .iter()
            .map(|r| x.narrow(1, r.start, r.len).unwrap())
            .collect();
        Tensor::cat(&parts, 1).unwrap()
    }

    fn check(&self) {
        let [q, k, v] = [(1, self.heads), (2, self.kv_heads), (3, self.kv_heads)]
            .map(|(s, h)| self.tensor(s, h));
        let mask = self.mask();
        let seen = seen_of(mask.as_deref(), self.batch);
        let whole_mask = Mask::default()
            .with_causal(self.causal)
            .with_key_mask(seen.as_ref().map(Tensor::view));
        let input = AttnInput::new(&q, &k, &v).with_mask(whole_mask);
        let want = Flash.attend(&input).unwrap();
        let shape = MeshShape::new([(RING, self.ring), (ULYSSES, self.ulysses)]);
        let (case, local_of) = (self.clone(), mask.clone());
        let (q, k, v) = (q.clone(), k.clone(), v.clone());
        let got = threads::run(self.ulysses * self.ring, move |world| {
            let mesh = DeviceMesh::new(&world, shape.clone())?;
            let (r, u) = (mesh.coord(RING)?, mesh.coord(ULYSSES)?);
            let rows = case.local_rows(r, u);
            let [q, k, v] = [&q, &k, &v].map(|t| case.local(t.view(), &rows));
            let local_mask: Option<Vec<bool>> = local_of.as_ref().map(|m| {
                let row = |b: usize, s: &Shard| m[b * case.tokens() + s.start..][..s.len].to_vec();
                (0..case.batch)
                    .flat_map(|b| rows.iter().flat_map(move |s| row(b, s)).collect::<Vec<_>>())
                    .collect()
            });
            let segments = plan(&mesh, case.order())?.segments(&case.totals, r, u);
            let mut attention = usp(&mesh, case.order(), Flash)?;
            let seen = seen_of(local_mask.as_deref(), case.batch);
            let mask = Mask::default()
                .with_causal(case.causal)
                .with_key_mask(seen.as_ref().map(Tensor::view));
            let input = AttnInput::new(&q, &k, &v)
                .with_segments(&segments)
                .with_mask(mask)
                .with_lse(false);
            let out = attention.attend(&input)?.out;
            let sent = world.stats();
            let lse = attention.attend(&input.with_lse(true))?.lse;
            Ok((out, lse, rows, sent))
        });
        for (rank, (out, lse, rows, sent)) in got
            .unwrap_or_else(|e| panic!("{self:?}: {e}"))
            .iter()
            .enumerate()
        {
            let (r, u) = (rank / self.ulysses, rank % self.ulysses);
            self.close("out", out, &self.local(want.out.view(), rows));
            let lse_rows = |t: &Tensor| {
                let parts: Vec<View<'_>> = rows
                    .iter()
                    .map(|s| t.view().narrow(2, s.start, s.len).unwrap())
                    .collect();
                Tensor::cat(&parts, 2).unwrap()
            };
            self.close("lse", lse, &lse_rows(&want.lse));
            assert_eq!(
                bytes(sent, ULYSSES),
                self.ulysses_bytes(r, u),
                "{self:?} rank {rank}: Ulysses bytes"
            );
            assert_eq!(
                bytes(sent, RING),
                self.ring_bytes(r, u),
                "{self:?} rank {rank}: ring bytes"
            );
            let exchanges = sent.get(&("all_to_all", Some(ULYSSES)));
            let exchanges = exchanges.copied().unwrap_or_default();
            // Queries, keys and values in one, the outputs in one.
            let calls = if self.ulysses > 1 { 2 } else { 0 };
            assert_eq!(exchanges.calls, calls, "{self:?}");
            let copied = exchanges.copied;
            assert_eq!(copied, self.copied_bytes(r, u), "{self:?} rank {rank}");
        }
    }

    /// The bound, 1e-5 of the largest value: sums over keys are taken in another order, nothing else differs.
    fn close(&self, what: &str, got: &Tensor, want: &Tensor) {
        assert_eq!(got.shape(), want.shape(), "{self:?}: {what}");
        let (got, want) = (
            got.to_vec_blocking::<f32>().unwrap(),
            want.to_vec_blocking::<f32>().unwrap(),
        );
        let scale = want.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
        for (g, w) in got.iter().zip(&want) {
            assert!(
                (g - w).abs() <= 1e-5 * scale,
                "{self:?}: {what} {g} not {w}"
            );
        }
    }

    fn rows_of(&self, r: usize, u: usize) -> usize {
        self.local_rows(r, u).iter().map(|s| s.len).sum()
    }

    /// Σ over the other ranks of q, k, v (and a mask element a row) for their heads, and of my heads for their rows; times
    /// the 4 bytes of f32.
    fn ulysses_bytes(&self, r: usize, u: usize) -> usize {
        let heads = |u| Heads::of(self.heads, self.kv_heads, self.ulysses, u);
        let there: usize = (0..self.ulysses)
            .filter(|o| *o != u)
            .map(|o| {
                let row =
                    (heads(o).q.len + 2 * heads(o).kv.len) * self.d + usize::from(self.masked);
                self.rows_of(r, u) * row
            })
            .sum();
        let back: usize = (0..self.ulysses)
            .filter(|o| *o != u)
            .map(|o| self.rows_of(r, o) * heads(u).q.len * self.d)
            .sum();
        self.batch * 4 * (there + back)
    }

    /// What is sent and what arrives, each once, and what stays on the rank, once; keys and values once more where they
    /// are repeated.
    fn copied_bytes(&self, r: usize, u: usize) -> usize {
        if self.ulysses == 1 {
            return 0;
        }
        let heads = |u| Heads::of(self.heads, self.kv_heads, self.ulysses, u);
        let row = (heads(u).q.len + 2 * heads(u).kv.len) * self.d + usize::from(self.masked);
        // From rank o, and for o = u what stays.
        let held = (0..self.ulysses)
            .map(|o| self.rows_of(r, o) * row + self.rows_of(r, u) * heads(o).q.len * self.d);
        let rows: usize = (0..self.ulysses).map(|o| self.rows_of(r, o)).sum();
        let repeated = match heads(u).repeats() {
            Some(_) => 2 * rows * heads(u).q.len * self.d,
            None => 0,
        };
        self.ulysses_bytes(r, u) + self.batch * 4 * (held.sum::<usize>() + repeated)
    }

    /// Σ over R − 1 hops of the keys and values held then (repeated ones where groups are uneven) and their mask.
    fn ring_bytes(&self, r: usize, u: usize) -> usize {
        let mine = Heads::of(self.heads, self.kv_heads, self.ulysses, u);
        if mine.q.len == 0 {
            return 0;
        }
        let kv = if mine.repeats().is_some() {
            mine.q.len
        } else {
            mine.kv.len
        };
        // Keys and values are f32, the mask is bytes.
        let row = 4 * 2 * kv * self.d + usize::from(self.masked);
        (0..self.ring - 1)
            .map(|hop| {
                let holder = (r + self.ring - hop) % self.ring;
                let rows: usize = (0..self.ulysses).map(|o| self.rows_of(holder, o)).sum();
                self.batch * rows * row
            })
            .sum()
    }
}

fn bytes(stats: &Stats, axis: Axis) -> usize {
    // Splitting the world into axes moves no tensors.
    stats
        .iter()
        .filter(|((_, a), _)| *a == Some(axis))
        .map(|(_, s)| s.bytes)
        .sum()
}

/// Degrees up to 8 each with at most 16 ranks.
fn degrees() -> impl Strategy<Value = (usize, usize)> {
    (1usize..9, 1usize..9).prop_filter("at most 16 ranks", |(u, r)| u * r <= 16)
}

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(1usize),
        Just(2),
        Just(7),
        Just(13),
        Just(31),
        Just(37),
        Just(64),
        Just(97),
        1usize..120
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_streams_any_heads_any_degrees(
        (ulysses, ring) in degrees(),
        totals in prop::collection::vec(lengths(), 1..4),
        heads in prop::sample::select(vec![1usize, 3, 5, 16, 24, 30, 38]),
        d in prop::sample::select(vec![32usize, 64, 88, 128]),
        batch in 1usize..3,
        masked in any::<bool>(),
    ) {
        Case { ulysses, ring, batch, totals, heads, kv_heads: heads, d, causal: false, masked }.check();
    }

    #[test]
    fn causal_grouped_and_masked(
        (ulysses, ring) in degrees(),
        total in lengths(),
        (heads, kv_heads) in prop::sample::select(vec![(8usize, 2usize), (9, 3), (6, 2), (16, 1), (12, 4), (5, 5), (24, 8)]),
        d in prop::sample::select(vec![32usize, 64, 88, 128]),
        batch in 1usize..3,
        masked in any::<bool>(),
    ) {
        Case { ulysses, ring, batch, totals: vec![total], heads, kv_heads, d, causal: true, masked }.check();
    }
}

#[test]
fn flux_sd3_and_hunyuan_shapes() {
    for (heads, d, totals) in [
        (24, 128, vec![19, 60]),
        (38, 64, vec![33, 35]),
        (16, 88, vec![50]),
    ] {
        for (ulysses, ring) in [(2, 2), (3, 1), (8, 1), (1, 4), (4, 2)] {
            let totals = totals.clone();
            Case {
                ulysses,
                ring,
                batch: 1,
                totals,
                heads,
                kv_heads: heads,
                d,
                causal: false,
                masked: false,
            }
            .check();
        }
    }
}

#[test]
fn degree_one_is_the_inner_attention_bit_for_bit() {
    let case = Case {
        ulysses: 1,
        ring: 1,
        batch: 2,
        totals: vec![9, 5],
        heads: 3,
        kv_heads: 3,
        d: 32,
        causal: false,
        masked: false,
    };
    let [q, k, v] = [1, 2, 3].map(|s| case.tensor(s, 3));
    let want = Flash.attend(&AttnInput::new(&q, &k, &v)).unwrap();
    let got = threads::run(1, move |world| {
        let mesh = DeviceMesh::new(&world, MeshShape::new([(RING, 1), (ULYSSES, 1)]))?;
        Ok(usp(&mesh, ShardOrder::Contiguous, Flash)?
            .attend(&AttnInput::new(&q, &k, &v))?
            .out)
    });
    assert_eq!(
        got.unwrap()[0].host_bytes_blocking().unwrap(),
        want.out.host_bytes_blocking().unwrap()
    );
}

#[test]
fn segments_that_are_not_the_plans_are_an_error_on_every_rank() {
    let case = Case {
        ulysses: 2,
        ring: 1,
        batch: 1,
        totals: vec![8],
        heads: 2,
        kv_heads: 2,
        d: 32,
        causal: false,
        masked: false,
    };
    let q = case.tensor(1, 2);
    let outcome: Result<Vec<()>> = threads::run(2, move |world| {
        let mesh = DeviceMesh::new(&world, MeshShape::new([(RING, 1), (ULYSSES, 2)]))?;
        usp(&mesh, ShardOrder::Contiguous, Flash)?.attend(&AttnInput::new(&q, &q, &q))?;
        Ok(())
    });
    let text = outcome.unwrap_err().to_string();
    let told = "the segments of this rank for ring 1 × Ulysses 2";
    assert!(text.contains(told), "{text}");
}
