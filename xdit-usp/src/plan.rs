//! The rows of a stream that each rank holds.

use std::num::NonZero;
use std::ops::RangeInclusive;
use xdit_comm::{Shard, zigzag};
use xdit_kernels::{
    Error, Result, Tensor, View,
    attention::{AttnInput, Segment},
};

/// How the rows of a stream are divided among ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ShardOrder {
    /// Each rank holds one run of rows, in rank order. For attention without a causal mask.
    #[default]
    Contiguous,
    /// Each ring rank holds two runs of rows: one from the front, and its mirror image from the back. Under a causal mask every rank
    /// then has about the same work. Within each run, Ulysses ranks hold consecutive rows.
    Zigzag,
    /// As [`Contiguous`](Self::Contiguous), in whole blocks of this many rows, for example the lines of an image. The last block of
    /// a stream may be shorter.
    Blocks(NonZero<usize>),
}

/// The rows of a stream that each of ring × ulysses ranks holds, for any number of rows. Every rank computes the rows of every
/// other rank, so ranks never send sizes.
///
/// # Examples
/// ```
/// use xdit_usp::{ShardOrder, SequencePlan};
/// let plan = SequencePlan { ring: 2, ulysses: 2, order: ShardOrder::Contiguous };
/// let rows: Vec<_> = (0..4).map(|i| plan.runs(10, i / 2, i % 2)[0].len).collect();
/// assert_eq!(rows, [3, 3, 2, 2]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SequencePlan {
    /// Degree of the ring.
    pub ring: usize,
    /// Degree of Ulysses.
    pub ulysses: usize,
    /// How rows are divided among ranks.
    pub order: ShardOrder,
}

impl SequencePlan {
    /// Returns the number of runs of each stream that a rank holds.
    pub fn runs_per_stream(&self) -> usize {
        match self.order {
            ShardOrder::Contiguous | ShardOrder::Blocks(_) => 1,
            ShardOrder::Zigzag => 2,
        }
    }

    /// Returns the runs of a stream of `total` rows that the rank at these coordinates holds, in its order. Runs may be empty.
    ///
    /// # Panics
    /// If a coordinate is not below its degree.
    pub fn runs(&self, total: usize, ring_rank: usize, ulysses_rank: usize) -> Vec<Shard> {
        if let ShardOrder::Blocks(rows) = self.order {
            return vec![self.blocks(total, rows, ring_rank, ulysses_rank..=ulysses_rank)];
        }
        self.chunks(total, ring_rank)
            .into_iter()
            .map(|chunk| {
                let part = Shard::of(chunk.len, self.ulysses, ulysses_rank);
                Shard {
                    start: chunk.start + part.start,
                    len: part.len,
                }
            })
            .collect()
    }

    /// Returns the runs of a stream of `total` rows that the Ulysses ranks of one ring rank hold together. These are the rows of the
    /// ring rank's keys after the all-to-all.
    ///
    /// # Panics
    /// If the ring rank is not below the ring's degree, or the Ulysses degree is 0.
    pub fn chunks(&self, total: usize, ring_rank: usize) -> Vec<Shard> {
        match self.order {
            ShardOrder::Contiguous => {
                // Divide over all ranks first, so that no two ranks differ by more than one row.
                let of = |u| Shard::of_grid(total, (self.ring, ring_rank), (self.ulysses, u));
                let (first, last) = (of(0), of(self.ulysses.saturating_sub(1)));
                vec![Shard {
                    start: first.start,
                    len: last.end() - first.start,
                }]
            }
            ShardOrder::Zigzag => zigzag(total, self.ring, ring_rank).to_vec(),
            ShardOrder::Blocks(rows) => {
                vec![self.blocks(total, rows, ring_rank, 0..=self.ulysses.saturating_sub(1))]
            }
        }
    }

    /// Returns the rows that these Ulysses ranks of a ring rank hold together, in blocks of `rows`.
    fn blocks(
        &self,
        total: usize,
        rows: NonZero<usize>,
        ring_rank: usize,
        ulysses: RangeInclusive<usize>,
    ) -> Shard {
        let count = total.div_ceil(rows.get());
        let of = |u| Shard::of_grid(count, (self.ring, ring_rank), (self.ulysses, u));
        let row = |block: usize| block.saturating_mul(rows.get()).min(total);
        let start = row(of(*ulysses.start()).start);
        Shard {
            start,
            len: row(of(*ulysses.end()).end()) - start,
        }
    }

    /// Returns the segments that describe the local rows to attention: the runs of each stream, in the order of the streams.
    pub fn segments(
        &self,
        totals: &[usize],
        ring_rank: usize,
        ulysses_rank: usize,
    ) -> Vec<Segment> {
        totals
            .iter()
            .enumerate()
            .flat_map(|(stream, &total)| {
                let runs = self.runs(total, ring_rank, ulysses_rank);
                runs.into_iter().map(move |run| Segment {
                    stream,
                    start: run.start,
                    len: run.len,
                    total,
                })
            })
            .collect()
    }

