use crate::SequencePlan;
use std::fmt;
use xdit_comm::{Call, Group, Pending, Shard, Spec};
use xdit_kernels::{
    DType, Error, Result, Tensor, View,
    attention::{Attention, AttnInput, AttnOut, Mask},
    merge::merge,
};

const OP: &str = "ring";

/// Keys and values go round hop by hop while each rank keeps its queries; partial results are merged by their log-sum-exp
/// (Liu et al., "Ring Attention", arXiv:2310.01889).
///
/// The next hop is under way while the current block is computed. Any number of rows a rank, none too. Under a causal mask
/// only the pairs of runs that see each other are computed, which [`ShardOrder::Zigzag`](crate::ShardOrder::Zigzag) balances.
/// Over a group of one it is its inner attention exactly.
///
/// # Collective
/// Every rank of the group calls `attend` with the plan's chunks of the same streams of keys. Queries are the rank's own affair:
/// they may be other rows ([`AttnInput::keys`]).
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
    /// A ring over `group`, which is the ring of the plan.
    ///
    /// # Errors
    /// If the group is not as large as the plan's ring.
    pub fn new(group: Group, plan: SequencePlan, inner: A) -> crate::Result<Self> {
        if group.world_size() != plan.ring {
            return Err(crate::Error::plan(
                OP,
                format!("a group of {} ranks", plan.ring),
                group.world_size(),
            ));
        }
        Ok(Self { group, plan, inner })
    }
}

/// What goes round: keys and values, and the mask of the keys if there is one.
struct KvBlock {
    k: Tensor,
    v: Tensor,
    mask: Option<Tensor>,
}

/// A block on its way here.
struct Arriving {
    pending: Pending,
    masked: bool,
}

impl KvBlock {
    /// Sends this block on and starts to receive the one of the previous rank, which has `rows` rows. All of it is one batch: no
    /// rank's receive may wait behind a send that waits for that rank ([`xdit_comm::Backend`]).
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
                .ok_or_else(|| Error::shape(OP, "a part of a block", "none"))
        };
        Ok(KvBlock {
            k: part()?,
            v: part()?,
            mask: self.masked.then(part).transpose()?,
        })
    }
}

/// A partial result, its output in f32 until all parts are in, so that each part is rounded once.
fn add(sum: Option<AttnOut>, part: AttnOut) -> Result<Option<AttnOut>> {
    let part = AttnOut {
        out: part.out.to_dtype(DType::F32)?,
        lse: part.lse,
    };
    Ok(Some(match sum {
        None => part,
        Some(sum) => merge(&sum, &part)?,
    }))
}

/// Runs of rows in the order they are held: (place in the whole stream, offset here).
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
                "a bias",
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
        // What rank r's block holds, run by run.
        let runs =
            |r: usize| -> Vec<Shard> { totals.iter().flat_map(|&t| plan.chunks(t, r)).collect() };
        let rows = |r: usize| -> usize { runs(r).iter().map(|s| s.len).sum() };
        // Queries stay here: without a causal mask any number of them will do.
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
        // One sum for each run of queries under a causal mask, since they see different keys; else one for all.
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
        let mut sums: Vec<Option<AttnOut>> = vec![None; queries.len()];
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
                    if let Some(part) = self.pair(input, &block, *query, *key)? {
                        *sum = add(sum.take(), part)?;
                    }
                }
            }
            drop(computing);
            if let Some(arriving) = arriving {
                // Short where the hop went on under the block.
                let _waiting = tracing::trace_span!("ring_wait", hop).entered();
                block = arriving.wait()?;
            }
        }
        self.finish(input, sums)
    }

    /// Attention of one run of queries to one run of keys, unless none of its pairs is seen.
    fn pair(
        &mut self,
        input: &AttnInput<'_>,
        block: &KvBlock,
        (query, q_at): (Shard, usize),
        (key, k_at): (Shard, usize),
    ) -> Result<Option<AttnOut>> {
        // Runs come from one cut of the stream: two of them are the same or apart.
        let hidden = input.mask.causal && key.start > query.start;
        if hidden || query.len == 0 || key.len == 0 {
            return Ok(None);
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
        Ok(Some(self.inner.attend(&inner)?))
    }

    /// The runs' sums one after another, in the queries' dtype. Rows that saw no key are 0, their lse −∞.
    fn finish(&self, input: &AttnInput<'_>, sums: Vec<Option<AttnOut>>) -> Result<AttnOut> {
        let parts: Vec<AttnOut> = sums.into_iter().flatten().collect();
        let rows: usize = parts.iter().map(|p| p.out.dim(1)).sum();
        let (b, h) = (input.q.dim(0), input.q.dim(2));
        if rows < input.q.dim(1) {
            // No key at all anywhere: the whole stream is empty of them.
            let nothing = [f32::NEG_INFINITY];
            let shape = [b, h, input.q.dim(1)];
            let lse = View::from_slice_strided(&nothing, shape, [0; 3], input.q.device())?;
            let out = Tensor::zeros(input.q.shape(), input.q.dtype(), input.q.device())?;
            return Ok(AttnOut {
                out,
                lse: lse.to_tensor()?,
            });
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
