//! Rotary position embedding fused with the norm of queries and keys.
//!
//! Pairs are interleaved (entries 2i and 2i + 1 of a head turn together), as in RoFormer (arXiv:2104.09864, section 3.4.2)
//! and diffusers' `apply_rotary_emb` with `use_real_unbind_dim=-1`. Everything between the load and the store is f32:
//! diffusers rounds a 16-bit row after the norm and after its weight as well.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod options;
mod table;
#[cfg(test)]
mod tests;

pub use options::{HeadNorm, QkNormRope};
pub use table::rope_table;

use crate::{
    DeviceKind, Error, Result, Tensor, TensorMut, View, ViewMut,
    dispatch::{expect_parameter, expect_rows, one_device},
};

fn expect_tables(
    op: &'static str,
    rope: Option<(View<'_>, View<'_>)>,
    l: usize,
    d: usize,
) -> Result<()> {
    let Some((cos, sin)) = rope else {
        return Ok(());
    };
    if !d.is_multiple_of(2) {
        return Err(Error::shape(op, "an even head dim to rotate", d));
    }
    expect_parameter(op, &cos, &[l, d])?;
    expect_parameter(op, &sin, &[l, d])
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
/// use xdit_kernels::{Device, View, rope::{rms_norm_rope, rope_table}};
/// let device = &Device::cpu();
/// let x = [3f32, 0.];
/// let (cos, sin) = rope_table(&[std::f64::consts::FRAC_PI_2], 2, 10_000.0, device)?;
/// let rope = Some((cos.view(), sin.view()));
/// let y = rms_norm_rope(View::from_slice(&x, [1, 1, 1, 2], device)?, None, 0.0, rope)?.to_vec_blocking::<f32>()?;
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

/// Writes what [`rms_norm_rope`] returns into `out`.
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
    one_stream("rms_norm_rope", x.into(), (weight, None), eps, rope, out)
}

/// LayerNorm of each head's row, then the rotation; in x's dtype (HunyuanDiT's queries and keys).
///
/// # Shapes
/// x is `[b, l, h, d]`; weight and bias `[d]`; cos and sin `[l, d]`, as [`rope_table`] makes them (left out: no rotation).
///
/// # Errors
/// As [`rms_norm_rope`]'s.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View, rope::layer_norm_rope};
/// let device = &Device::cpu();
/// let (x, weight, bias) = ([5f32, 1.], [2f32, 3.], [10f32, 0.]);
/// let parameter = |p| View::from_slice(p, [2], device);
/// let x = View::from_slice(&x, [1, 1, 1, 2], device)?;
/// let y = layer_norm_rope(x, parameter(&weight)?, parameter(&bias)?, 0.0, None)?;
/// assert_eq!(y.to_vec_blocking::<f32>()?, [12., -3.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn layer_norm_rope<'a>(
    x: impl Into<View<'a>>,
    weight: View<'_>,
    bias: View<'_>,
    eps: f32,
    rope: Option<(View<'_>, View<'_>)>,
) -> Result<Tensor> {
    let x = x.into();
    // SAFETY: `layer_norm_rope_into` writes every element.
    let mut out =
        unsafe { TensorMut::uninit("layer_norm_rope", x.shape(), x.dtype(), x.device())? };
    layer_norm_rope_into(x, weight, bias, eps, rope, out.view_mut())?;
    Ok(out.freeze())
}

/// Writes what [`layer_norm_rope`] returns into `out`.
///
/// # Errors
/// As [`rms_norm_rope`]'s, or if `out` differs from x in shape or dtype.
pub fn layer_norm_rope_into<'a>(
    x: impl Into<View<'a>>,
    weight: View<'_>,
    bias: View<'_>,
    eps: f32,
    rope: Option<(View<'_>, View<'_>)>,
    out: ViewMut<'_>,
) -> Result<()> {
    let parameters = (Some(weight), Some(bias));
    one_stream("layer_norm_rope", x.into(), parameters, eps, rope, out)
}

