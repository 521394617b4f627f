//! Convolution, group norm, upsampling.

use crate::{
    draw::{Draw, is_slow, settled},
    guard::{guarded, same},
};
use xdit_kernels::{
    Tensor, View,
    conv2d::{Algorithm, Conv2d, Conv2dOptions, Padding},
    group_norm::{GroupSums, group_norm as normalise, group_norm_into, group_norm_rows as bands},
    upsample as up,
};

/// A small number, or one that wraps when it is doubled, squared or added to another.
fn wild(d: &mut Draw<'_>) -> usize {
    const WILD: [usize; 8] = [
        1 << 16,
        1 << 31,
        1 << 32,
        (1 << 32) + 1,
        1 << 62,
        1 << 63,
        usize::MAX - 1,
        usize::MAX,
    ];
    if !cfg!(miri) && d.once_in(8) {
        d.of(&WILD)
    } else {
        d.below(4)
    }
}

/// Elements of an output that a test has time for.
const MOST: usize = 1 << 18;

pub(crate) fn conv2d(d: &mut Draw<'_>) {
    let [oc, ic]: [usize; 2] = d.sizes();
    let (kh, kw) = match d.below(4) {
        0 => (d.size(), d.small()),
        1 => (1 + d.below(3), 1 + d.below(5)),
        _ => (3, 3),
    };
    let (dtype, weight_dtype, device) = (d.dtype(), d.dtype(), d.device());
    let Some(weight) = d.view_of(&[oc, ic, kh, kw], weight_dtype) else {
        return;
    };
    let bias = d.view_of(&[oc], weight_dtype).filter(|_| d.once_in(2));
    let options = Conv2dOptions {
        stride: wild(d),
        padding: Padding {
            top: wild(d),
            bottom: wild(d),
            left: wild(d),
            right: wild(d),
        },
        algorithm: d.of(&[Algorithm::Auto, Algorithm::Direct, Algorithm::Winograd]),
        upsample: d.once_in(4),
    };
    let Ok(conv) = Conv2d::pack(weight, bias, options, dtype, device) else {
        return;
    };
    let [b, h, w] = d.sizes();
    let x_dtype = d.dtype();
    let Some(x) = d.view_of(&[b, h, w, ic], x_dtype) else {
        return;
    };
    let side = |n: usize, scale: usize, pad: usize, k: usize| {
        let padded = n.saturating_mul(scale).saturating_add(pad);
        padded.checked_sub(k).map_or(0, |n| n / options.stride + 1)
    };
    let scale = 1 + usize::from(options.upsample);
    let p = options.padding;
    let shape = [
        b,
        side(h, scale, p.top.saturating_add(p.bottom), kh),
        side(w, scale, p.left.saturating_add(p.right), kw),
        oc,
    ];
    // Rows that may not be there.
    let (start, len) = (wild(d), wild(d));
    if len < 16 && !is_slow(&[b.max(1), len, shape[2], oc], MOST) {
        let _ = conv.forward_rows(x, None, start..start.saturating_add(len));
    }
    if is_slow(&shape, MOST) {
        return;
    }
    let residual = d.view_of(&shape, x_dtype).filter(|_| d.once_in(2));
    let got = guarded(d, &shape, x_dtype, |out| {
        conv.forward_into(x, residual, out)
    });
    if conv.forward_with(x, residual).is_err() {
        return;
    }
    let bias = bias.map(|b| settled(&b));
    let again = Conv2d::pack(
        &settled(&weight),
        bias.as_ref().map(Tensor::view),
        options,
        dtype,
        device,
    )
    .expect("the same sizes");
    let residual = residual.map(|r| settled(&r));
    let want = again.forward_with(&settled(&x), residual.as_ref().map(Tensor::view));
    same(got.as_ref(), want);
}

/// A picture's dims and how many groups its channels are to fall into.
fn grouped(d: &mut Draw<'_>) -> ([usize; 4], usize) {
    let [b, h, w, in_group]: [usize; 4] = d.sizes();
    let groups = match d.below(4) {
        0 => wild(d),
        _ => 1 + d.below(4),
    };
    let c = if d.once_in(8) {
        d.size()
    } else {
        in_group.saturating_mul(groups)
    };
    ([b, h, w, c], groups)
}

pub(crate) fn group_norm(d: &mut Draw<'_>) {
    let (shape, groups) = grouped(d);
    let (dtype, p_dtype) = (d.dtype(), d.dtype());
    let (Some(x), Some(weight), Some(bias)) = (
        d.view_of(&shape, dtype),
        d.view_of(&shape[3..], p_dtype),
        d.view_of(&shape[3..], p_dtype),
    ) else {
        return;
    };
    let (silu, eps) = (d.once_in(2), d.of(&[1e-5, 0.0, -1.0, f32::NAN]));
    let got = guarded(d, &shape, dtype, |out| {
        group_norm_into(x, groups, weight, bias, eps, silu, out)
    });
    if normalise(x, groups, weight, bias, eps, silu).is_ok() {
        let (weight, bias) = (settled(&weight), settled(&bias));
        same(
            got.as_ref(),
            normalise(&settled(&x), groups, &weight, &bias, eps, silu),
        );
    }
}

pub(crate) fn group_norm_rows(d: &mut Draw<'_>) {
    let (shape, groups) = grouped(d);
    let dtype = d.dtype();
    let (weight, bias) = (d.view_of(&shape[3..], dtype), d.view_of(&shape[3..], dtype));
    let (Some(weight), Some(bias)) = (weight, bias) else {
        return;
    };
    let parts: Vec<View<'_>> = (0..1 + d.below(3))
        .filter_map(|_| {
            let rows = d.size();
            let shape = [shape[0], rows, shape[2], shape[3]];
            d.view_of(&shape, dtype)
        })
        .collect();
    let sums: Vec<Vec<f64>> = parts
        .iter()
        .filter_map(|part| GroupSums::of(*part, groups).ok())
        .map(|sums| sums.to_vec_blocking().unwrap())
        .collect();
    let claimed = if d.once_in(8) { wild(d) } else { groups };
    if let Ok(sums) = GroupSums::total(claimed, &sums, d.device())
        && let Ok(got) = bands(&parts, &sums, weight, bias, 1e-5, false)
    {
        let held: Vec<Tensor> = parts.iter().map(settled).collect();
        let views: Vec<View<'_>> = held.iter().map(Tensor::view).collect();
        same(Some(&got), bands(&views, &sums, weight, bias, 1e-5, false));
    }
}

pub(crate) fn upsample(d: &mut Draw<'_>) {
    let shape: [usize; 4] = d.sizes();
    let dtype = d.dtype();
    let Some(x) = d.view_of(&shape, dtype) else {
        return;
    };
    let [b, h, w, c] = shape;
    let out = [b, h.saturating_mul(2), w.saturating_mul(2), c];
    let got = guarded(d, &out, dtype, |out| up::upsample_nearest_2x_into(x, out));
    if up::upsample_nearest_2x(x).is_ok() {
        same(got.as_ref(), up::upsample_nearest_2x(&settled(&x)));
    }
}