    /// Returns the local rows of one whole stream along `dim`: of tokens, positions or rotary tables.
    ///
    /// # Errors
    /// If the tensor does not have this dim.
    pub fn shard(
        &self,
        whole: View<'_>,
        dim: usize,
        ring_rank: usize,
        ulysses_rank: usize,
    ) -> crate::Result<Tensor> {
        if dim >= whole.ndim() {
            return Err(crate::Error::plan("shard", format!("a dim {dim}"), whole));
        }
        let runs = self.runs(whole.dim(dim), ring_rank, ulysses_rank);
        let parts = runs
            .iter()
            .map(|r| whole.narrow(dim, r.start, r.len))
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, dim)?)
    }

    /// Joins the local rows of all ranks, `parts[ulysses + U·ring]`, to the whole stream of `total` rows along `dim`.
    ///
    /// # Errors
    /// If the parts do not have the rows of the plan.
    pub fn assemble(&self, parts: &[Tensor], dim: usize, total: usize) -> crate::Result<Tensor> {
        let ranks = self.ring.checked_mul(self.ulysses).filter(|&n| n > 0);
        let wrong = || {
            crate::Error::plan(
                "assemble",
                format!(
                    "{} × {} parts of {total} rows in all",
                    self.ring, self.ulysses
                ),
                parts,
            )
        };
        if ranks != Some(parts.len()) {
            return Err(wrong());
        }
        let mut placed: Vec<(usize, View<'_>)> = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let mut offset = 0;
            for run in self.runs(total, index / self.ulysses, index % self.ulysses) {
                placed.push((run.start, part.view().narrow(dim, offset, run.len)?));
                offset += run.len;
            }
        }
        placed.retain(|(_, view)| view.dim(dim) > 0);
        placed.sort_by_key(|(start, _)| *start);
        // The plan contains `total` rows, so their sum does not wrap. A part may have more rows than the plan says.
        let rows: usize = placed.iter().map(|(_, v)| v.dim(dim)).sum();
        if rows != total {
            return Err(wrong());
        }
        match placed.is_empty() {
            true => Ok(parts[0].clone()),
            false => Ok(Tensor::cat(
                &placed.iter().map(|(_, v)| *v).collect::<Vec<_>>(),
                dim,
            )?),
        }
    }

    /// Checks that `segments` are this rank's rows of the plan. Returns the number and the total rows of each stream.
    pub(crate) fn streams(
        &self,
        op: &'static str,
        segments: &[Segment],
        local: impl Fn(usize) -> Vec<Shard>,
    ) -> Result<Vec<(usize, usize)>> {
        let per_stream = self.runs_per_stream();
        let wrong = || {
            Error::shape(
                op,
                format!(
                    "the segments of this rank for ring {} × Ulysses {}, {per_stream} of each stream",
                    self.ring, self.ulysses
                ),
                segments,
            )
        };
        if segments.is_empty() || !segments.len().is_multiple_of(per_stream) {
            return Err(wrong());
        }
        let mut streams = Vec::new();
        for stream in segments.chunks(per_stream) {
            let Segment {
                stream: id, total, ..
            } = stream[0];
            let fits = local(total).iter().zip(stream).all(|(run, s)| {
                run.len == s.len
                    && (run.start == s.start || run.len == 0)
                    && (s.stream, s.total) == (id, total)
            });
            if !fits {
                return Err(wrong());
            }
            streams.push((id, total));
        }
        // Offsets in the joined rows are sums of the totals.
        let all = streams
            .iter()
            .try_fold(0usize, |n, (_, total)| n.checked_add(*total));
        all.map(|_| streams).ok_or_else(wrong)
    }

    /// Returns the number of query-key pairs that each ring rank computes for one causal stream of `total` rows, at most `u64::MAX`.
    pub fn causal_work(&self, total: usize) -> Vec<u64> {
        (0..self.ring)
            .map(|rank| {
                let chunks = self.chunks(total, rank).into_iter();
                // Σ (row + 1) over each run of rows.
                let work = chunks.map(|c| {
                    let (start, len) = (c.start as u128, c.len as u128);
                    len.saturating_mul(2 * start + len + 1) / 2
                });
                work.fold(0, u128::saturating_add)
                    .try_into()
                    .unwrap_or(u64::MAX)
            })
            .collect()
    }
}

