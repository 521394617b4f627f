//! Group normalisation of channels-last pictures, with SiLU if asked for (torch's `GroupNorm`; Wu and He, 2018).

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod parameters;
#[cfg(test)]
mod tests;

use crate::{
    Device, DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut, dispatch::one_device,
    numbers::DeviceNumbers, vector::reserved,
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
    // The picture is read for its sums last: what can be refused is refused before.
    out.expect(OP, x.shape(), x.dtype())?;
    let parameters = Parameters::new(x, groups, weight.into(), bias.into(), eps, silu)?;
    let sums = GroupSums::of(x, groups)?;
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
/// let device = Device::cpu();
/// let x = Tensor::from_slice(&[1f32, 3., 5., 2.], [1, 4, 1, 1], &device)?;
/// let (one, zero) = (Tensor::from_slice(&[1f32], [1], &device)?, Tensor::from_slice(&[0f32], [1], &device)?);
/// let (top, rest) = (x.narrow(1, 0, 1)?, x.narrow(1, 1, 3)?);
/// let sums = [GroupSums::of(&top, 1)?, GroupSums::of(&rest, 1)?];
/// let sums = GroupSums::total(1, &[sums[0].to_vec_blocking()?, sums[1].to_vec_blocking()?], &device)?;
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

/// Sums over pixels from which each group's mean and variance follow, and which add up over rows. They stay on their device
/// until the host reads them.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, Tensor, group_norm::GroupSums};
/// let device = Device::cpu();
/// let x = Tensor::from_slice(&[1f32, 3.], [1, 2, 1, 1], &device)?;
/// let sums = GroupSums::of(&x, 1)?;
/// assert_eq!(device.host_reads(), 0);
/// // Pixels, Σx, Σx².
/// assert_eq!(sums.to_vec_blocking()?, [2., 4., 10.]);
/// assert_eq!(device.host_reads(), 1);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct GroupSums {
    groups: usize,
    /// Pixels of a picture.
    pixels: f64,
    /// Σx and Σx² of each group of each picture.
    sums: DeviceNumbers,
}

impl GroupSums {
    /// The sums of `x`: of at most 64 pixels about a pixel's own value, added up in f64, in an order that depends on the
    /// shape alone.
    ///
    /// # Shapes
    /// `x` `[b, h, w, c]`, also without pixels.
    ///
    /// # Errors
    /// If `groups` does not divide the channels, or there is no memory.
    pub fn of<'a>(x: impl Into<View<'a>>, groups: usize) -> Result<Self> {
        let x = x.into();
        let [b, h, w, _] = dims(&x, groups)?;
        // Without channels, any number of groups divides them.
        let numbers = b.checked_mul(groups).and_then(|n| n.checked_mul(2));
        let mut sums = DeviceNumbers::zeros(OP, numbers.unwrap_or(usize::MAX), x.device())?;
        match x.device().kind() {
            DeviceKind::Cpu(_) => cpu::sums(x, groups, sums.on_cpu_mut())?,
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(_) => cuda::sums(x, groups, &mut sums)?,
        }
        Ok(Self {
            groups,
            pixels: (h * w) as f64,
            sums,
        })
    }

    /// The numbers, for ranks to exchange: how many pixels a picture has, then Σx and Σx² of each group, picture by picture.
    ///
    /// Blocks until the device has added them up, and counts as one of [`Device::host_reads`].
    ///
    /// # Errors
    /// If there is no memory, or the device failed.
    pub fn to_vec_blocking(&self) -> Result<Vec<f64>> {
        let mut values = self.sums.to_vec_blocking(OP, 0..self.sums.count())?;
        values.insert(0, self.pixels);
        Ok(values)
    }

    /// How many groups a picture's channels fall into.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// The device whose memory holds the sums.
    pub fn device(&self) -> &Device {
        self.sums.device()
    }

    /// The sums of whole pictures from the [numbers](Self::to_vec_blocking) of parts of their rows, added in the order given
    /// and brought to the device.
    ///
    /// # Errors
    /// If there is no part, their numbers are not as many as pictures of so many groups have, or there is no memory.
    pub fn total(groups: usize, parts: &[impl AsRef<[f64]>], device: &Device) -> Result<Self> {
        let numbers = |part: &[f64]| {
            let sums = part.len().checked_sub(1)?;
            (sums.checked_rem(groups.checked_mul(2)?)? == 0).then_some(sums)
        };
        let mut parts_left = parts.iter().map(AsRef::as_ref);
        let first = parts_left.next().unwrap_or_default();
        let sums =
            numbers(first).filter(|_| parts.iter().all(|part| part.as_ref().len() == first.len()));
        let Some(count) = sums else {
            return Err(Error::shape(
                OP,
                format!("sums of {groups} groups, as many in each part"),
                parts
                    .iter()
                    .map(|part| part.as_ref().len())
                    .collect::<Vec<_>>(),
            ));
        };
        let mut values = reserved(OP, count + 1)?;
        values.extend_from_slice(first);
        for part in parts_left {
            for (sum, more) in values.iter_mut().zip(part) {
                *sum += more;
            }
        }
        let mut sums = DeviceNumbers::zeros(OP, count, device)?;
        sums.write(OP, &values[1..])?;
        Ok(Self {
            groups,
            pixels: values[0],
            sums,
        })
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
    let numbers = b
        .checked_mul(2)
        .and_then(|n| n.checked_mul(parameters.groups));
    if sums.groups != parameters.groups || Some(sums.sums.count()) != numbers {
        return Err(Error::shape(
            OP,
            format!("sums of {b} pictures in {} groups", parameters.groups),
            (sums.sums.count() / 2 / sums.groups.max(1), sums.groups),
        ));
    }
    let _span = tracing::trace_span!("group_norm", b, h, w, c, parameters.groups, parameters.silu)
        .entered();
    let operands = [
        x.device(),
        sums.device(),
        parameters.weight.device(),
        parameters.bias.device(),
        out.device(),
    ];
    match one_device(OP, operands)? {
        DeviceKind::Cpu(_) => {
            out.written_by(|out| cpu::run(x, &sums.sums, sums.pixels, parameters, out))
        }
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => {
            out.written_by(|out| cuda::run(x, &sums.sums, sums.pixels, parameters, out))
        }
    }
}
