//! Group normalisation of channels-last pictures, with SiLU if asked for (torch's `GroupNorm`; Wu and He, 2018).

mod cpu;
mod parameters;
#[cfg(test)]
mod tests;

use crate::{
    DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut, dispatch::one_device,
    vector::filled,
};
use parameters::{OP, Parameters, dims};

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
/// If `groups` does not divide the channels, there are more than 2^20, weight or bias do not fit, or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, Tensor, group_norm::group_norm};
/// let x = Tensor::from_slice(&[1f32, 3., 1., 3.], [1, 2, 1, 2], &Device::cpu())?;
/// let (weight, bias) = (Tensor::from_slice(&[1f32; 2], [2], &Device::cpu())?, Tensor::from_slice(&[0f32; 2], [2], &Device::cpu())?);
/// assert_eq!(group_norm(&x, 1, &weight, &bias, 0.0, false)?.to_vec_blocking::<f32>()?, [-1., 1., -1., 1.]);
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
    let mut out = unsafe { TensorMut::uninit(OP, x.shape(), x.dtype(), x.device())? };
    group_norm_into(x, groups, weight, bias, eps, silu, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`group_norm`] returns into `out`.
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
    let x = x.into();
    let sums = GroupSums::of(x, groups)?;
    out.expect(OP, x.shape(), x.dtype())?;
    let parameters = Parameters::new(x, groups, weight.into(), bias.into(), eps, silu)?;
    apply(x, &sums, &parameters, out)
}

/// [`group_norm`] of some rows of pictures, `parts`, one above another. The statistics are those of the whole pictures:
/// `sums` must be the [`GroupSums`] of all their rows, those of the parts and those that other ranks hold.
///
/// # Shapes
/// `parts` `[b, h_i, w, c]` to `[b, Σ h_i, w, c]`.
///
/// # Errors
/// As [`group_norm`]; if there is no part, they differ in more than their rows, or `sums` are of other pictures or groups.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, Tensor, group_norm::{GroupSums, group_norm, group_norm_rows}};
/// let x = Tensor::from_slice(&[1f32, 3., 5., 2.], [1, 4, 1, 1], &Device::cpu())?;
/// let (one, zero) = (Tensor::from_slice(&[1f32], [1], &Device::cpu())?, Tensor::from_slice(&[0f32], [1], &Device::cpu())?);
/// let (top, rest) = (x.narrow(1, 0, 1)?, x.narrow(1, 1, 3)?);
/// let sums = [GroupSums::of(&top, 1)?, GroupSums::of(&rest, 1)?];
/// let sums = GroupSums::total(1, &sums.map(|part| part.values().to_vec()))?;
/// let parts = group_norm_rows(&[top.view(), rest.view()], &sums, &one, &zero, 0.0, false)?;
/// assert_eq!(parts.to_vec_blocking::<f32>()?, group_norm(&x, 1, &one, &zero, 0.0, false)?.to_vec_blocking::<f32>()?);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn group_norm_rows<'w, 'b>(
    parts: &[View<'_>],
    sums: &GroupSums,
    weight: impl Into<View<'w>>,
    bias: impl Into<View<'b>>,
    eps: f32,
    silu: bool,
) -> Result<Tensor> {
    let wrong = |expected: &str| Err(Error::shape(OP, expected, parts));
    let Some(first) = parts.first() else {
        return wrong("at least one part");
    };
    let parameters = Parameters::new(*first, sums.groups, weight.into(), bias.into(), eps, silu)?;
    let mut shape: [usize; 4] = std::array::from_fn(|d| first.dim(d));
    shape[1] = 0;
    for part in parts {
        let differs = |d: usize| part.shape().get(d) != first.shape().get(d);
        if part.ndim() != 4 || [0, 2, 3].into_iter().any(differs) || part.dtype() != first.dtype() {
            return wrong("parts [b, _, w, c] that differ in their rows alone");
        }
        let rows = shape[1].checked_add(part.dim(1));
        shape[1] = rows.ok_or_else(|| Error::shape(OP, "rows that can be counted", parts))?;
    }
    // SAFETY: `apply` writes every element of the part of the output it is given, and those parts are all of it.
    let mut out = unsafe { TensorMut::uninit(OP, shape, first.dtype(), first.device())? };
    let mut at = 0;
    for part in parts {
        let rows = out.view_mut().narrow(1, at, part.dim(1))?;
        apply(*part, sums, &parameters, rows)?;
        at += part.dim(1);
    }
    Ok(out.freeze())
}

