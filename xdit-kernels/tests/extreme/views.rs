//! Views, tensors and copies: what all kernels' memory goes through.

use crate::{
    draw::{Draw, EXTREME, LEN, settled},
    guard::{guarded, same},
};
use xdit_kernels::{Tensor, View, layout};

fn shape(d: &mut Draw<'_>) -> Vec<usize> {
    let dims: [usize; 6] = d.sizes();
    dims[..d.below(7)].to_vec()
}

pub(crate) fn copy(d: &mut Draw<'_>) {
    let (shape, dtype, out_dtype) = (shape(d), d.dtype(), d.dtype());
    let Some(x) = d.view_of(&shape, dtype).filter(|x| x.numel() < 1 << 20) else {
        return;
    };
    let got = guarded(d, &shape, out_dtype, |out| layout::copy_into(x, out));
    same(got.as_ref(), layout::cast(x, out_dtype));
    if let Ok(copy) = layout::contiguous(x) {
        assert_eq!(copy.shape(), x.shape());
    }
}

pub(crate) fn cat(d: &mut Draw<'_>) {
    let (shape, dim) = (shape(d), d.below(7));
    let dtype = d.dtype();
    let parts: Vec<View<'_>> = (0..d.below(4))
        .filter_map(|_| {
            let mut shape = shape.clone();
            if let Some(n) = shape.get_mut(dim) {
                *n = d.size();
            }
            d.view_of(&shape, dtype).filter(|x| x.numel() < 1 << 20)
        })
        .collect();
    if let Ok(all) = Tensor::cat(&parts, dim) {
        let mut at = 0;
        for part in &parts {
            let n = part.dim(dim);
            same(Some(&settled(part)), all.narrow(dim, at, n));
            at += n;
        }
    }
}

/// Any number for a dim, a start or a length.
fn any(d: &mut Draw<'_>) -> usize {
    match d.below(8) {
        0 => d.of(&EXTREME),
        _ => d.below(6),
    }
}

pub(crate) fn view(d: &mut Draw<'_>) {
    let (shape, dtype) = (shape(d), d.dtype());
    let Some(mut x) = d.view_of(&shape, dtype) else {
        return;
    };
    for _ in 0..8 {
        let (a, b, c) = (any(d), any(d), any(d));
        let tail: Vec<usize> = (0..d.below(8)).map(|_| any(d)).collect();
        let next = match d.below(6) {
            0 => x.narrow(a, b, c),
            1 => x.select(a, b),
            2 => x.transpose(a, b),
            3 => x.permute(&tail),
            4 => x.split_last(&tail),
            _ => x.reshape(&tail[..tail.len().min(6)]),
        };
        x = next.unwrap_or(x);
        assert_eq!(x.shape().len(), x.strides().len());
        assert_eq!(x.numel(), x.shape().iter().product::<usize>());
        if x.numel() < 1 << 16 {
            // Each element is one of the memory's, whatever led there.
            assert_eq!(settled(&x).numel(), x.numel());
        }
    }
}

pub(crate) fn tensor(d: &mut Draw<'_>) {
    static BYTES: [u8; LEN] = [0; LEN];
    let (shape, dtype) = (shape(d), d.dtype());
    let offset = any(d);
    if let Ok(x) = Tensor::from_static(&BYTES, offset, shape.as_slice(), dtype, d.device()) {
        assert!(offset + x.byte_len() <= LEN);
        assert_eq!(x.host_bytes_blocking().unwrap().len(), x.byte_len());
        assert_eq!(x.to_vec_blocking::<f32>().unwrap().len(), x.numel());
        let (dim, start, len) = (any(d), any(d), any(d));
        if let Ok(part) = x.narrow(dim, start, len) {
            assert_eq!(part.first_not_finite_blocking().unwrap(), None);
        }
        let other = [any(d), any(d)];
        if let Ok(reshaped) = x.reshape(other) {
            assert_eq!(reshaped.numel(), x.numel());
        }
    }
    let small = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if small.is_none_or(|n| n < 1 << 16) || shape.iter().any(|&n| n >= 1 << 47) {
        let zeros = Tensor::zeros(shape.as_slice(), dtype, d.device());
        assert!(zeros.is_ok() || shape.iter().any(|n| EXTREME.contains(n)));
    }
}
