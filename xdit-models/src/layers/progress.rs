//! Reports the progress of a rank to the others after each operation, and divides large operations into pieces. The same calls
//! end the work of a call that is cancelled.
//!
//! A rank is lost if it finishes nothing for the deadline. The longest operation without a report must therefore be short: one
//! call of a kernel. Operations that grow with the image (attention, linear layers, convolutions) run in pieces of [`PIECE`]
//! FLOPs per thread. A row does not depend on the other rows, so pieces change no byte.
//!
//! On a GPU, a call returns before its kernel has run, so calls are whole. A rank that reads a result waits for all kernels before
//! it. It waits for them group by group ([`Progress::settle`]) and reports each group, so that a slow GPU does not look like a rank
//! that is lost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use xdit_comm::Group;
use xdit_kernels::attention::{
    Attention, AttnInput, AttnOut, AttnSum, Flash, flash_accumulate_into, flash_into,
};
use xdit_kernels::linear::{Epilogue, Linear};
use xdit_kernels::{DType, Device, Event, Tensor, TensorMut, View, conv2d::Conv2d};

use crate::cancel::CancelToken;
use crate::error::{Error, Result};

/// FLOPs of a piece for each compute thread: about a tenth of a second of a core with AVX2.
const PIECE: usize = 1 << 32;

/// The fewest rows of a piece. With fewer, packing keys or reading weights again would take noticeable time.
const LEAST_ROWS: usize = 512;

/// The same for a convolution, whose rows are long. A multiple of the rows of a Winograd tile.
const LEAST_LINES: usize = 16;

/// So many reports of a rank on a GPU are followed by an event, for which [`Progress::settle`] waits.
const REPORTS: usize = 16;

/// The most events that a rank keeps. A rank that never settles waits for the oldest of them.
const MOST_EVENTS: usize = 256;

/// Reports the progress of a rank to its group, if it has one, and ends the work of a rank whose call is cancelled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    group: Option<Group>,
    /// The GPU on which the rank computes, if it does.
    gpu: Option<Device>,
    cancel: CancelToken,
    queued: Arc<Mutex<QueuedWork>>,
}

/// What the GPU of a rank was given.
#[derive(Debug, Default)]
struct QueuedWork {
    /// Reports since the last event.
    reports: usize,
    /// Happen in this order, when the GPU has done what it was given before.
    events: VecDeque<Event>,
}

impl Progress {
    /// Reports to the ranks of this group, of which this one computes on `device`.
    pub(crate) fn new(group: Option<&Group>, device: &Device, cancel: &CancelToken) -> Self {
        Self {
            group: group.cloned(),
            gpu: group.and(Some(device)).filter(|it| !it.is_cpu()).cloned(),
            cancel: cancel.clone(),
            queued: Arc::default(),
        }
    }

    /// Reports that an operation is finished, or that a GPU was given it. An error if the call is cancelled or another rank has
    /// failed.
    pub(crate) fn note(&self) -> Result<()> {
        self.report()?;
        let Some(gpu) = &self.gpu else {
            return Ok(());
        };
        let oldest = {
            let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
            queued.reports += 1;
            if queued.reports < REPORTS {
                return Ok(());
            }
            queued.reports = 0;
            queued.events.push_back(gpu.record());
            match queued.events.len() > MOST_EVENTS {
                true => queued.events.pop_front(),
                false => None,
            }
        };
        Ok(oldest.map_or(Ok(()), |event| event.wait_blocking())?)
    }

    /// Waits until a GPU has done all but the last [`REPORTS`] operations that it was given, and reports while it works. A rank
    /// calls it before it reads a result. Does nothing on the processor.
    ///
    /// # Errors
    /// As [`note`](Self::note); an error of the GPU.
    pub(crate) fn settle(&self) -> Result<()> {
        loop {
            let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(event) = queued.events.pop_front() else {
                return Ok(());
            };
            drop(queued);
            event.wait_blocking()?;
            self.report()?;
        }
    }

    fn report(&self) -> Result<()> {
        self.cancel.check()?;
        Ok(self.group.as_ref().map_or(Ok(()), Group::progress)?)
    }
}

