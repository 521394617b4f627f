use crate::{Float, Result, View, ViewMut, dtype::by_float, simd::Shared};
use rayon::prelude::*;

/// Shapes are checked.
pub(super) fn upsample(x: View<'_>, out: ViewMut<'_>) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    by_float!("upsample_nearest_2x", x.dtype(), T => rows::<T>(x, out));
    Ok(())
}

/// One task a row of the output.
fn rows<T: Float>(x: View<'_>, mut out: ViewMut<'_>) {
    let [b, h, w, c] = [0, 1, 2, 3].map(|d| x.dim(d));
    let xs = [0, 1, 2, 3].map(|d| x.strides()[d]);
    let os = [0, 1, 2, 3].map(|d| out.strides()[d]);
    let dst = Shared(out.ptr().cast::<T>());
    (0..b * 2 * h)
        .into_par_iter()
        .with_min_len((4096 / (w * c)).max(1))
        .for_each(|row| {
            let (batch, y) = (row / (2 * h), row % (2 * h));
            for column in 0..2 * w {
                // SAFETY: the indices are inside both shapes, which the views reach; rows of the output are disjoint and
                // it is exclusively borrowed.
                unsafe {
                    let from = x
                        .ptr()
                        .cast::<T>()
                        .add(batch * xs[0] + y / 2 * xs[1] + column / 2 * xs[2]);
                    let to = dst.ptr().add(batch * os[0] + y * os[1] + column * os[2]);
                    if xs[3] == 1 && os[3] == 1 {
                        std::ptr::copy_nonoverlapping(from, to, c);
                    } else {
                        for i in 0..c {
                            to.add(i * os[3]).write(*from.add(i * xs[3]));
                        }
                    }
                }
            }
        });
}
