use crate::{
    SequencePlan,
    gathered::{GatheredRows, pack, pieces},
    heads::Heads,
};
use std::fmt;
use xdit_comm::{Group, Op, Spec};
use xdit_kernels::{
    DType, Error, Result, Tensor, TensorMut, Unfilled, View,
    attention::{Attention, AttnInput, AttnOut, Mask, Segment},
    layout,
};

const OP: &str = "ulysses";

/// Ulysses attention (Jacobs et al., "DeepSpeed Ulysses", arXiv:2309.14509). Each rank holds all heads of some tokens. The ranks
/// exchange them, so that each rank computes some heads over all tokens of the group. Then they exchange the outputs back.
///
/// A rank may have any number of tokens, or none. There may be any number of heads, grouped or not, and fewer heads than ranks.
/// Queries, keys and values travel in one all-to-all, and the outputs in another. The log-sum-exp travels in a third one, only if
/// the caller reads it. Over a group of one rank it only calls its inner attention.
///
/// # Collective
/// Every rank of the group calls `attend` with the plan's segments of the same streams.
pub struct Ulysses<A> {
    group: Group,
    plan: SequencePlan,
    ring_rank: usize,
    inner: A,
}

impl<A> fmt::Debug for Ulysses<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ulysses over {} ranks", self.group.world_size())
    }
}

impl<A> Ulysses<A> {
    /// Creates Ulysses attention over `group`, whose ranks have the ring rank `ring_rank` in the plan.
    ///
    /// # Errors
    /// If the size of the group is not the Ulysses degree of the plan, or `ring_rank` is not below its ring degree.
    pub fn new(
        group: Group,
        plan: SequencePlan,
        ring_rank: usize,
        inner: A,
    ) -> crate::Result<Self> {
        if group.world_size() != plan.ulysses || ring_rank >= plan.ring {
            return Err(crate::Error::plan(
                OP,
                format!(
                    "a group of {} ranks and a ring rank below {}",
                    plan.ulysses, plan.ring
                ),
                format_args!("{} ranks and ring rank {ring_rank}", group.world_size()),
            ));
        }
        Ok(Self {
            group,
            plan,
            ring_rank,
            inner,
        })
    }
}

fn bytes(view: View<'_>) -> usize {
    view.numel() * view.dtype().size()
}

/// Repeats key/value heads [b, l, kv, d], so that there is one for each query head.
fn repeat_heads(x: &Tensor, reads: &[usize]) -> Result<Tensor> {
    let heads = reads
        .iter()
        .map(|&h| x.view().narrow(2, h, 1))
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&heads, 2)
}

impl<A: Attention> Ulysses<A> {
    fn exchange(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
        crate::plan::expect_heads(OP, input)?;
        let (ranks, me) = (self.group.world_size(), self.group.rank());
        let (plan, ring_rank) = (self.plan, self.ring_rank);
        if input.mask.bias.is_some() {
            return Err(Error::shape(
                OP,
                "no additive bias: it is not sharded",
                format_args!("a bias"),
            ));
        }
        if !input.keys.is_empty() && input.keys != input.segments {
            return Err(Error::shape(OP, "keys of the queries' rows", input.keys));
        }
        let streams = plan.streams(OP, input.segments, |total| plan.runs(total, ring_rank, me))?;
        let rows = GatheredRows::new(&plan, &streams, ring_rank);
        let (b, l, h, d) = (
            input.q.dim(0),
            input.q.dim(1),
            input.q.dim(2),
            input.q.dim(3),
        );
        let h_kv = input.k.dim(2);
        if l != rows.local(me) || input.k.dim(1) != l || h_kv == 0 || !h.is_multiple_of(h_kv) {
            return Err(Error::shape(
                OP,
                format!(
                    "q, k and v of {} local rows, with heads that are whole groups",
                    rows.local(me)
                ),
                (input.q, input.k),
            ));
        }
        let (dtype, device) = (input.q.dtype(), input.q.device());
        let heads: Vec<Heads> = (0..ranks).map(|r| Heads::of(h, h_kv, ranks, r)).collect();
        let mine = heads[me];

        // A key mask travels with the keys, as ones and zeros of the dtype of the keys.
        let mask = match input.mask.key_mask {
            None => None,
            Some(mask) => Some(layout::cast(mask, dtype)?.reshape([b, l, 1, 1])?),
        };
        let mask_heads = usize::from(mask.is_some());
        let share = |to: &Heads| -> Result<Vec<View<'_>>> {
            let mut share = vec![
                input.q.narrow(2, to.q.start, to.q.len)?,
                input.k.narrow(2, to.kv.start, to.kv.len)?,
                input.v.narrow(2, to.kv.start, to.kv.len)?,
            ];
            share.extend(mask.as_ref().map(Tensor::view));
            Ok(share)
        };
        let messages = (heads.iter().enumerate())
            .map(|(rank, to)| match rank == me {
                // The rank's own share is placed without a message.
                true => Ok(Vec::new()),
                false => share(to),
            })
            .collect::<Result<Vec<_>>>()?;
        let messages = pack(&messages, dtype, device)?;
        self.copied(messages.iter().map(Tensor::view));
        let row = (mine.q.len + 2 * mine.kv.len) * d + mask_heads;
        let expected: Vec<Spec> = (0..ranks)
            .map(|r| match r == me {
                true => 0,
                false => b.saturating_mul(rows.local(r)).saturating_mul(row),
            })
            .map(|len| Spec::new([len], dtype))
            .collect();
        let travelling = self.group.start_all_to_all(messages, &expected)?;

