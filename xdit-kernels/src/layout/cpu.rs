use crate::{DType, Element, View, ViewMut, shape::MAX_NDIM};
use half::{bf16, f16};
use rayon::prelude::*;

/// Below this many elements a copy runs on the calling thread.
const SERIAL: usize = 1 << 14;

/// Copies with conversion. Shapes are equal (checked by the caller).
pub(super) fn copy(x: View<'_>, out: ViewMut<'_>) {
    match x.dtype() {
        DType::F32 => from::<f32>(x, out),
        DType::BF16 => from::<bf16>(x, out),
        DType::F16 => from::<f16>(x, out),
    }
}

fn from<S: Element>(x: View<'_>, out: ViewMut<'_>) {
    match out.dtype() {
        DType::F32 => rows::<S, f32>(x, out),
        DType::BF16 => rows::<S, bf16>(x, out),
        DType::F16 => rows::<S, f16>(x, out),
    }
}

struct Ptr<T>(*mut T);
// SAFETY: the tasks that share it write disjoint rows.
unsafe impl<T> Send for Ptr<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Ptr<T> {}

/// Row by row: a row is the last dims that are contiguous on both sides.
fn rows<S: Element, D: Element>(x: View<'_>, mut out: ViewMut<'_>) {
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
    let dst = Ptr(out.ptr().cast::<D>());
    let one = |index: usize| {
        let dst = &dst;
        let (mut rest, mut xo, mut oo) = (index, 0, 0);
        debug_assert!(outer <= MAX_NDIM, "dims are few");
        for d in (0..outer).rev() {
            let i = rest % shape[d];
            rest /= shape[d];
            xo += i * xs[d];
            oo += i * os[d];
        }
        // SAFETY: xo and oo are offsets of indices inside the shape, which both views reach by construction; rows of
        // different `index` are disjoint in `out` (its strides never overlap), and `out` is exclusively borrowed.
        unsafe {
            let src = x.ptr().cast::<S>().add(xo);
            let dst = dst.0.add(oo);
            if x_step == 1 && o_step == 1 && S::DTYPE == D::DTYPE {
                std::ptr::copy_nonoverlapping(src.cast::<D>(), dst, row);
            } else {
                for i in 0..row {
                    dst.add(i * o_step)
                        .write(D::from_f32((*src.add(i * x_step)).to_f32()));
                }
            }
        }
    };
    if row * count < SERIAL || count == 1 {
        (0..count).for_each(one);
    } else {
        (0..count)
            .into_par_iter()
            .with_min_len(SERIAL.div_ceil(row))
            .for_each(one);
    }
}
