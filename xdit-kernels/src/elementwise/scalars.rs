//! Arithmetic with scalars: the terms of a scheduler's update, of guidance, and of limits.
//!
//! Each operation is rounded on its own, in the order of its formula, as torch rounds it: equal in f32 on every tier.

use super::call::{binary, binary_into, unary, unary_into};
use super::combine::Combine;
use crate::{Result, Tensor, View, ViewMut};

/// `x + a·y`, in x's dtype: an Euler scheduler's step. The product is rounded to f32 before the sum, as torch does.
///
/// # Shapes
/// As [`add`](super::add)'s.
///
/// # Errors
/// If the shapes do not fit or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, elementwise::add_scaled};
/// let cpu = Device::cpu();
/// let (x, y) = ([1f32, 2.], [10f32, 20.]);
/// let z = add_scaled(View::from_slice(&x, [2], &cpu)?, View::from_slice(&y, [2], &cpu)?, -0.5)?;
/// assert_eq!(z.to_vec_blocking::<f32>()?, [-4., -8.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn add_scaled<'a, 'b>(
    x: impl Into<View<'a>>,
    y: impl Into<View<'b>>,
    a: f32,
) -> Result<Tensor> {
    binary("add_scaled", x.into(), y.into(), Combine::AddScaled(a))
}

/// Writes what [`add_scaled`] returns into `out`.
///
/// # Errors
/// If shapes do not fit, or `out` differs from x in shape or dtype.
pub fn add_scaled_into<'a, 'b>(
    x: impl Into<View<'a>>,
    y: impl Into<View<'b>>,
    a: f32,
    out: ViewMut<'_>,
) -> Result<()> {
    binary_into("add_scaled", x.into(), y.into(), Combine::AddScaled(a), out)
}

/// `a·x + b·y`, in x's dtype: a scheduler's mix of a sample and a prediction. Both products are rounded to f32 before the sum.
///
/// # Shapes
/// As [`add`](super::add)'s.
///
/// # Errors
/// If the shapes do not fit or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, elementwise::weighted_sum};
/// let cpu = Device::cpu();
/// let (x, y) = ([1f32, 2.], [10f32, 20.]);
/// let z = weighted_sum(View::from_slice(&x, [2], &cpu)?, 3.0, View::from_slice(&y, [2], &cpu)?, -0.5)?;
/// assert_eq!(z.to_vec_blocking::<f32>()?, [-2., -4.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn weighted_sum<'a, 'b>(
    x: impl Into<View<'a>>,
    a: f32,
    y: impl Into<View<'b>>,
    b: f32,
) -> Result<Tensor> {
    binary(
        "weighted_sum",
        x.into(),
        y.into(),
        Combine::WeightedSum(a, b),
    )
}

/// Writes what [`weighted_sum`] returns into `out`.
///
/// # Errors
/// If shapes do not fit, or `out` differs from x in shape or dtype.
pub fn weighted_sum_into<'a, 'b>(
    x: impl Into<View<'a>>,
    a: f32,
    y: impl Into<View<'b>>,
    b: f32,
    out: ViewMut<'_>,
) -> Result<()> {
    let combine = Combine::WeightedSum(a, b);
    binary_into("weighted_sum", x.into(), y.into(), combine, out)
}

/// `a · x`, in x's dtype.
///
/// # Errors
/// If there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, elementwise::scale};
/// let cpu = Device::cpu();
/// let x = [1f32, 2.];
/// assert_eq!(scale(View::from_slice(&x, [2], &cpu)?, 3.0)?.to_vec_blocking::<f32>()?, [3., 6.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn scale<'a>(x: impl Into<View<'a>>, a: f32) -> Result<Tensor> {
    unary("scale", x.into(), Combine::Scale(a))
}

/// Writes what [`scale`] returns into `out`.
///
/// # Errors
/// If `out` differs from x in shape or dtype.
pub fn scale_into<'a>(x: impl Into<View<'a>>, a: f32, out: ViewMut<'_>) -> Result<()> {
    unary_into("scale", x.into(), Combine::Scale(a), out)
}

/// `a·x + b`, in x's dtype. The product is rounded to f32 before the sum.
///
/// # Errors
/// If there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, elementwise::scale_shift};
/// let cpu = Device::cpu();
/// let x = [-1f32, 1.];
/// assert_eq!(scale_shift(View::from_slice(&x, [2], &cpu)?, 0.5, 0.5)?.to_vec_blocking::<f32>()?, [0., 1.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn scale_shift<'a>(x: impl Into<View<'a>>, a: f32, b: f32) -> Result<Tensor> {
    unary("scale_shift", x.into(), Combine::ScaleShift(a, b))
}

/// Writes what [`scale_shift`] returns into `out`.
///
/// # Errors
/// If `out` differs from x in shape or dtype.
pub fn scale_shift_into<'a>(
    x: impl Into<View<'a>>,
    a: f32,
    b: f32,
    out: ViewMut<'_>,
) -> Result<()> {
    unary_into("scale_shift", x.into(), Combine::ScaleShift(a, b), out)
}

/// `x / a`, in x's dtype: a division, which rounds otherwise than a product with `1 / a`.
///
/// # Errors
/// If there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, elementwise::divide};
/// let cpu = Device::cpu();
/// let x = [5f32, 6.];
/// assert_eq!(divide(View::from_slice(&x, [2], &cpu)?, 49.0)?.to_vec_blocking::<f32>()?, [5. / 49., 6. / 49.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn divide<'a>(x: impl Into<View<'a>>, a: f32) -> Result<Tensor> {
    unary("divide", x.into(), Combine::Divide(a))
}

/// Writes what [`divide`] returns into `out`.
///
/// # Errors
/// If `out` differs from x in shape or dtype.
pub fn divide_into<'a>(x: impl Into<View<'a>>, a: f32, out: ViewMut<'_>) -> Result<()> {
    unary_into("divide", x.into(), Combine::Divide(a), out)
}

/// `x`, and `low` and `high` where it is below or above, in x's dtype. NaN stays NaN.
///
/// # Errors
/// If there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, elementwise::clamp};
/// let cpu = Device::cpu();
/// let x = [f32::NEG_INFINITY, 0.5, 2.];
/// assert_eq!(clamp(View::from_slice(&x, [3], &cpu)?, -1.0, 1.0)?.to_vec_blocking::<f32>()?, [-1., 0.5, 1.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn clamp<'a>(x: impl Into<View<'a>>, low: f32, high: f32) -> Result<Tensor> {
    unary("clamp", x.into(), Combine::Clamp(low, high))
}

/// Writes what [`clamp`] returns into `out`.
///
/// # Errors
/// If `out` differs from x in shape or dtype.
pub fn clamp_into<'a>(x: impl Into<View<'a>>, low: f32, high: f32, out: ViewMut<'_>) -> Result<()> {
    unary_into("clamp", x.into(), Combine::Clamp(low, high), out)
}