/// The norm of one stream's heads, a LayerNorm where there is a bias, and their rotation.
fn one_stream(
    op: &'static str,
    x: View<'_>,
    (weight, bias): (Option<View<'_>>, Option<View<'_>>),
    eps: f32,
    rope: Option<(View<'_>, View<'_>)>,
    out: ViewMut<'_>,
) -> Result<()> {
    let &[b, l, h, d] = x.shape() else {
        return Err(Error::shape(op, "x of shape [b, l, h, d]", x));
    };
    let _span = tracing::trace_span!("norm_rope", op, b, l, h, d).entered();
    expect_rows(op, &out, x.shape(), x.dtype())?;
    for parameter in [weight, bias].iter().flatten() {
        expect_parameter(op, parameter, &[d])?;
    }
    expect_tables(op, rope, l, d)?;
    let parameters = [
        weight,
        bias,
        rope.map(|(cos, _)| cos),
        rope.map(|(_, sin)| sin),
    ];
    let parameters = parameters.iter().flatten().map(View::device);
    match one_device(op, parameters.chain([x.device(), out.device()]))? {
        DeviceKind::Cpu(_) => {
            out.written_by(|out| cpu::one_stream(op, x, (weight, bias), eps, rope, out))
        }
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => {
            out.written_by(|out| cuda::one_stream(op, x, (weight, bias), eps, rope, out))
        }
    }
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
/// use xdit_kernels::{DType, Device, TensorMut, View, rope::{HeadNorm, QkNormRope, qk_norm_rope_into}};
/// let device = &Device::cpu();
/// let qkv = [2f32, 2., 3., -3., 5., 7.];
/// let ones = [1f32; 2];
/// let norm = Some(HeadNorm::Rms(View::from_slice(&ones, [2], device)?));
/// let new = || TensorMut::zeros([1, 1, 1, 2], DType::F32, device);
/// let (mut q, mut k, mut v) = (new()?, new()?, new()?);
/// let options = QkNormRope { norm_q: norm, norm_k: norm, ..QkNormRope::default() };
/// let qkv = View::from_slice(&qkv, [1, 1, 3, 1, 2], device)?;
/// qk_norm_rope_into(qkv, &options, q.view_mut(), k.view_mut(), v.view_mut())?;
/// assert_eq!(q.freeze().to_vec_blocking::<f32>()?, [1., 1.]);
/// assert_eq!(k.freeze().to_vec_blocking::<f32>()?, [1., -1.]);
/// assert_eq!(v.freeze().to_vec_blocking::<f32>()?, [5., 7.]);
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
    let norms = [options.norm_q, options.norm_k];
    for norm in norms.into_iter().flatten() {
        let (HeadNorm::Rms(weight) | HeadNorm::Layer { weight, .. }) = norm;
        expect_parameter(OP, &weight, &[d])?;
        if let HeadNorm::Layer { bias, .. } = norm {
            expect_parameter(OP, &bias, &[d])?;
        }
    }
    expect_tables(OP, options.rope, l, d)?;
    let of_norms = norms.iter().flatten().flat_map(HeadNorm::parameters);
    let of_rope = options.rope.iter().flat_map(|(cos, sin)| [cos, sin]);
    let parameters = of_norms.flatten().chain(of_rope.copied());
    let outputs = [q.device(), k.device(), v.device(), qkv.device()];
    match one_device(OP, parameters.map(|p| p.device()).chain(outputs))? {
        DeviceKind::Cpu(_) => q.written_by(|q| {
            k.written_by(|k| v.written_by(|v| cpu::three_streams(qkv, options, [q, k, v])))
        }),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => q.written_by(|q| {
            k.written_by(|k| v.written_by(|v| cuda::three_streams(OP, qkv, options, [q, k, v])))
        }),
    }
}
