//! One call: pointers, strides and sizes, and the loads and stores of pixels that both algorithms share.

use super::pack::PackedConv2d;
use crate::simd::{Lane, Shared, Simd};

/// One call: pointers, strides in elements, sizes. `h` and `w` are those of the input, doubled where it is upsampled.
pub(super) struct ConvCall<'a, T> {
    pub(super) packed: &'a PackedConv2d,
    pub(super) x: *const T,
    pub(super) x_strides: [usize; 3],
    pub(super) residual: Option<*const T>,
    pub(super) residual_strides: [usize; 3],
    pub(super) out: Shared<T>,
    pub(super) out_strides: [usize; 3],
    pub(super) batch: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    /// From coordinates of the doubled input to those of the pixels in memory: bits to shift to the right.
    pub(super) shift: usize,
    /// Rows of padding above the input of the first output row; wraps below 0 where a window starts further down.
    pub(super) top: usize,
    /// Columns of padding before the input.
    pub(super) left: usize,
    pub(super) oh: usize,
    pub(super) ow: usize,
    pub(super) ic: usize,
    pub(super) oc: usize,
    /// Distance between the inputs of neighbouring outputs; 1 where there is only one output, whatever the options say. So it is
    /// at most the size of the padded input.
    pub(super) stride: usize,
}

// SAFETY: the pointers are of a View (shared borrow) and a ViewMut (exclusive borrow) that outlive the call; tasks write
// disjoint output pixels.
unsafe impl<T> Sync for ConvCall<'_, T> {}

/// One tile of the output of the direct algorithm, whose input lies in the scratch.
#[derive(Clone, Copy)]
pub(super) struct ConvTile {
    pub(super) batch: usize,
    /// First row and column, number of rows and columns.
    pub(super) y0: usize,
    pub(super) x0: usize,
    pub(super) th: usize,
    pub(super) tw: usize,
    /// Columns of a phase: the distance between the rows of the output in the scratch.
    pub(super) wp: usize,
}

impl<T: Lane> ConvCall<'_, T> {
    /// Address of pixel (y, x) of the padded and possibly doubled input; `None` in the padding. Coordinates count from the
    /// corner of the input of the first output.
    #[inline(always)]
    pub(super) fn pixel(&self, batch: usize, y: usize, x: usize) -> Option<*const T> {
        let (y, x) = (y.wrapping_sub(self.top), x.wrapping_sub(self.left));
        if y >= self.h || x >= self.w {
            return None;
        }
        let shift = self.shift;
        let [sb, sy, sx] = self.x_strides;
        Some(
            self.x
                .wrapping_add(batch * sb + (y >> shift) * sy + (x >> shift) * sx),
        )
    }

    /// Offset of vector `v` of output channels of a pixel, in the output and in the residual.
    #[inline(always)]
    pub(super) fn place(
        &self,
        batch: usize,
        y: usize,
        x: usize,
        v: usize,
        lanes: usize,
    ) -> [usize; 2] {
        [self.out_strides, self.residual_strides]
            .map(|s| batch * s[0] + y * s[1] + x * s[2] + v * lanes)
    }

    /// Adds bias and residual to a vector of `n` output channels and stores it.
    ///
    /// # Safety
    /// `at` is a place inside the output and the residual that nobody else writes, with `n` channels from there on.
    #[inline(always)]
    pub(super) unsafe fn store<S: Simd>(&self, at: [usize; 2], n: usize, bias: S::V, sum: S::V) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = S::add(sum, bias);
            let out = self.out.ptr().add(at[0]);
            if n == S::LANES {
                if let Some(r) = self.residual {
                    sum = S::add(sum, T::load::<S>(r.add(at[1])));
                }
                T::store::<S>(out, sum);
            } else {
                if let Some(r) = self.residual {
                    sum = S::add(sum, T::load_n::<S>(r.add(at[1]), n));
                }
                T::store_n::<S>(out, n, sum);
            }
        }
    }

    /// The bias of vector `v` of output channels, and the number of its channels.
    #[inline(always)]
    pub(super) unsafe fn bias<S: Simd>(&self, v: usize) -> (S::V, usize) {
        // SAFETY: the bias is padded to whole vectors.
        let bias = unsafe { S::load(self.packed.bias.as_ptr().add(v * S::LANES)) };
        (bias, (self.oc - v * S::LANES).min(S::LANES))
    }
}
