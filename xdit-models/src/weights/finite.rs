//! Finds NaN and infinity in weights.

use half::{bf16, f16};
use rayon::prelude::*;
use xdit_kernels::Tensor;

/// Elements that one task looks at.
const CHUNK: usize = 1 << 16;

/// The index of the first NaN or infinity of `tensor`, row-major; `None` when all numbers are finite.
///
/// # Examples
/// ```
/// use xdit_kernels::Tensor;
/// use xdit_models::weights::first_not_finite;
/// let tensor = Tensor::from_slice(&[1.0_f32, f32::NAN], [2])?;
/// assert_eq!(first_not_finite(&tensor), Some(1));
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[must_use]
pub fn first_not_finite(tensor: &Tensor) -> Option<usize> {
    // A number is finite unless all bits of its exponent are set.
    if let Some(values) = tensor.as_slice::<f32>() {
        first(values, |value| value.to_bits() & 0x7f80_0000 == 0x7f80_0000)
    } else if let Some(values) = tensor.as_slice::<bf16>() {
        first(values, |value| value.to_bits() & 0x7f80 == 0x7f80)
    } else if let Some(values) = tensor.as_slice::<f16>() {
        first(values, |value| value.to_bits() & 0x7c00 == 0x7c00)
    } else {
        None
    }
}

/// The first element for which `bad` holds. Chunks without one are passed over without a branch per element.
fn first<T: Copy + Sync>(values: &[T], bad: impl Fn(T) -> bool + Sync) -> Option<usize> {
    let look = |chunk: &[T]| chunk.iter().fold(false, |any, value| any | bad(*value));
    let chunk = values.par_chunks(CHUNK).position_first(look)?;
    let start = chunk * CHUNK;
    values[start..]
        .iter()
        .position(|value| bad(*value))
        .map(|offset| start + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dtype_and_place_is_seen() {
        for (index, bad) in [
            (0, f32::NAN),
            (70_000, f32::INFINITY),
            (CHUNK, f32::NEG_INFINITY),
            (99_999, f32::NAN),
        ] {
            let mut values = vec![1.0_f32; 100_000];
            values[7] = 3.0e38;
            values[8] = 65504.0;
            assert_eq!(
                first_not_finite(&Tensor::from_slice(&values, [100_000]).unwrap()),
                None
            );
            values[index] = bad;
            assert_eq!(
                first_not_finite(&Tensor::from_slice(&values, [100_000]).unwrap()),
                Some(index)
            );
            let halves: Vec<bf16> = values.iter().map(|v| bf16::from_f32(*v)).collect();
            assert_eq!(
                first_not_finite(&Tensor::from_slice(&halves, [100_000]).unwrap()),
                Some(index)
            );
            values[7] = 1.0;
            let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
            assert_eq!(
                first_not_finite(&Tensor::from_slice(&halves, [100_000]).unwrap()),
                Some(index)
            );
        }
    }
}
