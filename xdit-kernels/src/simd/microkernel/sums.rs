//! Where the sums of a tile begin, and where they go.

use super::step::{Micro, NV};
use crate::{dtype::FloatType, simd::Lane};
use half::{bf16, f16};

/// What the chains of a tile are added to, and where the sums are stored. Row i of the tile is `from[i·from_row ..]` and
/// `to[i·to_row ..]`. Both may be the same memory: so one block of k adds to the sums of the block before it.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    pub(crate) from: *const f32,
    pub(crate) from_row: usize,
    /// Elements of `dtype`, to which the sums are rounded.
    pub(crate) to: *mut u8,
    pub(crate) to_row: usize,
    pub(crate) dtype: FloatType,
}

impl Sums {
    /// The sums of the tile `rows` further down. Computes addresses only.
    #[inline(always)]
    pub(crate) fn below(&self, rows: usize) -> Self {
        Self {
            from: self.from.wrapping_add(rows * self.from_row),
            to: self.to.wrapping_add(rows * self.to_row * self.dtype.size()),
            ..*self
        }
    }

    /// Adds the ends of the chains `acc` to the columns from `column` on, and stores the sums.
    ///
    /// # Safety
    /// The elements at `from` and `to` are there; nobody else touches those at `to`.
    #[inline(always)]
    pub(super) unsafe fn put<S: Micro, const ROWS: usize>(
        &self,
        acc: &[[S::V; NV]; ROWS],
        column: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.dtype {
                FloatType::F32 => self.put_as::<S, f32, ROWS>(acc, column),
                FloatType::BF16 => self.put_as::<S, bf16, ROWS>(acc, column),
                FloatType::F16 => self.put_as::<S, f16, ROWS>(acc, column),
            }
        }
    }

    /// # Safety
    /// As [`put`](Self::put)'s; T is `dtype`.
    #[inline(always)]
    unsafe fn put_as<S: Micro, T: Lane, const ROWS: usize>(
        &self,
        acc: &[[S::V; NV]; ROWS],
        column: usize,
    ) {
        for (i, acc) in acc.iter().enumerate() {
            for (j, &v) in acc.iter().enumerate() {
                let column = column + j * S::LANES;
                // SAFETY: the caller's promise.
                unsafe {
                    let from = S::load(self.from.add(i * self.from_row + column));
                    T::store::<S>(
                        self.to.cast::<T>().add(i * self.to_row + column),
                        S::add(from, v),
                    );
                }
            }
        }
    }
}
