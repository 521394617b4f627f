use crate::{
    DType, Float, Result, View, ViewMut, dtype::by_float, shape::MAX_NDIM, shared::Shared,
};
use rayon::prelude::*;

/// Below this many elements a copy runs on the calling thread.
const SERIAL: usize = 1 << 14;

/// Most elements of a row that one task copies: a whole tensor may be one row.
const PIECE: usize = 1 << 16;

/// Copies: as bits within one dtype, else converted between floats, or a float and u8. Shapes are equal (checked by the caller).
pub(super) fn copy(op: &'static str, x: View<'_>, out: ViewMut<'_>) -> Result<()> {
    if x.dtype() == out.dtype() {
        match x.dtype().size() {
            1 => rows::<u8, u8, true>(x, out, |bits| bits),
            2 => rows::<u16, u16, true>(x, out, |bits| bits),
            _ => rows::<u32, u32, true>(x, out, |bits| bits),
        }
        return Ok(());
    }
    match (x.dtype(), out.dtype()) {
        (DType::U8, to) => {
            by_float!(op, to, D => rows::<u8, D, false>(x, out, |x| D::from_f32(f32::from(x))));
            Ok(())
        }
        (from, DType::U8) => {
            by_float!(op, from, S => rows::<S, u8, false>(x, out, |x| x.to_f32() as u8));
            Ok(())
        }
        (from, _) => by_float!(op, from, S => converted::<S>(op, x, out)),
    }
}

fn converted<S: Float>(op: &'static str, x: View<'_>, out: ViewMut<'_>) -> Result<()> {
    by_float!(op, out.dtype(), D => rows::<S, D, false>(x, out, |x| D::from_f32(x.to_f32())));
    Ok(())
}

/// Row by row, and long rows piece by piece: a row is the last dims that are contiguous on both sides. Elements of x are as
/// large as `S`, those of out as `D`; with `SAME` these are one type and `convert` changes nothing.
fn rows<S: Copy, D: Copy, const SAME: bool>(
    x: View<'_>,
    mut out: ViewMut<'_>,
    convert: impl Fn(S) -> D + Sync,
) {
    if x.numel() == 0 {
        return;
    }
    let (shape, xs, os) = (x.shape(), x.strides(), out.strides().to_vec());
    let mut outer = shape.len();
    let mut row = 1;
    while outer > 0 && xs[outer - 1] == row && os[outer - 1] == row {
        outer -= 1;
        row *= shape[outer];
    }
    // Not even the last dim is contiguous: it becomes a row with strides.
    let (row, x_step, o_step) = if outer == shape.len() && outer > 0 {
        outer -= 1;
        (shape[outer], xs[outer], os[outer])
    } else {
        (row, 1, 1)
    };
    let count: usize = shape[..outer].iter().product();
    let dst = Shared(out.ptr().cast::<D>());
    let pieces = row.div_ceil(PIECE);
    let one = |task: usize| {
        let first = task % pieces * PIECE;
        let n = PIECE.min(row - first);
        let (mut rest, mut xo, mut oo) = (task / pieces, first * x_step, first * o_step);
        debug_assert!(outer <= MAX_NDIM, "dims are few");
        for d in (0..outer).rev() {
            let i = rest % shape[d];
            rest /= shape[d];
            xo += i * xs[d];
            oo += i * os[d];
        }
        // SAFETY: xo and oo are offsets of indices inside the shape, which both views reach by construction, as they do for
        // n elements from there; pieces of different tasks are disjoint in `out` (its strides never overlap), and `out` is
        // exclusively borrowed.
        unsafe {
            let src = x.ptr().cast::<S>().add(xo);
            let dst = dst.ptr().add(oo);
            if SAME && x_step == 1 && o_step == 1 {
                std::ptr::copy_nonoverlapping(src.cast::<D>(), dst, n);
            } else {
                for i in 0..n {
                    dst.add(i * o_step).write(convert(*src.add(i * x_step)));
                }
            }
        }
    };
    let tasks = count * pieces;
    if row * count < SERIAL || tasks == 1 {
        (0..tasks).for_each(one);
    } else {
        (0..tasks)
            .into_par_iter()
            .with_min_len(SERIAL.div_ceil(row))
            .for_each(one);
    }
}