/// Sums over pixels from which each group's mean and variance follow, and which add up over rows.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, Tensor, group_norm::GroupSums};
/// let x = Tensor::from_slice(&[1f32, 3.], [1, 2, 1, 1], &Device::cpu())?;
/// // Pixels, Σx, Σx².
/// assert_eq!(GroupSums::of(&x, 1)?.values(), [2., 4., 10.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSums {
    groups: usize,
    /// The number of pixels, then Σx and Σx² of each group of each picture.
    values: Vec<f64>,
}

impl GroupSums {
    /// The sums of `x`: of at most 64 pixels about a pixel's own value, added up in f64, in an order that depends on the
    /// shape alone.
    ///
    /// # Shapes
    /// `x` `[b, h, w, c]`, also without pixels.
    ///
    /// # Errors
    /// If `groups` does not divide the channels.
    pub fn of<'a>(x: impl Into<View<'a>>, groups: usize) -> Result<Self> {
        let x = x.into();
        let [b, h, w, _] = dims(&x, groups)?;
        let mut values = vec![(h * w) as f64];
        if x.numel() == 0 {
            // Without channels, any number of groups divides them.
            let numbers = b.checked_mul(groups).and_then(|n| n.checked_mul(2));
            values = filled(OP, 0.0, numbers.map_or(usize::MAX, |n| n.saturating_add(1)))?;
            values[0] = (h * w) as f64;
            return Ok(Self { groups, values });
        }
        let sums = match x.device().kind() {
            DeviceKind::Cpu(_) => cpu::sums(x, groups)?,
        };
        values.extend(sums.into_iter().flatten());
        Ok(Self { groups, values })
    }

    /// The numbers, for ranks to exchange: how many pixels a picture has, then Σx and Σx² of each group, picture by picture.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// How many groups a picture's channels fall into.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// The sums of whole pictures from the [`values`](Self::values) of parts of their rows, added in the order given.
    ///
    /// # Errors
    /// If there is no part, or their numbers are not as many as pictures of so many groups have.
    pub fn total(groups: usize, parts: &[impl AsRef<[f64]>]) -> Result<Self> {
        let parts: Vec<&[f64]> = parts.iter().map(AsRef::as_ref).collect();
        let first = parts.first().copied().unwrap_or_default();
        let rest = (first.len().checked_sub(1)).and_then(|n| n.checked_rem(groups.checked_mul(2)?));
        if rest != Some(0) || parts.iter().any(|part| part.len() != first.len()) {
            return Err(Error::shape(
                OP,
                format!("sums of {groups} groups, as many in each part"),
                parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
            ));
        }
        let mut values = first.to_vec();
        for part in &parts[1..] {
            for (sum, more) in values.iter_mut().zip(*part) {
                *sum += more;
            }
        }
        Ok(Self { groups, values })
    }
}

/// Writes all of `out`, which has the shape and dtype of `x`.
fn apply(
    x: View<'_>,
    sums: &GroupSums,
    parameters: &Parameters<'_>,
    out: ViewMut<'_>,
) -> Result<()> {
    let [b, h, w, c] = dims(&x, parameters.groups)?;
    if out.strides()[3] != 1 && c != 1 {
        return Err(Error::shape(OP, "an output with contiguous channels", out));
    }
    let (pixels, of_groups) = (sums.values[0], sums.values[1..].as_chunks::<2>().0);
    if sums.groups != parameters.groups || Some(of_groups.len()) != b.checked_mul(parameters.groups)
    {
        return Err(Error::shape(
            OP,
            format!("sums of {b} pictures in {} groups", parameters.groups),
            (of_groups.len(), sums.groups),
        ));
    }
    let _span = tracing::trace_span!("group_norm", b, h, w, c, parameters.groups, parameters.silu)
        .entered();
    if x.numel() == 0 {
        return Ok(());
    }
    let operands = [
        x.device(),
        parameters.weight.device(),
        parameters.bias.device(),
        out.device(),
    ];
    match one_device(OP, operands)? {
        DeviceKind::Cpu(_) => out.written_by(|out| cpu::run(x, of_groups, pixels, parameters, out)),
    }
}
