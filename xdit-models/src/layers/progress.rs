//! Reports the progress of a rank to the others after each operation, and divides large operations into pieces. The same calls
//! end the work of a call that is cancelled.
//!
//! A rank is lost if it finishes nothing for the deadline. The longest operation without a report must therefore be short: one
//! call of a kernel. Operations that grow with the image (attention, linear layers, convolutions) run in pieces of [`PIECE`]
//! FLOPs per thread. A row does not depend on the other rows, so pieces change no byte.

use xdit_comm::Group;
use xdit_kernels::attention::{Attention, AttnInput, AttnOut, Flash, flash_into};
use xdit_kernels::linear::{Epilogue, Linear};
use xdit_kernels::{DType, Tensor, TensorMut, View, conv2d::Conv2d};

use crate::cancel::CancelToken;
use crate::error::{Error, Result};

/// FLOPs of a piece for each compute thread: about a tenth of a second of a core with AVX2.
const PIECE: usize = 1 << 32;

/// The fewest rows of a piece. With fewer, packing keys or reading weights again would take noticeable time.
const LEAST_ROWS: usize = 512;

/// The same for a convolution, whose rows are long. A multiple of the rows of a Winograd tile.
const LEAST_LINES: usize = 16;

/// Reports the progress of a rank to its group, if it has one, and ends the work of a rank whose call is cancelled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    group: Option<Group>,
    cancel: CancelToken,
}

impl Progress {
    /// Reports to the ranks of this group.
    pub(crate) fn new(group: Option<&Group>, cancel: &CancelToken) -> Self {
        Self {
            group: group.cloned(),
            cancel: cancel.clone(),
        }
    }

    /// Reports that an operation is finished. An error if the call is cancelled or another rank has failed.
    pub(crate) fn note(&self) -> Result<()> {
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
        let whole = input.mask.causal || input.mask.bias.is_some() || self.0.group.is_none();
        let &[b, lq, h, d] = input.q.shape() else {
            return Flash.attend(input);
        };
        let flops = [4, b, input.k.dim(1), h, d];
        let rows = rows_here(&flops, piece, least);
        let out = match whole || lq <= rows {
            true => Flash.attend(input)?,
            false => {
                let (dtype, device) = (input.q.dtype(), input.q.device());
                let mut out = TensorMut::unfilled(input.q.shape(), dtype, device)?;
                let mut lse = TensorMut::unfilled([b, h, lq], DType::F32, device)?;
                for start in (0..lq).step_by(rows) {
                    let len = rows.min(lq - start);
                    let q = input.q.narrow(1, start, len)?;
                    let out = out.part(&[(1, start, len)])?;
                    let lse = lse.part(&[(2, start, len)])?;
                    let mut piece = *input;
                    piece.q = q;
                    flash_into(&piece, out, lse)?;
                    self.progress()?;
                }
                let (out, lse) = (out.freeze()?, lse.freeze()?);
                AttnOut { out, lse }
            }
        };
        self.progress()?;
        Ok(out)
    }
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
    let rows = rows_here(&[2, b, k, n], piece, least);
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
    let rows = rows_here(&flops, PIECE, LEAST_LINES) / LEAST_LINES * LEAST_LINES;
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

/// Returns the number of rows of a piece of a linear layer on so many threads, if one row takes the product of these FLOPs.
pub(crate) fn rows_of_piece(flops: &[usize], threads: usize) -> usize {
    rows_within(flops, PIECE.saturating_mul(threads), LEAST_ROWS)
}

/// Returns the number of rows of a piece, if one row takes the product of these FLOPs and each thread takes `piece`.
fn rows_here(flops: &[usize], piece: usize, least: usize) -> usize {
    rows_within(
        flops,
        piece.saturating_mul(rayon::current_num_threads()),
        least,
    )
}

fn rows_within(flops: &[usize], most: usize, least: usize) -> usize {
    let a_row = flops
        .iter()
        .fold(1_usize, |product, n| product.saturating_mul(*n));
    (most / a_row.max(1)).max(least)
}

#[cfg(test)]
mod tests {
    use xdit_comm::threads;
    use xdit_kernels::attention::Mask;
    use xdit_kernels::{
        Device,
        conv2d::{Conv2dOptions, Padding},
    };

    use super::*;

