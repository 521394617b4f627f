//! Row operations.

use crate::{
    draw::{Draw, settled},
    guard::{guarded, same},
};
use xdit_kernels::{
    Result, Tensor, View, activation as act,
    activation::Activation,
    elementwise as el, embedding as emb, norm,
    rope::{self, HeadNorm, QkNormRope},
    softmax as soft,
};

const ACTIVATIONS: [Activation; 5] = [
    Activation::GeluTanh,
    Activation::GeluErf,
    Activation::QuickGelu,
    Activation::Silu,
    Activation::Relu,
];

/// A number for eps or a factor, now and then none that a model has.
fn float(d: &mut Draw<'_>) -> f32 {
    d.of(&[1e-5, 1e-6, 0.0, 0.5, -1.0, f32::NAN, f32::INFINITY])
}

/// A shape of 0 to 4 dims.
fn shape(d: &mut Draw<'_>) -> Vec<usize> {
    let dims: [usize; 4] = d.sizes();
    dims[..d.of(&[2, 3, 3, 4, 1, 0])].to_vec()
}

/// A parameter of c elements, of any dtype, now and then of another length.
fn parameter(d: &mut Draw<'_>, shape: &[usize]) -> Option<View<'static>> {
    let dtype = d.dtype();
    if d.once_in(12) {
        let other: [usize; 2] = d.sizes();
        return d.view_of(&other[..shape.len().min(2)], dtype);
    }
    d.view_of(shape, dtype)
}

pub(crate) fn activation(d: &mut Draw<'_>) {
    let (shape, dtype) = (shape(d), d.dtype());
    let Some(x) = d.view_of(&shape, dtype) else {
        return;
    };
    let which = d.of(&ACTIVATIONS);
    let got = guarded(d, &shape, dtype, |out| act::activation_into(x, which, out));
    if let Ok(y) = act::activation(x, which) {
        same(got.as_ref(), act::activation(&settled(&x), which));
        same(Some(&y), act::activation(&settled(&x), which));
    }
}

pub(crate) fn gated(d: &mut Draw<'_>) {
    let (shape, dtype) = (shape(d), d.dtype());
    let y_dtype = d.dtype();
    let (Some(x), Some(y)) = (d.view_of(&shape, dtype), d.view_of(&shape, y_dtype)) else {
        return;
    };
    let (x, which) = (x, d.of(&ACTIVATIONS));
    let got = guarded(d, &shape, dtype, |out| act::gated_into(x, y, which, out));
    if act::gated(x, y, which).is_ok() {
        same(got.as_ref(), act::gated(&settled(&x), &settled(&y), which));
    }
}

pub(crate) fn elementwise(d: &mut Draw<'_>) {
    let (shape, dtype) = (shape(d), d.dtype());
    let tail = shape[d.below(shape.len() + 1)..].to_vec();
    let y_dtype = if d.once_in(4) { d.dtype() } else { dtype };
    let (Some(x), Some(y)) = (d.view_of(&shape, dtype), d.view_of(&tail, y_dtype)) else {
        return;
    };
    let (x, a, which) = (x, float(d), d.below(4));
    let call = |x: View<'_>, y: View<'_>| match which {
        0 => el::add(x, y),
        1 => el::sub(x, y),
        2 => el::mul(x, y),
        _ => el::add_scaled(x, y, a),
    };
    let got = guarded(d, &shape, dtype, |out| match which {
        0 => el::add_into(x, y, out),
        1 => el::sub_into(x, y, out),
        2 => el::mul_into(x, y, out),
        _ => el::add_scaled_into(x, y, a, out),
    });
    if call(x, y).is_ok() {
        same(got.as_ref(), call(settled(&x).view(), settled(&y).view()));
    }
}

pub(crate) fn scale(d: &mut Draw<'_>) {
    let (shape, dtype) = (shape(d), d.dtype());
    let Some(x) = d.view_of(&shape, dtype) else {
        return;
    };
    let a = float(d);
    let got = guarded(d, &shape, dtype, |out| el::scale_into(x, a, out));
    if el::scale(x, a).is_ok() {
        same(got.as_ref(), el::scale(&settled(&x), a));
    }
}

pub(crate) fn gate_residual(d: &mut Draw<'_>) {
    let shape: [usize; 3] = d.sizes();
    let dtype = d.dtype();
    let x_dtype = if d.once_in(4) { d.dtype() } else { dtype };
    let (Some(x), Some(residual), Some(gate)) = (
        d.view_of(&shape, x_dtype),
        d.view_of(&shape, dtype),
        parameter(d, &[shape[0], shape[2]]),
    ) else {
        return;
    };
    let got = guarded(d, &shape, dtype, |out| {
        el::gate_residual_into(x, gate, residual, out)
    });
    if el::gate_residual(x, gate, residual).is_ok() {
        let residual = settled(&residual);
        let want = el::gate_residual(&settled(&x), &settled(&gate), &residual);
        same(got.as_ref(), want);
    }
}

/// A norm of x by two parameters that may be missing.
fn normed(
    d: &mut Draw<'_>,
    shape: &[usize],
    parameters: [Option<View<'static>>; 2],
    call: impl Fn(View<'_>, [Option<View<'_>>; 2], f32) -> Result<Tensor>,
    into: impl Fn(View<'_>, [Option<View<'_>>; 2], f32, xdit_kernels::ViewMut<'_>) -> Result<()>,
) {
    let (dtype, eps) = (d.dtype(), float(d));
    let Some(x) = d.view_of(shape, dtype) else {
        return;
    };
    let got = guarded(d, shape, dtype, |out| into(x, parameters, eps, out));
    if call(x, parameters, eps).is_ok() {
        let held = parameters.map(|p| p.map(|p| settled(&p)));
        let views = held.each_ref().map(|p| p.as_ref().map(Tensor::view));
        same(got.as_ref(), call(settled(&x).view(), views, eps));
    }
}

pub(crate) fn layer_norm(d: &mut Draw<'_>) {
    let shape = shape(d);
    let c = shape.last().copied().unwrap_or(1);
    let p = [0; 2].map(|_| {
        if d.once_in(3) {
            None
        } else {
            parameter(d, &[c])
        }
    });
    normed(
        d,
        &shape,
        p,
        |x, [w, b], eps| norm::layer_norm(x, w, b, eps),
        |x, [w, b], eps, out| norm::layer_norm_into(x, w, b, eps, out),
    );
}

pub(crate) fn rms_norm(d: &mut Draw<'_>) {
    let shape = shape(d);
    let c = shape.last().copied().unwrap_or(1);
    let p = if d.once_in(3) {
        None
    } else {
        parameter(d, &[c])
    };
    normed(
        d,
        &shape,
        [p, None],
        |x, [w, _], eps| norm::rms_norm(x, w, eps),
        |x, [w, _], eps, out| norm::rms_norm_into(x, w, eps, out),
    );
}

pub(crate) fn layer_norm_modulate(d: &mut Draw<'_>) {
    let shape: [usize; 3] = d.sizes();
    let row = [shape[0], shape[2]];
    let (Some(shift), Some(scale)) = (parameter(d, &row), parameter(d, &row)) else {
        return;
    };
    normed(
        d,
        &shape,
        [Some(shift), Some(scale)],
        |x, p, eps| norm::layer_norm_modulate(x, p[0].unwrap(), p[1].unwrap(), eps),
        |x, p, eps, out| norm::layer_norm_modulate_into(x, p[0].unwrap(), p[1].unwrap(), eps, out),
    );
}

pub(crate) fn layer_norm_shift(d: &mut Draw<'_>) {
    let shape: [usize; 3] = d.sizes();
    let (weight, shift) = (
        parameter(d, &[shape[2]]),
        parameter(d, &[shape[0], shape[2]]),
    );
    let (Some(weight), Some(shift)) = (weight, shift) else {
        return;
    };
    normed(
        d,
        &shape,
        [Some(weight), Some(shift)],
        |x, p, eps| norm::layer_norm_shift(x, p[0].unwrap(), p[1].unwrap(), eps),
        |x, p, eps, out| norm::layer_norm_shift_into(x, p[0].unwrap(), p[1].unwrap(), eps, out),
    );
}

pub(crate) fn softmax(d: &mut Draw<'_>) {
    let shape = shape(d);
    normed(
        d,
        &shape,
        [None; 2],
        |x, _, _| soft::softmax(x),
        |x, _, _, out| soft::softmax_into(x, out),
    );
}

/// cos and sin for l tokens of d entries, now and then none.
type Rope = Option<(View<'static>, View<'static>)>;

fn tables(d: &mut Draw<'_>, l: usize, dim: usize) -> Rope {
    if d.once_in(3) {
        return None;
    }
    Some((parameter(d, &[l, dim])?, parameter(d, &[l, dim])?))
}

pub(crate) fn norm_rope(d: &mut Draw<'_>) {
    let mut shape: [usize; 4] = d.sizes();
    if d.once_in(2) {
        shape[3] = d.of(&[2, 4, 6, 16, 18]);
    }
    let rope = tables(d, shape[1], shape[3]);
    let (weight, bias) = (parameter(d, &[shape[3]]), parameter(d, &[shape[3]]));
    // With a bias, a LayerNorm.
    let p = if d.once_in(2) {
        [weight, None]
    } else {
        [weight, bias]
    };
    normed(
        d,
        &shape,
        p,
        |x, p, eps| match p {
            [Some(weight), Some(bias)] => rope::layer_norm_rope(x, weight, bias, eps, rope),
            [weight, _] => rope::rms_norm_rope(x, weight, eps, rope),
        },
        |x, p, eps, out| match p {
            [Some(w), Some(b)] => rope::layer_norm_rope_into(x, w, b, eps, rope, out),
            [weight, _] => rope::rms_norm_rope_into(x, weight, eps, rope, out),
        },
    );
}

pub(crate) fn qk_norm_rope(d: &mut Draw<'_>) {
    let [b, l, h, mut dim]: [usize; 4] = d.sizes();
    if d.once_in(2) {
        dim = d.of(&[2, 4, 6, 16, 18]);
    }
    let (dtype, device) = (d.dtype(), d.device());
    let Some(qkv) = d.view_of(&[b, l, 3, h, dim], dtype) else {
        return;
    };
    let rope = tables(d, l, dim);
    let mut norm = || match (d.below(3), parameter(d, &[dim]), parameter(d, &[dim])) {
        (0, Some(weight), _) => Some(HeadNorm::Rms(weight)),
        (1, Some(weight), Some(bias)) => Some(HeadNorm::Layer { weight, bias }),
        _ => None,
    };
    let (norm_q, norm_k) = (norm(), norm());
    let options = QkNormRope {
        norm_q,
        norm_k,
        eps: float(d),
        rope,
    };
    let out = [b, l, h, dim];
    let run = |d: &mut Draw<'_>, qkv: View<'_>| {
        let (mut k, mut v) = (None, None);
        let q = guarded(d, &out, dtype, |q| {
            // The two others inside, so that all three are guarded.
            let mut done = Ok(());
            let mut inner = Draw::on(device, &[1, 2, 0]);
            k = guarded(&mut inner, &out, dtype, |k| {
                let mut inner = Draw::on(device, &[0, 1, 2]);
                v = guarded(&mut inner, &out, dtype, |v| {
                    done = rope::qk_norm_rope_into(qkv, &options, q, k, v);
                    Ok(())
                });
                Ok(())
            });
            done
        });
        q.zip(k).zip(v)
    };
    let got = run(d, qkv);
    if let Some(((q, k), v)) = got
        && let Some(((q2, k2), v2)) = run(d, settled(&qkv).view())
    {
        for (a, b) in [(q, q2), (k, k2), (v, v2)] {
            same(Some(&a), Ok(b));
        }
    }
}

pub(crate) fn rope_table(d: &mut Draw<'_>) {
    let positions: Vec<f32> = (0..d.small()).map(|i| i as f32).collect();
    let dim = d.size();
    let theta = d.of(&[10_000.0, 0.0, -1.0, f64::NAN]);
    if let Ok((cos, sin)) = rope::rope_table(&positions, dim, theta, d.device()) {
        assert_eq!(cos.shape(), [positions.len(), dim]);
        assert_eq!(sin.numel(), cos.numel());
    }
}

pub(crate) fn embedding(d: &mut Draw<'_>) {
    let shape: [usize; 2] = d.sizes();
    let dtype = d.dtype();
    let Some(table) = d.view_of(&shape, dtype) else {
        return;
    };
    let ids: Vec<u32> = (0..d.small())
        .map(|_| match d.below(16) {
            0 => u32::MAX,
            n => (n % shape[0].clamp(1, 100)) as u32,
        })
        .collect();
    let known = ids.iter().all(|&id| (id as usize) < shape[0]);
    let ids = Tensor::from_slice(&ids, [ids.len()], d.device()).expect("memory for a few");
    let got = guarded(d, &[ids.numel(), shape[1]], dtype, |out| {
        emb::embedding_into(table, &ids, out)
    });
    let returned = emb::embedding(table, &ids);
    assert!(known || returned.is_err());
    if returned.is_ok() {
        same(got.as_ref(), emb::embedding(&settled(&table), &ids));
    }
}
