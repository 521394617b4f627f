//! The rows that a Ulysses group gathers, and the messages that bring them: which copies make one of the other.

use crate::SequencePlan;
use xdit_comm::Shard;
use xdit_kernels::{DType, Device, Result, Tensor, TensorMut, Unfilled, View, ViewMut, layout};

/// Copies that run together, in one launch on a GPU.
pub(crate) type Copies<'a> = Vec<(View<'a>, ViewMut<'a>)>;

/// The positions of each rank's local rows among the rows of the whole group: stream by stream and run by run, in rank order.
pub(crate) struct GatheredRows {
    /// `runs[rank][run]`: the offset in the gathered rows and the length. Local offsets follow from the order.
    runs: Vec<Vec<Shard>>,
    pub(crate) total: usize,
}

impl GatheredRows {
    pub(crate) fn new(plan: &SequencePlan, streams: &[(usize, usize)], ring_rank: usize) -> Self {
        let mut runs = vec![Vec::new(); plan.ulysses];
        let mut at = 0;
        for &(_, total) in streams {
            let of_rank: Vec<Vec<Shard>> = (0..plan.ulysses)
                .map(|u| plan.runs(total, ring_rank, u))
                .collect();
            for run in 0..plan.runs_per_stream() {
                for (rank, shards) in of_rank.iter().enumerate() {
                    runs[rank].push(Shard {
                        start: at,
                        len: shards[run].len,
                    });
                    at += shards[run].len;
                }
            }
        }
        Self { runs, total: at }
    }

    pub(crate) fn local(&self, rank: usize) -> usize {
        self.runs[rank].iter().map(|r| r.len).sum()
    }

    /// The runs of a rank: the first local row of each, and its place among the gathered rows.
    fn placed(&self, rank: usize) -> impl Iterator<Item = (usize, Shard)> {
        let mut at = 0;
        self.runs[rank].iter().map(move |&run| {
            at += run.len;
            (at - run.len, run)
        })
    }

    /// Copies the local rows of some ranks to their positions in `whole` [b, rows, ..].
    pub(crate) fn place<'a>(
        &self,
        locals: &[(usize, View<'a>)],
        whole: &'a mut Unfilled,
        copies: &mut Copies<'a>,
    ) -> Result<()> {
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        for &(rank, local) in locals {
            for (at, run) in self.placed(rank) {
                rows.push(local.narrow(1, at, run.len)?);
                places.push([(1, run.start, run.len)]);
            }
        }
        copies.extend(rows.into_iter().zip(whole.parts(places)?));
        Ok(())
    }

    /// Copies the rows of `rank` among those of the group to `local` [b, rows of the rank, ..], of which they take the entries
    /// `within`.
    pub(crate) fn pick<'a>(
        &self,
        rank: usize,
        whole: View<'a>,
        within: (usize, usize, usize),
        local: &'a mut Unfilled,
        copies: &mut Copies<'a>,
    ) -> Result<()> {
        let places = self
            .placed(rank)
            .map(|(at, run)| [within, (1, at, run.len)]);
        let places = local.parts(places)?;
        for ((_, run), place) in self.placed(rank).zip(places) {
            copies.push((whole.narrow(1, run.start, run.len)?, place));
        }
        Ok(())
    }
}

/// Writes the pieces of each message one after another into a flat tensor.
pub(crate) fn pack(
    messages: &[Vec<View<'_>>],
    dtype: DType,
    device: &Device,
) -> Result<Vec<Tensor>> {
    let flat = |pieces: &Vec<View<'_>>| {
        let len = pieces.iter().map(View::numel).sum::<usize>();
        TensorMut::unfilled([len], dtype, device)
    };
    let mut packed: Vec<Unfilled> = messages.iter().map(flat).collect::<Result<_>>()?;
    let mut copies = Vec::new();
    for (pieces, message) in messages.iter().zip(&mut packed) {
        let mut at = 0;
        let places = message.parts(pieces.iter().map(|piece| {
            at += piece.numel();
            [(0, at - piece.numel(), piece.numel())]
        }))?;
        for (piece, place) in pieces.iter().zip(places) {
            copies.push((*piece, place.reshape(piece.shape())?));
        }
    }
    layout::copy_each(copies)?;
    packed.into_iter().map(Unfilled::freeze).collect()
}

/// The pieces of these shapes, of which a message consists.
pub(crate) fn pieces<'a, const N: usize>(
    message: &'a Tensor,
    shapes: [[usize; 4]; N],
) -> Result<[View<'a>; N]> {
    let mut pieces = [message.view(); N];
    let mut at = 0;
    for (piece, shape) in pieces.iter_mut().zip(shapes) {
        let len = shape.iter().product();
        *piece = message.view().narrow(0, at, len)?.reshape(shape)?;
        at += len;
    }
    Ok(pieces)
}
