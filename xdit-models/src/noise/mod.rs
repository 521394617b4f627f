//! Noise that equals torch's: `torch.randn` of a CPU generator, and diffusers' `randn_tensor`.
//!
//! torch draws normal numbers in two ways (`ATen/native/cpu/DistributionTemplates.h` of torch 2.15). It draws fewer than 16
//! numbers one by one in f64 and keeps every second one inside the generator. It draws 16 and more in blocks of 16 uniform
//! numbers, which Box–Muller turns into normal numbers; a last partial block is drawn again together with the numbers before
//! it. bf16 and f16 are rounded f32 numbers. Values agree with torch to about one unit in the last place of torch's path on an
//! AVX-512 machine. torch's AVX2 path itself differs from that by up to 2.3e-6.

mod generator;
mod mt19937;
mod normal;

use xdit_kernels::reserved;

pub use self::generator::{Generator, NoiseType};

use crate::error::{Error, Result};

/// Draws the noise of a batch of `shape`, like diffusers' `randn_tensor(shape, generator, dtype=T)` (`utils/torch_utils.py`).
///
/// One generator draws the whole batch. Several generators draw one item each, in order.
///
/// # Shapes
/// The result has as many numbers as the product of `shape`, row-major.
///
/// # Errors
/// [`Error::InvalidRequest`] without a generator, or for several generators but not one per item; [`Error::OutOfMemory`] if the
/// noise does not fit in memory.
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
            available: None,
            cure: String::new(),
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
