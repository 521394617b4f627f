//! Finds NaN and infinity in a tensor, wherever it lies.

use crate::{DType, Result, Tensor, simd::Shared};
use rayon::prelude::*;

/// Elements that one task looks at.
const CHUNK: usize = 1 << 16;

impl Tensor {
    /// The index of the first NaN or infinity, row-major; `None` when all numbers are finite.
    ///
    /// Blocks until the device has found it, and counts as one of [`Device::host_reads`](crate::Device::host_reads).
    ///
    /// # Errors
    /// If the dtype is none that kernels compute with, or the device failed.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::{Device, Tensor};
    /// let x = Tensor::from_slice(&[1f32, f32::NAN], [2], &Device::cpu())?;
    /// assert_eq!(x.first_not_finite_blocking()?, Some(1));
    /// # Ok::<(), xdit_kernels::Error>(())
    /// ```
    pub fn first_not_finite_blocking(&self) -> Result<Option<usize>> {
        self.device().synchronize()?;
        self.device().count_host_read();
        let (at, len) = (self.view().ptr().cast_mut(), self.numel());
        // A number is finite unless all bits of its exponent are set.
        // SAFETY: a tensor is contiguous: `len` elements of its dtype, so as many words of that size, follow the pointer.
        Ok(unsafe {
            match self.dtype() {
                DType::F32 => first(Shared(at.cast::<u32>()), len, |w| {
                    w & 0x7f80_0000 == 0x7f80_0000
                }),
                DType::BF16 => first(Shared(at.cast::<u16>()), len, |w| w & 0x7f80 == 0x7f80),
                DType::F16 => first(Shared(at.cast::<u16>()), len, |w| w & 0x7c00 == 0x7c00),
                other => return Err(other.not_float("first_not_finite")),
            }
        })
    }
}

/// The first word for which `bad` holds. Chunks without one are passed over without a branch per word.
///
/// # Safety
/// `len` words can be read at `words`. Somebody else may change them.
unsafe fn first<T: Copy + Send>(
    words: Shared<T>,
    len: usize,
    bad: impl Fn(T) -> bool + Sync,
) -> Option<usize> {
    // SAFETY: i < len.
    let is_bad = |i: usize| bad(unsafe { words.ptr().add(i).read() });
    let chunk = |c: usize| c * CHUNK..len.min((c + 1) * CHUNK);
    let found = (0..len.div_ceil(CHUNK))
        .into_par_iter()
        .position_first(|c| chunk(c).fold(false, |any, i| any | is_bad(i)))?;
    // What was bad may have become good since, in a mapped file: then the chunk's first stands for it.
    let range = chunk(found);
    Some(range.clone().find(|&i| is_bad(i)).unwrap_or(range.start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn each_dtype_and_place_is_seen() {
        let device = crate::Device::cpu();
        let len = CHUNK + CHUNK / 2;
        let first = |values: &[f32]| {
            let halves: Vec<bf16> = values.iter().map(|v| bf16::from_f32(*v)).collect();
            let small: Vec<f16> = values
                .iter()
                .map(|v| f16::from_f32(v.min(65504.0)))
                .collect();
            [
                Tensor::from_slice(values, [len], &device)
                    .unwrap()
                    .first_not_finite_blocking()
                    .unwrap(),
                Tensor::from_slice(&halves, [len], &device)
                    .unwrap()
                    .first_not_finite_blocking()
                    .unwrap(),
                Tensor::from_slice(&small, [len], &device)
                    .unwrap()
                    .first_not_finite_blocking()
                    .unwrap(),
            ]
        };
        for (index, bad) in [
            (0, f32::NAN),
            (CHUNK - 1, f32::NEG_INFINITY),
            (CHUNK, f32::NEG_INFINITY),
            (len - 1, f32::NAN),
        ] {
            let mut values = vec![1.0_f32; len];
            values[7] = 3.0e38;
            values[8] = 65504.0;
            assert_eq!(first(&values), [None; 3]);
            values[index] = bad;
            // `min` gives the number where one side is NaN.
            let small = (!bad.is_nan()).then_some(index);
            assert_eq!(first(&values), [Some(index), Some(index), small]);
        }
        assert_eq!(
            Tensor::from_slice::<f32>(&[], [0], &device)
                .unwrap()
                .first_not_finite_blocking()
                .unwrap(),
            None
        );
    }
}
