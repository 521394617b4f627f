//! Outputs with memory around them that must not change, and the two promises that every kernel's case checks.

use crate::draw::Draw;
use xdit_kernels::{DType, Result, Tensor, TensorMut, View, ViewMut, layout};

/// More elements than a case writes.
const MOST: usize = 1 << 18;

/// What lies around an output: exact in every dtype.
const CANARY: f32 = -1024.0;

fn flood(out: ViewMut<'_>) {
    let shape = out.shape().to_vec();
    if shape.contains(&0) {
        return;
    }
    let one = [CANARY];
    let repeat = vec![0; shape.len()];
    let device = out.device();
    let flat = View::from_slice_strided(&one, shape.as_slice(), repeat.as_slice(), device);
    layout::copy_into(flat.expect("a small shape"), out).expect("the same shape");
}

/// What `call` writes into an output of this shape that is a part of a larger tensor; `None` if it fails. Panics if
/// anything around the output changes.
pub(crate) fn guarded(
    d: &mut Draw<'_>,
    shape: &[usize],
    dtype: DType,
    call: impl FnOnce(ViewMut<'_>) -> Result<()>,
) -> Option<Tensor> {
    let pads: Vec<[usize; 2]> = shape.iter().map(|_| [d.below(3), d.below(3)]).collect();
    let padded: Option<Vec<usize>> = shape
        .iter()
        .zip(&pads)
        .map(|(n, pad)| n.checked_add(pad[0] + pad[1]))
        .collect();
    let padded = padded?;
    let numel = padded.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    if numel > MOST {
        return None;
    }
    let mut whole = TensorMut::zeros(padded.as_slice(), dtype, d.device()).ok()?;
    flood(whole.view_mut());
    let done = call(part(whole.view_mut(), shape, &pads));
    let inner = {
        let mut view = whole.view();
        for (dim, (&n, pad)) in shape.iter().zip(&pads).enumerate() {
            view = view.narrow(dim, pad[0], n).expect("inside the padding");
        }
        view.to_tensor().expect("memory for a small view")
    };
    flood(part(whole.view_mut(), shape, &pads));
    let whole = whole.freeze().to_vec_blocking::<f32>().unwrap();
    assert!(
        whole.iter().all(|&v| v == CANARY),
        "something was written around the output {shape:?} in {padded:?}"
    );
    done.ok().map(|()| inner)
}

fn part<'a>(whole: ViewMut<'a>, shape: &[usize], pads: &[[usize; 2]]) -> ViewMut<'a> {
    let dims = shape.iter().zip(pads).enumerate();
    dims.fold(whole, |view, (dim, (&n, pad))| {
        view.narrow(dim, pad[0], n).expect("inside the padding")
    })
}

/// Two ways to the same result: one made into guarded memory from views with any strides, one returned for settled copies.
/// An error on one side only must come from what the other side does not have to do (an output in one piece, a copy).
pub(crate) fn same(guarded: Option<&Tensor>, returned: Result<Tensor>) {
    if let (Some(a), Ok(b)) = (guarded, &returned) {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        assert!(
            a.host_bytes_blocking().unwrap() == b.host_bytes_blocking().unwrap(),
            "strides changed the result: {:?} and {:?}",
            a.to_vec_blocking::<f32>().unwrap(),
            b.to_vec_blocking::<f32>().unwrap()
        );
    }
}
