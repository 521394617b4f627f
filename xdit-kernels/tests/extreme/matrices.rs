//! Attention, the merge of its parts, linear layers.

use crate::{
    draw::{Draw, is_slow, settled},
    guard::{guarded, same},
};
use xdit_kernels::{
    DType, Tensor, View,
    activation::Activation,
    attention::{Attention, AttnInput, AttnOut, Flash, Mask, Segment, flash_into},
    linear::{Epilogue, Linear},
    merge as parts,
};

pub(crate) fn attention(d: &mut Draw<'_>) {
    let [b, lq, lk, group, mut dim]: [usize; 5] = d.sizes();
    let h_kv = d.small();
    let h = if d.once_in(8) {
        d.size()
    } else {
        h_kv.saturating_mul(group.min(8))
    };
    if d.once_in(16) {
        dim = (1 << 16) + d.below(2);
    }
    if is_slow(&[b, h, lq, lk, dim], 1 << 26) {
        return;
    }
    let (dtype, device) = (d.dtype(), d.device());
    let kv = [b, lk, h_kv, dim];
    let (Some(q), Some(k), Some(v)) = (
        d.view_of(&[b, lq, h, dim], dtype),
        d.view_of(&kv, dtype),
        d.view_of(&kv, dtype),
    ) else {
        return;
    };
    let seen: Vec<u8> = (0..b.saturating_mul(lk).min(4096) + usize::from(d.once_in(16)))
        .map(|i| u8::from(i % 3 != 1))
        .collect();
    let rows = [b, seen.len().checked_div(b).unwrap_or(0)];
    let seen = View::from_slice(&seen, rows, device).ok();
    let bias_shape = [b, h, lq].map(|n| if d.once_in(2) { 1 } else { n });
    let bias_dtype = d.dtype();
    let [bias_b, bias_h, bias_q] = bias_shape;
    let bias = d
        .view_of(&[bias_b, bias_h, bias_q, lk], bias_dtype)
        .filter(|_| d.once_in(2));
    // Nothing that Flash reads.
    let segments = [Segment {
        stream: usize::MAX,
        start: usize::MAX,
        len: lq,
        total: 1,
    }];
    let mask = Mask::default()
        .with_causal(d.once_in(3))
        .with_key_mask(seen.filter(|_| d.once_in(2)))
        .with_bias(bias);
    let input = AttnInput::new(q, k, v)
        .with_segments(if d.once_in(4) { &segments } else { &[] })
        .with_scale(d.of(&[None, None, Some(0.0), Some(-1.0), Some(f32::INFINITY)]))
        .with_mask(mask);
    let mut lse = None;
    let out = guarded(d, &[b, lq, h, dim], dtype, |out| {
        let mut done = Ok(());
        let mut inner = Draw::on(device, &[1, 2, 0]);
        lse = guarded(&mut inner, &[b, h, lq], DType::F32, |lse| {
            done = flash_into(&input, out, lse);
            Ok(())
        });
        done
    });
    if Flash.attend(&input).is_err() {
        return;
    }
    let held = [q, k, v].map(|x| settled(&x));
    let bias = bias.map(|bias| settled(&bias));
    let mut again = input;
    [again.q, again.k, again.v] = held.each_ref().map(Tensor::view);
    again.mask.bias = bias.as_ref().map(Tensor::view);
    let want = Flash.attend(&again).expect("the same sizes");
    same(out.as_ref(), Ok(want.out));
    if out.is_some() {
        same(lse.as_ref(), Ok(want.lse));
    }
}

pub(crate) fn merge(d: &mut Draw<'_>) {
    let [b, lq, h, dim]: [usize; 4] = d.sizes();
    let device = d.device();
    let mut part = || {
        let dtype = d.dtype();
        let lse_dtype = if d.once_in(16) {
            DType::BF16
        } else {
            DType::F32
        };
        let out = d.view_of(&[b, lq, h, dim], dtype)?;
        let lse = d.view_of(&[b, h, lq], lse_dtype)?;
        Some(AttnOut {
            out: settled(&out),
            lse: settled(&lse),
        })
    };
    let (Some(x), Some(y)) = (part(), part()) else {
        return;
    };
    let mut lse = None;
    let out = guarded(d, x.out.shape(), x.out.dtype(), |out| {
        let mut done = Ok(());
        let mut inner = Draw::on(device, &[1, 2, 0]);
        lse = guarded(&mut inner, &[b, h, lq], DType::F32, |lse| {
            done = parts::merge_into(&x, &y, out, lse);
            Ok(())
        });
        done
    });
    if let (Some(_), Ok(want)) = (&out, parts::merge(&x, &y)) {
        same(out.as_ref(), Ok(want.out));
        same(lse.as_ref(), Ok(want.lse));
    }
}

