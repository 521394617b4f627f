use crate::{DType, Device, Error, Result, Tensor, sizes::Layout, vector::reserved};

/// (cos, sin) of each position's angles, f32: what rotary embedding multiplies by.
///
/// Pair i of a head turns by `position · theta^(−2i/dim)`; both its entries hold the same cosine (sine). Angles are
/// computed in f64 and rounded once, as diffusers' `get_1d_rotary_pos_embed(use_real=True, repeat_interleave_real=True,
/// freqs_dtype=torch.float64)` does. A model with several position axes (Flux: three) joins their tables along dim 1.
///
/// # Shapes
/// positions: l numbers; both results `[l, dim]`.
///
/// # Errors
/// If `dim` is odd or there is no memory.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, rope::rope_table};
/// let (cos, sin) = rope_table(&[0f32, 1.], 2, 10_000.0, &Device::cpu())?;
/// let turned = [1., 1., 1f64.cos() as f32, 1f64.cos() as f32];
/// assert_eq!(cos.to_vec_blocking::<f32>()?, turned);
/// assert_eq!(sin.narrow(0, 1, 1)?.to_vec_blocking::<f32>()?, [1f64.sin() as f32; 2]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
pub fn rope_table<P: Copy + Into<f64>>(
    positions: &[P],
    dim: usize,
    theta: f64,
    device: &Device,
) -> Result<(Tensor, Tensor)> {
    if !dim.is_multiple_of(2) {
        return Err(Error::shape("rope_table", "an even dim", dim));
    }
    const OP: &str = "rope_table";
    let shape = [positions.len(), dim];
    let len = Layout::of_output(OP, shape.into(), DType::F32)?.numel();
    if len == 0 {
        let none = Tensor::zeros(shape, DType::F32, device)?;
        return Ok((none.clone(), none));
    }
    let (mut cos, mut sin) = (reserved(OP, len)?, reserved(OP, len)?);
    let mut frequencies: Vec<f64> = reserved(OP, dim / 2)?;
    let pairs = (0..dim).step_by(2);
    frequencies.extend(pairs.map(|i| 1.0 / theta.powf(i as f64 / dim as f64)));
    for &position in positions {
        for frequency in &frequencies {
            let angle = position.into() * frequency;
            cos.extend([angle.cos() as f32; 2]);
            sin.extend([angle.sin() as f32; 2]);
        }
    }
    Ok((
        Tensor::from_slice(&cos, shape, device)?,
        Tensor::from_slice(&sin, shape, device)?,
    ))
}
