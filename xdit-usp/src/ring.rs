use crate::SequencePlan;
use std::fmt;
use xdit_comm::{Call, Group, Pending, Shard, Spec};
use xdit_kernels::{
    DType, Error, Result, Tensor,
    attention::{Attention, AttnInput, AttnOut, AttnSum, Mask},
};

const OP: &str = "ring";

/// Ring attention (Liu et al., "Ring Attention", arXiv:2310.01889). Each rank keeps its queries and passes keys and values to the
/// next rank, hop by hop. It adds up the partial results by their log-sum-exp ([`Attention::accumulate`]), in f32, and rounds
/// the sum once.
///
/// The next hop is in flight while the current block is computed. A rank may have any number of rows, or none. Under a causal mask,
/// the ring computes only pairs of runs that see each other, which [`ShardOrder::Zigzag`](crate::ShardOrder::Zigzag) balances. Over
/// a group of one rank it only calls its inner attention.
///
/// # Collective
/// Every rank of the group calls `attend` with the plan's chunks of the same streams of keys. The queries of a rank may be other
/// rows ([`AttnInput::keys`]).
pub struct Ring<A> {
    group: Group,
    plan: SequencePlan,
    inner: A,
}

impl<A> fmt::Debug for Ring<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring over {} ranks", self.group.world_size())
    }
}

impl<A> Ring<A> {
    /// Creates a ring over `group`, which is the ring of the plan.
    ///
    /// # Errors
    /// If the size of the group is not the ring degree of the plan.
    pub fn new(group: Group, plan: SequencePlan, inner: A) -> crate::Result<Self> {
        if group.world_size() != plan.ring {
            return Err(crate::Error::plan(
                OP,
                format!("a group of {} ranks", plan.ring),
                format_args!("one of {}", group.world_size()),
            ));
        }
        Ok(Self { group, plan, inner })
    }
}

/// The tensors that pass around the ring: keys, values, and the mask of the keys if there is one.
struct KvBlock {
    k: Tensor,
    v: Tensor,
    mask: Option<Tensor>,
}

/// A block that this rank is receiving.
struct Arriving {
    pending: Pending,
    masked: bool,
}

impl KvBlock {
    /// Starts to send this block to the next rank and to receive the block of the previous rank, which has `rows` rows. Both are one
    /// batch, because a receive must not wait for a send that depends on it (see [`xdit_comm::Backend`]).
    fn pass_on(&self, group: &Group, rows: usize) -> Result<Arriving> {
        let n = group.world_size();
        let (next, prev) = ((group.rank() + 1) % n, (group.rank() + n - 1) % n);
        let parts = || {
            [Some(&self.k), Some(&self.v), self.mask.as_ref()]
                .into_iter()
                .flatten()
        };
        let arrives = |t: &Tensor| {
            let mut shape = t.shape().to_vec();
            shape[1] = rows;
            Call::recv(Spec::new(shape.as_slice(), t.dtype()), prev)
        };
        let sends = parts().map(|t| Call::send(t, next));
        let hop = sends.chain(parts().map(arrives)).collect();
        Ok(Arriving {
            pending: group.start(hop)?,
            masked: self.mask.is_some(),
        })
    }
}

impl Arriving {
    fn wait(self) -> Result<KvBlock> {
        let mut parts = self.pending.wait()?.into_iter();
        let mut part = || {
            parts
                .next()
                .ok_or_else(|| Error::shape(OP, "a part of a block", format_args!("none")))
        };
        Ok(KvBlock {
            k: part()?,
            v: part()?,
            mask: self.masked.then(part).transpose()?,
        })
    }
}

/// Returns each run of rows with its offset on this rank, in order.
fn place(runs: &[Shard]) -> Vec<(Shard, usize)> {
    let mut at = 0;
    runs.iter()
        .map(|&run| {
            at += run.len;
            (run, at - run.len)
        })
        .collect()
}