pub(crate) fn linear(d: &mut Draw<'_>) {
    let (k, device, dtype) = (d.size(), d.device(), d.dtype());
    let mut n_all = 0usize;
    let mut weights: Vec<(View<'_>, Option<View<'_>>)> = Vec::new();
    for _ in 0..1 + d.below(2) {
        let n = d.size();
        let (weight_dtype, bias_dtype) = (d.dtype(), d.dtype());
        let Some(weight) = d.view_of(&[n, k], weight_dtype) else {
            return;
        };
        let bias = d.view_of(&[n], bias_dtype).filter(|_| d.once_in(2));
        weights.push((weight, bias));
        n_all = n_all.saturating_add(n);
    }
    let Ok(layer) = Linear::pack_rows(&weights, dtype, device) else {
        return;
    };
    assert_eq!((layer.out_features(), layer.in_features()), (n_all, k));
    let held: Vec<_> = weights
        .iter()
        .map(|(w, b)| (settled(w), b.as_ref().map(settled)))
        .collect();
    let views: Vec<_> = held
        .iter()
        .map(|(w, b)| (w.view(), b.as_ref().map(Tensor::view)))
        .collect();
    let again = Linear::pack_rows(&views, dtype, device).expect("the same sizes");

    let lead: [usize; 2] = d.sizes();
    let lead = &lead[..d.below(3)];
    let out_shape = [lead, &[n_all]].concat();
    let cut = if d.once_in(2) { k / 2 } else { k };
    let (first, second) = (d.dtype(), d.dtype());
    let mut x = Vec::new();
    for (width, dtype) in [(cut, first), (k - cut, second)] {
        let Some(part) = d.view_of(&[lead, &[width]].concat(), dtype) else {
            return;
        };
        if x.is_empty() || width > 0 {
            x.push(part);
        }
    }
    let batch = if lead.is_empty() { 1 } else { out_shape[0] };
    let (residual_dtype, gate_dtype) = (d.dtype(), d.dtype());
    let residual = d.view_of(&out_shape, residual_dtype);
    let gate = d.view_of(&[batch, n_all], gate_dtype);
    let epilogue = match (d.below(5), residual, gate) {
        (0, Some(residual), _) => Epilogue::Residual(residual),
        (1, Some(residual), Some(gate)) => Epilogue::GateResidual { gate, residual },
        (2, Some(factor), _) => Epilogue::Mul(factor),
        (3, ..) => Epilogue::Activation(Activation::GeluTanh),
        _ => Epilogue::None,
    };
    let got = guarded(d, &out_shape, first, |out| {
        layer.forward_into(&x, epilogue, out)
    });
    if layer.forward_with(&x, epilogue).is_err() {
        return;
    }
    let x: Vec<Tensor> = x.iter().map(settled).collect();
    let x: Vec<View<'_>> = x.iter().map(Tensor::view).collect();
    let (gate, residual) = (gate.map(|g| settled(&g)), residual.map(|r| settled(&r)));
    let epilogue = match (epilogue, gate.as_ref(), residual.as_ref()) {
        (Epilogue::Residual(_), _, Some(r)) => Epilogue::Residual(r.view()),
        (Epilogue::Mul(_), _, Some(r)) => Epilogue::Mul(r.view()),
        (Epilogue::GateResidual { .. }, Some(g), Some(r)) => Epilogue::GateResidual {
            gate: g.view(),
            residual: r.view(),
        },
        (other, ..) => other,
    };
    same(got.as_ref(), again.forward_with(&x, epilogue));
}