/// [`Flash`], the innermost attention of a rank. With a group, it runs in pieces of query rows that report progress.
#[derive(Debug, Default)]
pub(crate) struct Told(pub(crate) Progress);

impl Attention for Told {
    fn attend(&mut self, input: &AttnInput<'_>) -> xdit_kernels::Result<AttnOut> {
        self.attend_in_pieces(input, PIECE, LEAST_ROWS)
    }

    fn accumulate(
        &mut self,
        input: &AttnInput<'_>,
        sum: Option<AttnSum>,
    ) -> xdit_kernels::Result<AttnSum> {
        self.accumulate_in_pieces(input, sum, PIECE, LEAST_ROWS)
    }

    fn progress(&mut self) -> xdit_kernels::Result<()> {
        // `?` of the models' code brings the error back as it is.
        self.0.note().map_err(|error| match error {
            Error::Kernel(error) => error,
            error => xdit_kernels::Error::Other(Box::new(error)),
        })
    }
}

impl Told {
    fn attend_in_pieces(
        &mut self,
        input: &AttnInput<'_>,
        piece: usize,
        least: usize,
    ) -> xdit_kernels::Result<AttnOut> {
        // Reports the operations before this one.
        self.progress()?;
        let out = match self.rows_of_pieces(input, piece, least) {
            None => Flash.attend(input)?,
            Some(rows) => self.begin(input, input.q.dtype(), rows)?.freeze(),
        };
        self.progress()?;
        Ok(out)
    }

    fn accumulate_in_pieces(
        &mut self,
        input: &AttnInput<'_>,
        sum: Option<AttnSum>,
        piece: usize,
        least: usize,
    ) -> xdit_kernels::Result<AttnSum> {
        self.progress()?;
        let sum = match (self.rows_of_pieces(input, piece, least), sum) {
            (None, sum) => Flash.accumulate(input, sum)?,
            (Some(rows), None) => self.begin(input, DType::F32, rows)?,
            (Some(rows), Some(mut sum)) => {
                for (start, piece) in pieces(input, rows)? {
                    let len = piece.q.dim(1);
                    let out = sum.out.view_mut().narrow(1, start, len)?;
                    let lse = sum.lse.view_mut().narrow(2, start, len)?;
                    flash_accumulate_into(&piece, out, lse)?;
                    self.progress()?;
                }
                sum
            }
        };
        self.progress()?;
        Ok(sum)
    }

    /// The query rows of a piece, or `None` if the call is one piece.
    fn rows_of_pieces(&self, input: &AttnInput<'_>, piece: usize, least: usize) -> Option<usize> {
        let whole = input.mask.causal || input.mask.bias.is_some() || self.0.group.is_none();
        let &[b, lq, h, d] = input.q.shape() else {
            return None;
        };
        let flops = [4, b, input.k.dim(1), h, d];
        let rows = rows_here(input.q.device(), &flops, piece, least);
        Some(rows).filter(|&rows| !whole && lq > rows)
    }

    /// Attention in pieces of so many rows, into an output of `dtype`.
    fn begin(
        &mut self,
        input: &AttnInput<'_>,
        dtype: DType,
        rows: usize,
    ) -> xdit_kernels::Result<AttnSum> {
        let (q, device) = (&input.q, input.q.device());
        let mut out = TensorMut::unfilled(q.shape(), dtype, device)?;
        let mut lse = TensorMut::unfilled([q.dim(0), q.dim(2), q.dim(1)], DType::F32, device)?;
        for (start, piece) in pieces(input, rows)? {
            let len = piece.q.dim(1);
            let out = out.part(&[(1, start, len)])?;
            flash_into(&piece, out, lse.part(&[(2, start, len)])?)?;
            self.progress()?;
        }
        Ok(AttnSum {
            out: out.filled()?,
            lse: lse.filled()?,
        })
    }
}

/// The pieces of a call, each with its first row.
fn pieces<'a>(
    input: &AttnInput<'a>,
    rows: usize,
) -> xdit_kernels::Result<Vec<(usize, AttnInput<'a>)>> {
    let lq = input.q.dim(1);
    (0..lq)
        .step_by(rows)
        .map(|start| {
            let mut piece = *input;
            piece.q = input.q.narrow(1, start, rows.min(lq - start))?;
            Ok((start, piece))
        })
        .collect()
}

