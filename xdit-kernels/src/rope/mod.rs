//! Rotary position embedding fused with the RMS norm of queries and keys.
//!
//! Pairs are interleaved (entries 2i and 2i + 1 of a head turn together), as in RoFormer (arXiv:2104.09864, section 3.4.2)
//! and diffusers' `apply_rotary_emb` with `use_real_unbind_dim=-1`. Everything between the load and the store is f32:
//! diffusers rounds a 16-bit row after the norm and after its weight as well.

mod cpu;
mod table;
#[cfg(test)]
mod tests;

pub use table::rope_table;

use crate::{
    Error, Result, Tensor, TensorMut, View, ViewMut,
    rows::{Floats, Operand, expect_rows},
};
use cpu::HeadRow;
use std::borrow::Cow;

/// What [`qk_norm_rope_into`] does to queries and keys. Parameters may have any dtype.
#[derive(Debug, Clone, Copy, Default)]
pub struct QkNormRope<'a> {
    /// Weight of the queries' RMS norm, `[d]`; `None`: queries are not normalised.
    pub norm_q: Option<View<'a>>,
    /// Weight of the keys' RMS norm, `[d]`; `None`: keys are not normalised.
    pub norm_k: Option<View<'a>>,
    /// Added to the mean square.
    pub eps: f32,
    /// cos and sin, `[l, d]` each, as [`rope_table`] makes them; `None`: no rotation.
    pub rope: Option<(View<'a>, View<'a>)>,
}

type Tables<'a> = Option<(Floats<'a>, Floats<'a>)>;

fn tables<'a>(
    op: &'static str,
    rope: Option<(View<'a>, View<'a>)>,
    l: usize,
    d: usize,
) -> Result<Tables<'a>> {
    let Some((cos, sin)) = rope else {
        return Ok(None);
    };
    if !d.is_multiple_of(2) {
        return Err(Error::shape(op, "an even head dim to rotate", d));
    }
    Ok(Some((
        Floats::new(op, cos, &[l, d])?,
        Floats::new(op, sin, &[l, d])?,
    )))
}

/// RMS norm of each head's row, then the rotation; in x's dtype.
///
/// # Shapes
/// x is `[b, l, h, d]`; weight `[d]` (left out: 1); cos and sin `[l, d]`, as [`rope_table`] makes them (left out: no
/// rotation).
///
/// # Errors
/// If shapes do not fit, d is odd and there is a rotation, or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{View, rope::{rms_norm_rope, rope_table}};
/// let x = [3f32, 0.];
/// let (cos, sin) = rope_table(&[std::f64::consts::FRAC_PI_2], 2, 10_000.0)?;
/// let rope = Some((cos.view(), sin.view()));
/// let y = rms_norm_rope(View::from_slice(&x, [1, 1, 1, 2])?, None, 0.0, rope)?.to_f32_vec();
/// // Of length √2, turned by a quarter.
/// assert!(y[0].abs() < 1e-6 && (y[1] - 2f32.sqrt()).abs() < 1e-6);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn rms_norm_rope<'a>(
    x: impl Into<View<'a>>,
    weight: Option<View<'_>>,
    eps: f32,
    rope: Option<(View<'_>, View<'_>)>,
) -> Result<Tensor> {
    let x = x.into();
    // SAFETY: `rms_norm_rope_into` writes every element.
    let mut out = unsafe { TensorMut::uninit("rms_norm_rope", x.shape(), x.dtype(), x.device())? };
    rms_norm_rope_into(x, weight, eps, rope, out.view_mut())?;
    Ok(out.freeze())
}