/// Checks what the wrappers ask of dims before they look at one.
pub(crate) fn expect_heads(op: &'static str, input: &AttnInput<'_>) -> Result<()> {
    for x in [&input.q, &input.k, &input.v] {
        if x.ndim() != 4 || x.dim(3) == 0 {
            return Err(Error::shape(op, "q, k and v [b, l, h, d], d at least 1", x));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xdit_kernels::Device;

    /// Small ones, and those that wrap when they are doubled or multiplied.
    fn any_size() -> impl Strategy<Value = usize> {
        prop_oneof![
            0usize..100,
            any::<usize>(),
            (0usize..4).prop_map(|n| usize::MAX - n)
        ]
    }

    fn orders() -> impl Strategy<Value = ShardOrder> {
        let blocks = (1usize..40).prop_map(|rows| ShardOrder::Blocks(NonZero::new(rows).unwrap()));
        prop_oneof![
            Just(ShardOrder::Contiguous),
            Just(ShardOrder::Zigzag),
            blocks
        ]
    }

    proptest! {
        #[test]
        fn every_row_is_held_once_and_comes_back(
            total in 0usize..300, ring in 1usize..9, ulysses in 1usize..9, order in orders(),
        ) {
            let plan = SequencePlan { ring, ulysses, order };
            let data: Vec<f32> = (0..total).map(|i| i as f32).collect();
            let whole = Tensor::from_slice(&data, [1, total], &Device::cpu()).unwrap();
            let parts: Vec<Tensor> = (0..ring * ulysses)
                .map(|i| plan.shard(whole.view(), 1, i / ulysses, i % ulysses).unwrap())
                .collect();
            prop_assert_eq!(parts.iter().map(|p| p.dim(1)).sum::<usize>(), total);
            prop_assert_eq!(plan.assemble(&parts, 1, total).unwrap().to_vec_blocking::<f32>().unwrap(), data);
            let longest = parts.iter().map(|p| p.dim(1)).max().unwrap();
            let shortest = parts.iter().map(|p| p.dim(1)).min().unwrap();
            match order {
                // A ring rank's rows are cut again over its Ulysses ranks; nothing differs by more than one row.
                ShardOrder::Contiguous => prop_assert!(longest - shortest <= 1, "{longest} and {shortest} rows"),
                ShardOrder::Blocks(rows) => {
                    let rows = rows.get();
                    prop_assert!(longest.div_ceil(rows) - shortest.div_ceil(rows) <= 1, "{longest} and {shortest} rows");
                    let ragged: Vec<_> = parts.iter().filter(|p| p.dim(1) % rows != 0).collect();
                    prop_assert!(ragged.len() <= usize::from(total % rows != 0), "only the last block is cut");
                }
                ShardOrder::Zigzag => {}
            }
        }

        #[test]
        fn no_total_and_no_degree_wraps(
            total in any_size(), ring in any_size(), ulysses in any_size(), rows in any_size(), at in any::<[usize; 2]>(),
        ) {
            let (ring, ulysses) = (ring.max(1), ulysses.max(1));
            let (r, u) = (at[0] % ring, at[1] % ulysses);
            let blocks = ShardOrder::Blocks(NonZero::new(rows.max(1)).unwrap());
            for order in [ShardOrder::Contiguous, ShardOrder::Zigzag, blocks] {
                let plan = SequencePlan { ring, ulysses, order };
                for (run, chunk) in plan.runs(total, r, u).iter().zip(plan.chunks(total, r)) {
                    prop_assert!(chunk.start <= run.start && run.end() <= chunk.end() && chunk.end() <= total);
                }
                let segments = plan.segments(&[total, total], r, u);
                prop_assert_eq!(segments.len(), 2 * plan.runs_per_stream());
                let told = plan.streams("test", &segments, |total| plan.runs(total, r, u));
                prop_assert_eq!(told.is_ok(), total.checked_mul(2).is_some());
                if ring < 100 {
                    prop_assert_eq!(plan.causal_work(total).len(), ring);
                }
                prop_assert!(plan.assemble(&[], 0, total).is_err());
                let one = Tensor::from_slice(&[1f32], [1], &Device::cpu()).unwrap();
                let _ = plan.assemble(&[one.clone(), one], at[0], total);
            }
        }

        #[test]
        fn chunks_are_the_runs_of_all_ulysses_ranks(total in 0usize..300, ring in 1usize..6, ulysses in 1usize..6, order in orders()) {
            let plan = SequencePlan { ring, ulysses, order };
            for r in 0..ring {
                for (i, chunk) in plan.chunks(total, r).iter().enumerate() {
                    let mut next = chunk.start;
                    for u in 0..ulysses {
                        let run = plan.runs(total, r, u)[i];
                        prop_assert_eq!(run.start, next);
                        next = run.end();
                    }
                    prop_assert_eq!(next, chunk.end());
                }
            }
        }
    }

    #[test]
    fn zigzag_balances_causal_work() {
        // The issue's bound: the slowest rank within 1.05 of the mean.
        for ring in 1..=8 {
            let plan = SequencePlan {
                ring,
                ulysses: 1,
                order: ShardOrder::Zigzag,
            };
            let work = plan.causal_work(32_768);
            let mean = work.iter().sum::<u64>() as f64 / ring as f64;
            let slowest = *work.iter().max().unwrap() as f64;
            assert!(
                slowest <= 1.05 * mean,
                "ring {ring}: {slowest} against {mean}"
            );
        }
        let straight = SequencePlan {
            ring: 4,
            ulysses: 1,
            order: ShardOrder::Contiguous,
        }
        .causal_work(32_768);
        assert!(
            straight[3] > 6 * straight[0],
            "without zigzag the last rank does most: {straight:?}"
        );
    }
}