/// Computes a linear layer inside a block in pieces, and reports each through the block's attention.
///
/// # Shapes
/// x `[b, l, k₁]`, …, to `[b, l, n]`, and so the epilogue's.
pub(crate) fn linear(
    layer: &Linear,
    x: &[View<'_>],
    epilogue: Epilogue<'_>,
    attention: &mut dyn Attention,
) -> Result<Tensor> {
    linear_in_pieces(layer, x, epilogue, attention, PIECE, LEAST_ROWS)
}

fn linear_in_pieces(
    layer: &Linear,
    x: &[View<'_>],
    epilogue: Epilogue<'_>,
    attention: &mut dyn Attention,
    piece: usize,
    least: usize,
) -> Result<Tensor> {
    let (k, n) = (layer.in_features(), layer.out_features());
    let (b, l) = match x.first().map(View::shape) {
        Some(&[b, l, _]) => (b, l),
        _ => (1, 0),
    };
    let rows = rows_here(layer.device(), &[2, b, k, n], piece, least);
    if l <= rows {
        let out = layer.forward_with(x, epilogue)?;
        attention.progress()?;
        return Ok(out);
    }
    let mut out = TensorMut::unfilled([b, l, n], x[0].dtype(), x[0].device())?;
    for start in (0..l).step_by(rows) {
        let len = rows.min(l - start);
        let x: Vec<View<'_>> = x
            .iter()
            .map(|x| x.narrow(1, start, len))
            .collect::<Result<_, _>>()?;
        let epilogue = match epilogue {
            Epilogue::Residual(residual) => Epilogue::Residual(residual.narrow(1, start, len)?),
            Epilogue::GateResidual { gate, residual } => Epilogue::GateResidual {
                gate,
                residual: residual.narrow(1, start, len)?,
            },
            Epilogue::Mul(factor) => Epilogue::Mul(factor.narrow(1, start, len)?),
            rowless => rowless,
        };
        layer.forward_into(&x, epilogue, out.part(&[(1, start, len)])?)?;
        attention.progress()?;
    }
    Ok(out.freeze()?)
}

/// Computes the lines `lines` of a convolution in pieces, and calls `told` after each.
pub(crate) fn convolution(
    conv: &Conv2d,
    x_bhwc: &Tensor,
    residual: Option<View<'_>>,
    lines: std::ops::Range<usize>,
    width: usize,
    told: &dyn Fn() -> Result<()>,
) -> Result<Tensor> {
    let (b, oc) = (x_bhwc.dim(0), conv.out_channels());
    // Nine taps or one. With one, pieces are smaller than necessary.
    let flops = [2 * 9, b, width, conv.in_channels(), oc];
    let rows = rows_here(x_bhwc.device(), &flops, PIECE, LEAST_LINES) / LEAST_LINES * LEAST_LINES;
    if lines.len() <= rows {
        let out = conv.forward_rows(x_bhwc, residual, lines)?;
        told()?;
        return Ok(out);
    }
    let shape = [b, lines.len(), width, oc];
    let mut out = TensorMut::unfilled(shape, x_bhwc.dtype(), x_bhwc.device())?;
    for start in (0..lines.len()).step_by(rows) {
        let len = rows.min(lines.len() - start);
        let residual = residual.map(|r| r.narrow(1, start, len)).transpose()?;
        let piece = lines.start + start..lines.start + start + len;
        let out = out.part(&[(1, start, len)])?;
        conv.forward_rows_into(x_bhwc, residual, piece, out)?;
        told()?;
    }
    Ok(out.freeze()?)
}

/// Returns the number of rows of a piece, if one row takes the product of these FLOPs and each thread takes `piece`. On a GPU, all.
fn rows_here(device: &Device, flops: &[usize], piece: usize, least: usize) -> usize {
    if !device.is_cpu() {
        return usize::MAX;
    }
    let all_threads = piece.saturating_mul(rayon::current_num_threads());
    let a_row = flops
        .iter()
        .fold(1_usize, |product, n| product.saturating_mul(*n));
    (all_threads / a_row.max(1)).max(least)
}

#[cfg(test)]
mod tests;
