use crate::{DType, Result, View, simd::Shared};
use rayon::prelude::*;
use std::ops::Range;

/// Elements that one task looks at.
pub(super) const CHUNK: usize = 1 << 16;

/// `by_bits!(op, x, WORDS, BAD => expression)` evaluates the expression with `WORDS` the elements of x as unsigned words, and
/// `BAD` the function that tells from a word whether it is NaN or an infinity: all bits of its exponent are set.
macro_rules! by_bits {
    ($op:expr, $x:expr, $words:ident, $bad:ident => $body:expr) => {{
        let at = $x.ptr().cast_mut();
        match $x.dtype() {
            DType::F32 => {
                let ($words, $bad) = (Shared(at.cast::<u32>()), |w: u32| {
                    w & 0x7f80_0000 == 0x7f80_0000
                });
                $body
            }
            DType::BF16 => {
                let ($words, $bad) = (Shared(at.cast::<u16>()), |w: u16| w & 0x7f80 == 0x7f80);
                $body
            }
            DType::F16 => {
                let ($words, $bad) = (Shared(at.cast::<u16>()), |w: u16| w & 0x7c00 == 0x7c00);
                $body
            }
            other => return Err(other.not_float($op)),
        }
    }};
}

/// The index of the first element of x, which is contiguous, that is NaN or infinite.
pub(super) fn first_not_finite(op: &'static str, x: View<'_>) -> Result<Option<usize>> {
    let len = x.numel();
    // SAFETY: x is contiguous: `len` elements of its dtype, so as many words of that size, follow the pointer.
    Ok(by_bits!(op, x, words, bad => unsafe { first(words, len, bad) }))
}

/// How many elements of x, which is contiguous, are NaN or infinite.
pub(crate) fn count_not_finite(op: &'static str, x: View<'_>) -> Result<u64> {
    assert!(x.is_contiguous(), "elements one after another");
    let len = x.numel();
    // SAFETY: as above.
    Ok(by_bits!(op, x, words, bad => unsafe { count(words, len, bad) }))
}

fn chunk(index: usize, len: usize) -> Range<usize> {
    index * CHUNK..len.min((index + 1) * CHUNK)
}

/// The first word for which `bad` holds. Chunks without one are passed over without a branch for each word.
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
    let found = (0..len.div_ceil(CHUNK))
        .into_par_iter()
        .position_first(|c| chunk(c, len).fold(false, |any, i| any | is_bad(i)))?;
    // What was bad may have become good since, in a mapped file: then the chunk's first stands for it.
    let range = chunk(found, len);
    Some(range.clone().find(|&i| is_bad(i)).unwrap_or(range.start))
}

/// For how many words `bad` holds.
///
/// # Safety
/// As [`first`]'s.
unsafe fn count<T: Copy + Send>(
    words: Shared<T>,
    len: usize,
    bad: impl Fn(T) -> bool + Sync,
) -> u64 {
    // SAFETY: i < len.
    let is_bad = |i: usize| u64::from(bad(unsafe { words.ptr().add(i).read() }));
    (0..len.div_ceil(CHUNK))
        .into_par_iter()
        .map(|c| chunk(c, len).map(is_bad).sum::<u64>())
        .sum()
}
