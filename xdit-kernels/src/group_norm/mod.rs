//! Group normalisation of channels-last pictures, with SiLU if asked for (torch's `GroupNorm`; Wu and He, 2018).

mod cpu;
#[cfg(test)]
mod tests;

use crate::{Error, Result, Tensor, TensorMut, View, ViewMut, layout};

/// Each group of channels of each picture brought to mean 0 and variance 1, scaled by `weight`, shifted by `bias`; then,
/// if `silu`, x·sigmoid(x).
///
/// Statistics are exact to f32: sums of at most 64 pixels about a pixel's own value, combined in f64, in an order that
/// depends on the shape alone.
///
/// # Shapes
/// `x` `[b, h, w, c]`, `weight` and `bias` `[c]` of any dtype; the result as `x`.
///
/// # Errors
/// If `groups` does not divide the channels, weight or bias do not fit, or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Tensor, group_norm::group_norm};
/// let x = Tensor::from_slice(&[1f32, 3., 1., 3.], [1, 2, 1, 2])?;
/// let (weight, bias) = (Tensor::from_slice(&[1f32; 2], [2])?, Tensor::from_slice(&[0f32; 2], [2])?);
/// assert_eq!(group_norm(&x, 1, &weight, &bias, 0.0, false)?.to_f32_vec(), [-1., 1., -1., 1.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn group_norm<'a, 'w, 'b>(
    x: impl Into<View<'a>>,
    groups: usize,
    weight: impl Into<View<'w>>,
    bias: impl Into<View<'b>>,
    eps: f32,
    silu: bool,
) -> Result<Tensor> {
    let x = x.into();
    // SAFETY: `group_norm_into` writes every element of its output.
    let mut out = unsafe { TensorMut::uninit("group_norm", x.shape(), x.dtype(), x.device())? };
    group_norm_into(x, groups, weight, bias, eps, silu, out.view_mut())?;
    Ok(out.freeze())
}

/// As [`group_norm`], into `out`.
///
/// # Errors
/// As [`group_norm`], and if `out` has another shape or dtype.
pub fn group_norm_into<'a, 'w, 'b>(
    x: impl Into<View<'a>>,
    groups: usize,
    weight: impl Into<View<'w>>,
    bias: impl Into<View<'b>>,
    eps: f32,
    silu: bool,
    out: ViewMut<'_>,
) -> Result<()> {
    let (x, weight, bias) = (x.into(), weight.into(), bias.into());
    let &[b, h, w, c] = x.shape() else {
        return Err(Error::shape("group_norm", "an input [b, h, w, c]", x));
    };
    if groups == 0 || !c.is_multiple_of(groups) {
        return Err(Error::shape(
            "group_norm",
            format!("channels that {groups} groups divide"),
            x,
        ));
    }
    for p in [&weight, &bias] {
        if p.shape() != [c] {
            return Err(Error::shape(
                "group_norm",
                format!("a weight and a bias [{c}]"),
                p,
            ));
        }
    }
    out.expect("group_norm", x.shape(), x.dtype())?;
    if out.strides()[3] != 1 && c != 1 {
        return Err(Error::shape(
            "group_norm",
            "an output with contiguous channels",
            out,
        ));
    }
    let _span = tracing::trace_span!("group_norm", b, h, w, c, groups, silu).entered();
    if x.numel() == 0 {
        return Ok(());
    }
    let copy;
    let x = if x.strides()[3] == 1 {
        x
    } else {
        copy = layout::contiguous(x)?;
        copy.view()
    };
    let parameters = cpu::Parameters {
        groups,
        weight: weight.to_tensor()?.to_f32_vec(),
        bias: bias.to_tensor()?.to_f32_vec(),
        eps: f64::from(eps),
        silu,
    };
    cpu::run(x, &parameters, out);
    Ok(())
}
