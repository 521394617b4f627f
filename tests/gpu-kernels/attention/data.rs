//! Operands of a case, and what the processor computes of them.

use half::{bf16, f16};
use xdit_kernels::{
    DType, Device, Tensor,
    attention::{Attention, AttnInput, Flash, Mask},
};

use super::case::Case;
use crate::support::Draw;

/// Operands as f32, each a number of the case's dtype.
pub(super) struct Data {
    pub(super) q: Vec<f32>,
    pub(super) k: Vec<f32>,
    pub(super) v: Vec<f32>,
    pub(super) key_mask: Option<Vec<u8>>,
    pub(super) bias: Option<(Vec<f32>, [usize; 4])>,
}

impl Data {
    pub(super) fn of(case: &Case) -> Self {
        let mut draw = Draw(case.lq as u64 * 7919 + case.lk as u64 * 31 + case.d as u64);
        let mut numbers = |n: usize, scale: f32| -> Vec<f32> {
            let one = |_| draw.below(1 << 16) as f32 / f32::from(1u16 << 15) - 1.0;
            (0..n)
                .map(one)
                .map(|x| rounded(x * scale, case.dtype))
                .collect()
        };
        let (h, d) = (case.h_kv * case.group, case.d);
        let q = numbers(case.b * case.lq * h * d, 3.0 * case.spread);
        let mut k = numbers(case.b * case.lk * case.h_kv * d, 1.0);
        let mut v = numbers(case.b * case.lk * case.h_kv * d, 1.0);
        let key_mask = case.key_mask.then(|| {
            let all_hidden = case.b > 1;
            let mut seen =
                |i: usize| draw.below(3) > 0 && !(all_hidden && i / case.lk == case.b - 1);
            (0..case.b * case.lk)
                .map(|i| u8::from(seen(i)) * 7)
                .collect::<Vec<u8>>()
        });
        if let (true, Some(mask)) = (case.poison, &key_mask) {
            let row = case.h_kv * d;
            for (i, _) in mask.iter().enumerate().filter(|(_, seen)| **seen == 0) {
                k[i * row..][..row].fill(f32::NAN);
                v[i * row..][..row].fill(f32::NAN);
            }
        }
        let bias = case.bias.map(|one| {
            let whole = [case.b, h, case.lq];
            let [b, h, l] = [0, 1, 2].map(|i| if one[i] { 1 } else { whole[i] });
            let shape = [b, h, l, case.lk];
            let n = shape.iter().product();
            (
                (0..n).map(|_| draw.below(64) as f32 / 16.0 - 2.0).collect(),
                shape,
            )
        });
        Self {
            q,
            k,
            v,
            key_mask,
            bias,
        }
    }

    /// Attention on the processor, in f32: out [b, lq, h, d] and lse [b, h, lq].
    pub(super) fn expected(&self, case: &Case) -> (Vec<f32>, Vec<f32>) {
        let device = &Device::cpu();
        let tensor = |x: &[f32], shape: [usize; 4]| {
            Tensor::from_slice(x, shape, device).expect("a tensor of this shape")
        };
        let (h, d) = (case.h_kv * case.group, case.d);
        let q = tensor(&self.q, [case.b, case.lq, h, d]);
        let k = tensor(&self.k, [case.b, case.lk, case.h_kv, d]);
        let v = tensor(&self.v, [case.b, case.lk, case.h_kv, d]);
        let mask = self.key_mask.as_ref().map(|mask| {
            Tensor::from_slice(mask, [case.b, case.lk], device).expect("a mask of this shape")
        });
        let bias = self.bias.as_ref().map(|(x, shape)| tensor(x, *shape));
        let mask = Mask::default()
            .with_causal(case.causal)
            .with_key_mask(mask.as_ref().map(Tensor::view))
            .with_bias(bias.as_ref().map(Tensor::view));
        let input = AttnInput::new(&q, &k, &v)
            .with_scale(case.scale)
            .with_mask(mask);
        let got = Flash.attend(&input).expect("the processor's kernel");
        let numbers = |x: &Tensor| x.to_vec_blocking::<f32>().expect("f32");
        (numbers(&got.out), numbers(&got.lse))
    }
}

pub(super) fn bytes(x: f32, dtype: DType) -> Vec<u8> {
    match dtype {
        DType::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        DType::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    }
}

pub(super) fn number(raw: &[u8], dtype: DType) -> f32 {
    match dtype {
        DType::BF16 => bf16::from_le_bytes([raw[0], raw[1]]).to_f32(),
        DType::F16 => f16::from_le_bytes([raw[0], raw[1]]).to_f32(),
        _ => f32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]),
    }
}

fn rounded(x: f32, dtype: DType) -> f32 {
    number(&bytes(x, dtype), dtype)
}