impl<A: Attention> Ring<A> {
    fn rotate(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
        crate::plan::expect_heads(OP, input)?;
        let (n, me) = (self.group.world_size(), self.group.rank());
        let plan = self.plan;
        if input.mask.bias.is_some() {
            return Err(Error::shape(
                OP,
                "no additive bias: it is not sharded",
                format_args!("a bias"),
            ));
        }
        let chunks = |total| plan.chunks(total, me);
        let of_keys = match input.keys {
            [] => input.segments,
            keys => keys,
        };
        let totals: Vec<usize> = plan
            .streams(OP, of_keys, chunks)?
            .into_iter()
            .map(|(_, total)| total)
            .collect();
        if input.mask.causal && (totals.len() != 1 || of_keys != input.segments) {
            return Err(Error::shape(
                OP,
                "one stream, of queries and keys alike, under a causal mask",
                (input.segments, of_keys),
            ));
        }
        // The runs of rank r's block.
        let runs =
            |r: usize| -> Vec<Shard> { totals.iter().flat_map(|&t| plan.chunks(t, r)).collect() };
        let rows = |r: usize| -> usize { runs(r).iter().map(|s| s.len).sum() };
        // Queries are not sent, so without a causal mask there may be any number of them.
        let queries = match of_keys == input.segments {
            true => rows(me),
            false => (input.segments.iter()).fold(0, |n: usize, s| n.saturating_add(s.len)),
        };
        if input.q.dim(1) != queries || input.k.dim(1) != rows(me) {
            return Err(Error::shape(
                OP,
                format!("q of {queries} rows, k and v of {}", rows(me)),
                (input.q, input.k),
            ));
        }
        let mask = match input.mask.key_mask {
            None => None,
            Some(mask) => Some(mask.to_tensor()?),
        };
        let mut block = KvBlock {
            k: input.k.to_tensor()?,
            v: input.v.to_tensor()?,
            mask,
        };
        // Under a causal mask, runs of queries see different keys, so each run has its own sum. Otherwise there is one sum.
        let queries = match input.mask.causal {
            true => place(&runs(me)),
            false => vec![(
                Shard {
                    start: 0,
                    len: input.q.dim(1),
                },
                0,
            )],
        };
        let mut sums: Vec<Option<AttnSum>> = queries.iter().map(|_| None).collect();
        for hop in 0..n {
            let holder = (me + n - hop) % n;
            let arriving = match hop + 1 < n {
                true => Some(block.pass_on(&self.group, rows((me + 2 * n - hop - 1) % n))?),
                false => None,
            };
            let keys = match input.mask.causal {
                true => place(&runs(holder)),
                false => vec![(
                    Shard {
                        start: 0,
                        len: rows(holder),
                    },
                    0,
                )],
            };
            let computing = tracing::trace_span!("ring_block", hop).entered();
            for (sum, query) in sums.iter_mut().zip(&queries) {
                for key in &keys {
                    *sum = self.pair(input, &block, *query, *key, sum.take())?;
                }
            }
            drop(computing);
            if let Some(arriving) = arriving {
                // The wait is short if the hop overlapped with the computation.
                let _waiting = tracing::trace_span!("ring_wait", hop).entered();
                block = arriving.wait()?;
            }
        }
        self.finish(input, sums)
    }

    /// Adds the attention of one run of queries to one run of keys, unless the mask hides all pairs.
    fn pair(
        &mut self,
        input: &AttnInput<'_>,
        block: &KvBlock,
        (query, q_at): (Shard, usize),
        (key, k_at): (Shard, usize),
        sum: Option<AttnSum>,
    ) -> Result<Option<AttnSum>> {
        // Runs come from one division of the stream, so two runs are equal or disjoint.
        let hidden = input.mask.causal && key.start > query.start;
        if hidden || query.len == 0 || key.len == 0 {
            return Ok(sum);
        }
        let mask = match &block.mask {
            None => None,
            Some(mask) => Some(mask.view().narrow(1, k_at, key.len)?),
        };
        let mask = Mask::default()
            .with_causal(input.mask.causal && key.start == query.start)
            .with_key_mask(mask);
        let inner = AttnInput::new(
            input.q.narrow(1, q_at, query.len)?,
            block.k.view().narrow(1, k_at, key.len)?,
            block.v.view().narrow(1, k_at, key.len)?,
        )
        .with_scale(input.scale)
        .with_mask(mask);
        self.inner.accumulate(&inner, sum).map(Some)
    }

    /// Joins the sums of the runs, in the dtype of the queries. For rows that see no key, the output is 0 and the lse is −∞.
    fn finish(&self, input: &AttnInput<'_>, sums: Vec<Option<AttnSum>>) -> Result<AttnOut> {
        let sums = sums.into_iter().flatten();
        let parts: Vec<AttnOut> = sums.map(AttnSum::freeze).collect();
        let rows: usize = parts.iter().map(|p| p.out.dim(1)).sum();
        let (b, h) = (input.q.dim(0), input.q.dim(2));
        if rows < input.q.dim(1) {
            // No rank has any key.
            let (lq, device) = (input.q.dim(1), input.q.device());
            let nothing = vec![f32::NEG_INFINITY; b * h * lq];
            let lse = Tensor::from_slice(&nothing, [b, h, lq], device)?;
            let out = Tensor::zeros(input.q.shape(), input.q.dtype(), device)?;
            return Ok(AttnOut { out, lse });
        }
        let views =
            |f: fn(&AttnOut) -> &Tensor| parts.iter().map(|p| f(p).view()).collect::<Vec<_>>();
        if parts.is_empty() {
            let lse = Tensor::zeros([b, h, 0], DType::F32, input.q.device())?;
            return Ok(AttnOut {
                out: input.q.to_tensor()?,
                lse,
            });
        }
        if let [only] = &parts[..] {
            return Ok(AttnOut {
                out: only.out.to_dtype(input.q.dtype())?,
                lse: only.lse.clone(),
            });
        }
        let out = Tensor::cat(&views(|p| &p.out), 1)?.to_dtype(input.q.dtype())?;
        Ok(AttnOut {
            out,
            lse: Tensor::cat(&views(|p| &p.lse), 2)?,
        })
    }
}

impl<A: Attention> Attention for Ring<A> {
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
        if self.group.world_size() == 1 {
            return self.inner.attend(input);
        }
        let _span = tracing::trace_span!("ring", ranks = self.group.world_size()).entered();
        self.rotate(input)
    }

    fn progress(&mut self) -> Result<()> {
        self.inner.progress()
    }
}
