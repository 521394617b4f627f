use crate::{Result, View, ViewMut, rows::Floats, simd::Shared};
use rayon::prelude::*;

/// Pixels of one task.
const PIECE: usize = 1 << 14;

/// Shapes and dtypes are checked by the caller; `out` is contiguous.
pub(super) fn rgb8(op: &'static str, planes: View<'_>, mut out: ViewMut<'_>) -> Result<()> {
    let values = Floats::new(op, planes, planes.shape())?;
    let (images, pixels) = (planes.dim(0), planes.dim(2) * planes.dim(3));
    let to = Shared(out.ptr());
    let pieces = pixels.div_ceil(PIECE);
    (0..images * pieces).into_par_iter().for_each(|task| {
        let (image, first) = (task / pieces, task % pieces * PIECE);
        let count = PIECE.min(pixels - first);
        let planes = &values[image * 3 * pixels..(image + 1) * 3 * pixels];
        let [red, green, blue] = [0, 1, 2].map(|c| &planes[c * pixels + first..][..count]);
        // SAFETY: `out` is contiguous and exclusively borrowed, with three bytes a pixel; pieces of different tasks are apart.
        unsafe {
            let out = to.ptr().add(3 * (image * pixels + first));
            for (i, ((r, g), b)) in red.iter().zip(green).zip(blue).enumerate() {
                out.add(3 * i).write(level(*r));
                out.add(3 * i + 1).write(level(*g));
                out.add(3 * i + 2).write(level(*b));
            }
        }
    });
    Ok(())
}

/// A value in [0, 1] as one of 256 levels.
fn level(value: f32) -> u8 {
    (value * 255.0).round_ties_even() as u8
}
