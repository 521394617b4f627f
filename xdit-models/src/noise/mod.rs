//! Noise equal to torch's: `torch.randn` of a CPU generator, and diffusers' `randn_tensor`.
//!
//! torch draws normal numbers in two ways (`ATen/native/cpu/DistributionTemplates.h` of torch 2.15): fewer than 16 one
//! by one in f64, keeping every second one inside the generator; 16 and more in blocks of 16 uniforms that Box–Muller
//! turns into normals, where a last partial block is drawn again together with its predecessors. bf16 and f16 are f32
//! draws, rounded. Values agree with torch to about one unit in the last place of the path that torch takes on an
//! AVX-512 machine; its AVX2 path is itself up to 2.3e-6 away from that.

mod generator;
mod mt19937;
mod normal;

use xdit_kernels::reserved;

pub use self::generator::{Generator, NoiseType};

use crate::error::{Error, Result};

/// The noise of a batch of `shape`, as diffusers' `randn_tensor(shape, generator, dtype=T)` (`utils/torch_utils.py`).
///
/// One generator draws the whole batch; several draw one item each, in order.
///
/// # Shapes
/// The result holds the product of `shape` numbers, row-major.
///
/// # Errors
/// [`Error::InvalidRequest`] without a generator, or when there are several but not one per item;
/// [`Error::OutOfMemory`] when the noise does not fit in memory.
///
/// # Examples
/// ```
/// use xdit_models::noise::{Generator, randn_tensor};
/// let mut each = [Generator::new(0), Generator::new(1)];
/// let noise: Vec<f32> = randn_tensor(&[2, 16, 4, 4], &mut each)?;
/// let second: Vec<f32> = randn_tensor(&[1, 16, 4, 4], &mut [Generator::new(1)])?;
/// assert_eq!(noise[256..], second);
/// # Ok::<(), xdit_models::Error>(())
/// ```
pub fn randn_tensor<T: NoiseType>(shape: &[usize], generators: &mut [Generator]) -> Result<Vec<T>> {
    let count = shape
        .iter()
        .try_fold(1_usize, |product, dim| product.checked_mul(*dim))
        .ok_or_else(|| Error::OutOfMemory {
            what: "noise".into(),
            bytes: u64::MAX,
        })?;
    match generators {
        [generator] => generator.randn(count),
        [_, ..] if shape.first() == Some(&generators.len()) => {
            let mut noise = reserved("noise", count)?;
            noise.resize(count, T::default());
            if count > 0 {
                for (item, generator) in noise.chunks_mut(count / generators.len()).zip(generators)
                {
                    generator.fill(item);
                }
            }
            Ok(noise)
        }
        _ => {
            let batch = shape.first().copied().unwrap_or(1);
            let allowed = format!("one generator, or one for each of the {batch} images");
            Err(Error::invalid(
                "generator",
                format!("{} generators", generators.len()),
                allowed,
            ))
        }
    }
}

#[cfg(test)]
mod tests;