/// [`rms_norm_rope`] into memory that is there.
///
/// # Errors
/// As [`rms_norm_rope`]'s, or if `out` differs from x in shape or dtype.
pub fn rms_norm_rope_into<'a>(
    x: impl Into<View<'a>>,
    weight: Option<View<'_>>,
    eps: f32,
    rope: Option<(View<'_>, View<'_>)>,
    out: ViewMut<'_>,
) -> Result<()> {
    const OP: &str = "rms_norm_rope";
    let x = x.into();
    let &[b, l, h, d] = x.shape() else {
        return Err(Error::shape(OP, "x of shape [b, l, h, d]", x));
    };
    let _span = tracing::trace_span!("rms_norm_rope", b, l, h, d).entered();
    expect_rows(OP, &out, x.shape(), x.dtype())?;
    let gain = gain(OP, weight, d)?;
    let tables = tables(OP, rope, l, d)?;
    let head = HeadRow {
        gain: &gain,
        eps: Some(eps),
        rope: tables.as_ref().map(|(cos, sin)| (&**cos, &**sin)),
        heads: h,
        tokens: l,
    };
    cpu::norm_rope(Operand::new(x, x.dtype())?.view(), &head, out);
    Ok(())
}

fn gain<'a>(op: &'static str, weight: Option<View<'a>>, d: usize) -> Result<Cow<'a, [f32]>> {
    Ok(match weight {
        Some(weight) => Floats::new(op, weight, &[d])?.into_cow(),
        None => Cow::Owned(vec![1.0; d]),
    })
}

/// Writes queries, keys and values of a fused projection: queries and keys normalised and rotated, values copied.
///
/// The outputs may be parts of longer tensors: a joint attention has text and image rows written side by side.
///
/// # Shapes
/// qkv is `[b, l, 3, h, d]`; q, k, v are `[b, l, h, d]`, in qkv's dtype.
///
/// # Errors
/// If shapes or dtypes do not fit, or d is odd and there is a rotation.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, TensorMut, View, rope::{QkNormRope, qk_norm_rope_into}};
/// let qkv = [2f32, 2., 3., -3., 5., 7.];
/// let ones = [1f32; 2];
/// let weight = Some(View::from_slice(&ones, [2])?);
/// let new = || TensorMut::zeros([1, 1, 1, 2], DType::F32, Device::cpu());
/// let (mut q, mut k, mut v) = (new()?, new()?, new()?);
/// let options = QkNormRope { norm_q: weight, norm_k: weight, ..QkNormRope::default() };
/// let qkv = View::from_slice(&qkv, [1, 1, 3, 1, 2])?;
/// qk_norm_rope_into(qkv, &options, q.view_mut(), k.view_mut(), v.view_mut())?;
/// assert_eq!(q.freeze().to_f32_vec(), [1., 1.]);
/// assert_eq!(k.freeze().to_f32_vec(), [1., -1.]);
/// assert_eq!(v.freeze().to_f32_vec(), [5., 7.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn qk_norm_rope_into<'a>(
    qkv: impl Into<View<'a>>,
    options: &QkNormRope<'_>,
    q: ViewMut<'_>,
    k: ViewMut<'_>,
    v: ViewMut<'_>,
) -> Result<()> {
    const OP: &str = "qk_norm_rope";
    let qkv = qkv.into();
    let &[b, l, 3, h, d] = qkv.shape() else {
        return Err(Error::shape(OP, "qkv of shape [b, l, 3, h, d]", qkv));
    };
    let _span = tracing::trace_span!("qk_norm_rope", b, l, h, d).entered();
    for out in [&q, &k, &v] {
        expect_rows(OP, out, &[b, l, h, d], qkv.dtype())?;
    }
    let gains = [gain(OP, options.norm_q, d)?, gain(OP, options.norm_k, d)?];
    let tables = tables(OP, options.rope, l, d)?;
    let head = |gain, normalised: bool| HeadRow {
        gain,
        eps: normalised.then_some(options.eps),
        rope: tables.as_ref().map(|(cos, sin)| (&**cos, &**sin)),
        heads: h,
        tokens: l,
    };
    let qkv = Operand::new(qkv, qkv.dtype())?;
    let qkv = qkv.view();
    cpu::qk_norm_rope(
        [qkv.select(2, 0)?, qkv.select(2, 1)?, qkv.select(2, 2)?],
        [
            &head(&gains[0], options.norm_q.is_some()),
            &head(&gains[1], options.norm_k.is_some()),
        ],
        [q, k, v],
    );
    Ok(())
}