    fn random(shape: &[usize], seed: usize) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|i| ((i * 37 + seed * 101) as f32 * 0.7).sin())
            .collect();
        Tensor::from_slice(&values, shape, &Device::cpu()).unwrap()
    }

    /// A rank of a group of one.
    fn told() -> Told {
        let mut groups = threads::run(1, Ok).unwrap();
        Told(Progress::new(
            Some(&groups.remove(0)),
            &CancelToken::default(),
        ))
    }

    #[test]
    fn pieces_of_attention_are_the_bytes_of_the_whole() {
        let [q, k, v] = [1, 2, 3].map(|seed| random(&[2, 523, 3, 20], seed));
        let seen: Vec<u8> = (0..2 * 523).map(|i| u8::from(i % 7 != 3)).collect();
        let seen = Tensor::from_slice(&seen, [2, 523], &Device::cpu()).unwrap();
        for key_mask in [None, Some(seen.view())] {
            let mask = Mask::default().with_key_mask(key_mask);
            let input = AttnInput::new(&q, &k, &v).with_mask(mask);
            let whole = Flash.attend(&input).unwrap();
            for least in [1, 84, 100, 522] {
                let pieces = told().attend_in_pieces(&input, 1, least).unwrap();
                assert!(
                    pieces.out.host_bytes_blocking().unwrap()
                        == whole.out.host_bytes_blocking().unwrap(),
                    "{least}"
                );
                assert!(
                    pieces.lse.host_bytes_blocking().unwrap()
                        == whole.lse.host_bytes_blocking().unwrap(),
                    "{least}"
                );
            }
        }
    }

    #[test]
    fn pieces_of_linear_layers_are_the_bytes_of_the_whole() {
        for dtype in [DType::F32, DType::BF16] {
            let cast = |tensor: Tensor| tensor.to_dtype(dtype).unwrap();
            let (weight, bias) = (random(&[70, 40], 1), random(&[70], 2));
            let layer =
                Linear::pack(weight.view(), Some(bias.view()), dtype, &Device::cpu()).unwrap();
            let [a, b] = [[2, 301, 30], [2, 301, 10]].map(|shape| cast(random(&shape, 3)));
            let (residual, gate) = (cast(random(&[2, 301, 70], 4)), cast(random(&[2, 70], 5)));
            let (residual, gate) = (residual.view(), gate.view());
            for epilogue in [
                Epilogue::None,
                Epilogue::Residual(residual),
                Epilogue::GateResidual { gate, residual },
                Epilogue::Mul(residual),
            ] {
                let x = [a.view(), b.view()];
                let whole = layer.forward_with(&x, epilogue).unwrap();
                for least in [1, 6, 64, 300] {
                    let pieces = linear_in_pieces(&layer, &x, epilogue, &mut told(), 1, least);
                    assert!(
                        pieces.unwrap().host_bytes_blocking().unwrap()
                            == whole.host_bytes_blocking().unwrap(),
                        "{least}"
                    );
                }
            }
        }
    }

    #[test]
    fn pieces_of_convolutions_are_the_bytes_of_the_whole() {
        for (upsample, dtype) in [
            (false, DType::F32),
            (true, DType::F32),
            (false, DType::BF16),
        ] {
            let options = Conv2dOptions {
                padding: Padding::all(1),
                upsample,
                ..Conv2dOptions::default()
            };
            let (weight, bias) = (random(&[32, 32, 3, 3], 1), random(&[32], 2));
            let conv =
                Conv2d::pack(&weight, Some(bias.view()), options, dtype, &Device::cpu()).unwrap();
            let x = random(&[1, 75, 21, 32], 3).to_dtype(dtype).unwrap();
            let (lines, width) = if upsample { (2..150, 42) } else { (1..75, 21) };
            let residual = random(&[1, lines.len(), width, 32], 4)
                .to_dtype(dtype)
                .unwrap();
            let whole = conv
                .forward_rows(&x, Some(residual.view()), lines.clone())
                .unwrap();
            let mut out = TensorMut::zeros(whole.shape(), dtype, &Device::cpu()).unwrap();
            for start in (0..lines.len()).step_by(LEAST_LINES) {
                let len = LEAST_LINES.min(lines.len() - start);
                let residual = residual.view().narrow(1, start, len).unwrap();
                let piece = lines.start + start..lines.start + start + len;
                let out = out.view_mut().narrow(1, start, len).unwrap();
                conv.forward_rows_into(&x, Some(residual), piece, out)
                    .unwrap();
            }
            assert!(
                out.freeze().host_bytes_blocking().unwrap() == whole.host_bytes_blocking().unwrap(),
                "{upsample} {dtype}"
            );
        }
    }
}