        // The rank places its own share while the messages travel.
        let new =
            |heads: usize, d: usize| TensorMut::unfilled([b, rows.total, heads, d], dtype, device);
        let mut whole = [
            new(mine.q.len, d)?,
            new(mine.kv.len, d)?,
            new(mine.kv.len, d)?,
            new(mask_heads, 1)?,
        ];
        let mut copies = Vec::new();
        for (part, piece) in whole.iter_mut().zip(share(&mine)?) {
            rows.place(&[(me, piece)], part, &mut copies)?;
        }
        layout::copy_each(copies)?;
        let received = travelling.wait()?;
        let others = received.iter().enumerate().filter(|(rank, _)| *rank != me);
        let others = others.map(|(rank, message)| {
            let shape = |heads, d| [b, rows.local(rank), heads, d];
            let kv = shape(mine.kv.len, d);
            let shapes = [shape(mine.q.len, d), kv, kv, shape(mask_heads, 1)];
            Ok((rank, pieces(message, shapes)?))
        });
        let others = others.collect::<Result<Vec<_>>>()?;
        let mut copies = Vec::new();
        for (i, part) in whole.iter_mut().enumerate() {
            let locals: Vec<_> = { others.iter() }.map(|(rank, of)| (*rank, of[i])).collect();
            rows.place(&locals, part, &mut copies)?;
        }
        layout::copy_each(copies)?;
        drop(received);
        let [q, k, v, mask] = whole.map(Unfilled::freeze);
        let (q, k, v, mask) = (q?, k?, v?, mask?);
        self.copied([&q, &k, &v, &mask].map(Tensor::view));
        let (k, v) = match mine.repeats() {
            None => (k, v),
            Some(reads) => {
                let repeated = (repeat_heads(&k, &reads)?, repeat_heads(&v, &reads)?);
                self.copied([repeated.0.view(), repeated.1.view()]);
                repeated
            }
        };
        let seen = match mask_heads {
            0 => None,
            _ => Some(mask.to_dtype(DType::U8)?),
        };
        let seen = match &seen {
            None => None,
            Some(seen) => Some(seen.view().reshape([b, rows.total])?),
        };
        let segments = self.chunk_segments(&streams);
        let mask = Mask::default()
            .with_causal(input.mask.causal)
            .with_key_mask(seen);
        let inner_input = AttnInput::new(&q, &k, &v)
            .with_segments(&segments)
            .with_scale(input.scale)
            .with_mask(mask)
            .with_lse(input.lse);
        // If a rank has no heads, no rank of its ring has any, so there is nothing to compute.
        let part = match mine.q.len {
            0 => None,
            _ => Some(self.inner.attend(&inner_input)?),
        };
        let empty = Tensor::zeros([b, rows.total, 0, d], dtype, device)?;
        let out = self.send_back(
            part.as_ref().map_or(&empty, |p| &p.out),
            &rows,
            &heads,
            [b, l, h, d],
        )?;
        let lse = if input.lse {
            let empty = Tensor::zeros([b, 0, rows.total], DType::F32, device)?;
            let lse = part.as_ref().map_or(&empty, |p| &p.lse);
            let lse_blh1 = layout::contiguous(lse.view().transpose(1, 2)?)?
                .reshape([b, rows.total, mine.q.len, 1])?;
            self.copied([lse_blh1.view()]);
            let back = self.send_back(&lse_blh1, &rows, &heads, [b, l, h, 1])?;
            let lse = layout::contiguous(back.view().select(3, 0)?.transpose(1, 2)?)?;
            self.copied([lse.view()]);
            lse
        } else {
            Tensor::zeros([b, h, 0], DType::F32, device)?
        };
        Ok(AttnOut { out, lse })
    }

    /// [b, rows of the group, my heads, d] → [b, my rows, all heads, d].
    fn send_back(
        &self,
        x: &Tensor,
        rows: &GatheredRows,
        heads: &[Heads],
        shape: [usize; 4],
    ) -> Result<Tensor> {
        let ([b, l, h, d], me) = (shape, self.group.rank());
        let (dtype, device) = (x.dtype(), x.device());
        let mine = heads[me].q.len;
        let message = |r: usize| match r == me {
            true => TensorMut::unfilled([0], dtype, device),
            false => TensorMut::unfilled([b, rows.local(r), mine, d], dtype, device),
        };
        let mut messages = { 0..heads.len() }
            .map(message)
            .collect::<Result<Vec<_>>>()?;
        let mut copies = Vec::new();
        for (rank, message) in messages.iter_mut().enumerate().filter(|(r, _)| *r != me) {
            rows.pick(rank, x.view(), (2, 0, mine), message, &mut copies)?;
        }
        layout::copy_each(copies)?;
        let messages = messages.into_iter().map(Unfilled::freeze);
        let messages = messages.collect::<Result<Vec<_>>>()?;
        self.copied(messages.iter().map(Tensor::view));
        let expected: Vec<Spec> = (heads.iter().enumerate())
            .map(|(r, from)| match r == me {
                true => Spec::new([0], dtype),
                false => Spec::new([b, l, from.q.len, d], dtype),
            })
            .collect();
        let travelling = self.group.start_all_to_all(messages, &expected)?;
        let mut whole = TensorMut::unfilled([b, l, h, d], dtype, device)?;
        let own = (2, heads[me].q.start, mine);
        let mut copies = Vec::new();
        rows.pick(me, x.view(), own, &mut whole, &mut copies)?;
        layout::copy_each(copies)?;
        let received = travelling.wait()?;
        let others = received.iter().zip(heads).enumerate();
        let (messages, places): (Vec<_>, Vec<_>) = others
            .filter(|(rank, _)| *rank != me)
            .map(|(_, (message, from))| (message.view(), [(2, from.q.start, from.q.len)]))
            .unzip();
        layout::copy_each(messages.into_iter().zip(whole.parts(places)?).collect())?;
        let whole = whole.freeze()?;
        self.copied([whole.view()]);
        Ok(whole)
    }

    /// Counts what was copied to fill these.
    fn copied<'a>(&self, filled: impl IntoIterator<Item = View<'a>>) {
        let total = filled.into_iter().map(bytes).sum();
        self.group.count_copied(Op::AllToAll, total);
    }

    /// What the gathered rows are: this ring rank's chunks of each stream.
    fn chunk_segments(&self, streams: &[(usize, usize)]) -> Vec<Segment> {
        streams
            .iter()
            .flat_map(|&(stream, total)| {
                let chunks = self.plan.chunks(total, self.ring_rank);
                chunks.into_iter().map(move |c| Segment {
                    stream,
                    start: c.start,
                    len: c.len,
                    total,
                })
            })
            .collect()
    }
}

impl<A: Attention> Attention for Ulysses<A> {
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
        if self.group.world_size() == 1 {
            return self.inner.attend(input);
        }
        let _span = tracing::trace_span!("ulysses", ranks = self.group.world_size()).entered();
        self.exchange(input)
    }

    fn progress(&mut self) -> Result<()> {
        self.inner.progress()
    }
}
