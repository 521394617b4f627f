//! The kernel against attention in f64.

#[cfg(feature = "cuda")]
mod gpu;
mod rows;
mod sum;

use super::{dims::Dims, *};
use crate::testing::{at_most, floats, test_devices};
use crate::{DType, Device, Tensor, TensorMut, View};
use half::bf16;
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Case {
    b: usize,
    h_kv: usize,
    group: usize,
    lq: usize,
    lk: usize,
    d: usize,
    dtype: DType,
    /// Standard deviation of a score, roughly.
    spread: f32,
    causal: bool,
    key_mask: bool,
    /// Which of the first three dims of the bias are 1, if there is one.
    bias: Option<[bool; 3]>,
    /// q, k, v as views of one joint tensor [b, l, 3, h, d].
    joint: bool,
    scale: Option<f32>,
}

const PLAIN: Case = Case {
    b: 1,
    h_kv: 1,
    group: 1,
    lq: 1,
    lk: 1,
    d: 32,
    dtype: DType::F32,
    spread: 1.0,
    causal: false,
    key_mask: false,
    bias: None,
    joint: false,
    scale: None,
};

/// Numbers in −1..1 from a linear congruential generator.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

struct Data {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /// [b, lk] of u8.
    key_mask: Option<Tensor>,
    bias: Option<Tensor>,
}

impl Case {
    fn h(&self) -> usize {
        self.h_kv * self.group
    }

    fn data(&self, device: &Device) -> Data {
        let tensor = |shape: [usize; 4], seed, scale: f32| {
            let x: Vec<f32> = noise(shape.iter().product(), seed)
                .iter()
                .map(|x| x * scale)
                .collect();
            Tensor::from_slice(&x, shape, device)
                .unwrap()
                .to_dtype(self.dtype)
                .unwrap()
        };
        let q = tensor([self.b, self.lq, self.h(), self.d], 1, self.spread * 3.0);
        let k = tensor([self.b, self.lk, self.h_kv, self.d], 2, 1.0);
        let v = tensor([self.b, self.lk, self.h_kv, self.d], 3, 1.0);
        let key_mask = self.key_mask.then(|| {
            let keep = noise(self.b * self.lk, 4);
            let keep: Vec<u8> = keep.iter().map(|&x| u8::from(x < 0.3)).collect();
            Tensor::from_slice(&keep, [self.b, self.lk], device).unwrap()
        });
        let bias = self.bias.map(|one| {
            let dims = [self.b, self.h(), self.lq];
            let [b, h, l] = [0, 1, 2].map(|i| if one[i] { 1 } else { dims[i] });
            let x = noise(b * h * l * self.lk, 5);
            Tensor::from_slice(&x, [b, h, l, self.lk], device).unwrap()
        });
        Data {
            q,
            k,
            v,
            key_mask,
            bias,
        }
    }

    /// [b, l, 3, h, d], of which q, k and v are narrow views; lq = lk and one head a group.
    fn joined(&self, data: &Data) -> Tensor {
        let shape = [self.b, self.lq, 1, self.h(), self.d];
        let parts = [&data.q, &data.k, &data.v].map(|x| x.reshape(shape).unwrap());
        Tensor::cat(&parts.each_ref().map(Tensor::view), 2).unwrap()
    }

    fn input<'a>(&self, data: &'a Data) -> AttnInput<'a> {
        AttnInput {
            scale: self.scale,
            mask: Mask {
                causal: self.causal,
                key_mask: data.key_mask.as_ref().map(Tensor::view),
                bias: data.bias.as_ref().map(Tensor::view),
            },
            ..AttnInput::new(&data.q, &data.k, &data.v)
        }
    }
}

/// In f64: out [b, lq, h, d], lse [b, h, lq], and for each lse the largest sum of the absolute terms of a score, which
/// the rounding of the scores is proportional to.
struct Oracle {
    out: Vec<f64>,
    lse: Vec<f64>,
    size: Vec<f64>,
}

fn oracle(case: &Case, data: &Data) -> Oracle {
    let [q, k, v] = [&data.q, &data.k, &data.v].map(floats);
    let (h, d, lk) = (case.h(), case.d, case.lk);
    let scale = case.scale.map_or(1.0 / (d as f64).sqrt(), f64::from);
    let mask = data.key_mask.as_ref();
    let mask = mask.map(|mask| mask.to_vec_blocking::<u8>().unwrap());
    let mut out = vec![0.0; q.len()];
    let mut lse = vec![f64::NEG_INFINITY; case.b * h * case.lq];
    let mut size = vec![0f64; lse.len()];
    for (b, head, i) in
        (0..case.b).flat_map(|b| (0..h).flat_map(move |x| (0..case.lq).map(move |i| (b, x, i))))
    {
        let at = ((b * case.lq + i) * h + head) * d;
        let key = |j: usize| ((b * lk + j) * case.h_kv + head / case.group) * d;
        let seen: Vec<usize> = (0..lk)
            .filter(|&j| !case.causal || j <= i)
            .filter(|&j| mask.as_ref().is_none_or(|m| m[b * lk + j] != 0))
            .collect();
        let scores: Vec<f64> = seen
            .iter()
            .map(|&j| {
                let terms = (0..d).map(|c| f64::from(q[at + c]) * f64::from(k[key(j) + c]));
                let dot: f64 = terms.clone().sum();
                let bias = data.bias.as_ref().map_or(0.0, |t| {
                    let index = [b, head, i];
                    let place = (0..3).fold(0, |n, dim| n * t.dim(dim) + index[dim] % t.dim(dim));
                    f64::from(t.host_slice_blocking::<f32>().unwrap()[place * lk + j])
                });
                let row = &mut size[(b * h + head) * case.lq + i];
                *row = row.max(terms.map(|t| (t * scale).abs()).sum::<f64>() + bias.abs());
                dot * scale + bias
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        if !seen.is_empty() {
            lse[(b * h + head) * case.lq + i] = max + sum.ln();
        }
        for (&j, s) in seen.iter().zip(&scores) {
            for c in 0..d {
                out[at + c] += (s - max).exp() / sum * f64::from(v[key(j) + c]);
            }
        }
    }
    Oracle { out, lse, size }
}

#[allow(clippy::needless_range_loop, reason = "an index says where it differs")]
fn compare(case: &Case, got: &AttnOut, want: &Oracle, pairs: bool, what: &str) {
    assert_eq!(got.out.dtype(), case.dtype, "{what}");
    let (out, lse) = (
        got.out.to_vec_blocking::<f32>().unwrap(),
        got.lse.to_vec_blocking::<f32>().unwrap(),
    );
    for (row, (&lse, &want_lse)) in lse.iter().zip(&want.lse).enumerate() {
        // A score is a sum of up to 512 terms in f32: the bound is 512 units (6e-8) of `size`, what is seen about 3.
        let score = 3e-7 * want.size[row];
        // exp2's polynomial: 1.5e-7 in f32, else 8.6e-5. In an average of weights that is halved, at worst twice.
        let weight = if case.dtype == DType::F32 { 5e-7 } else { 9e-5 };
        let diff = (f64::from(lse) - want_lse).abs();
        // The lse itself is rounded to 24 bits.
        let tol = score + weight + 1.2e-7 * want_lse.abs();
        assert!(
            diff <= tol || f64::from(lse) == want_lse,
            "{what} lse[{row}]: {lse} not {want_lse} in {case:?}"
        );
        // Values lie in −1..1, and every weight may be off by `score` and `weight`. 16 bits: the result is rounded by
        // half a unit in the last place; in pairs the weights are bf16 too (2^-9, of one sign in a mean of few).
        let rounding = match case.dtype {
            DType::F32 => 1e-6,
            DType::F16 => 2f64.powi(-12),
            _ if pairs => 2f64.powi(-8),
            _ => 2f64.powi(-9),
        };
        let (i, head) = (row % case.lq, row / case.lq);
        let at = ((head / case.h() * case.lq + i) * case.h() + head % case.h()) * case.d;
        for (c, (&got, &want)) in out.iter().zip(&want.out).enumerate().skip(at).take(case.d) {
            let diff = (f64::from(got) - want).abs();
            assert!(
                diff <= 2.0 * (score + weight) + rounding,
                "{what} out[{c}]: {got} not {want} in {case:?}"
            );
        }
    }
}

fn check(case: &Case) {
    for device in &test_devices() {
        let data = case.data(device);
        let want = oracle(case, &data);
        let mut joint = None;
        if case.joint {
            joint = Some(case.joined(&data));
        }
        let mut input = case.input(&data);
        if let Some(joint) = &joint {
            let view = joint.view();
            input.q = view.select(2, 0).unwrap();
            input.k = view.select(2, 1).unwrap();
            input.v = view.select(2, 2).unwrap();
        }
        let got = Flash.attend(&input).unwrap();
        // That tier takes the path of pairs by itself.
        let pairs = device.tier().multiplies_bf16();
        compare(case, &got, &want, pairs, &device.to_string());
        if case.dtype == DType::BF16 {
            let got = with_pairs(&input);
            compare(case, &got, &want, true, &format!("{device} in pairs"));
        }
    }
}

/// Through the path of the tiers with a bf16 instruction; other tiers multiply pairs by fused multiply-adds.
fn with_pairs(input: &AttnInput<'_>) -> AttnOut {
    let dims = Dims::of(input).unwrap();
    let device = input.q.device();
    let mut out = TensorMut::zeros(input.q.shape(), DType::BF16, device).unwrap();
    let mut lse = TensorMut::zeros([dims.b, dims.h, dims.lq], DType::F32, device).unwrap();
    call::FlashCall::<bf16>::new(input, &dims, out.view_mut(), lse.view_mut())
        .unwrap()
        .with_pairs()
        .run()
        .unwrap();
    AttnOut {
        out: out.freeze(),
        lse: lse.freeze(),
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let lengths = prop::sample::select(vec![0usize, 1, 2, 7, 13, 24, 31, 77, 127]);
    let keys = prop::sample::select(vec![0usize, 1, 3, 16, 17, 33, 77, 255, 257, 300]);
    let d = prop::sample::select(vec![1usize, 8, 32, 33, 64, 88, 128, 160]);
    let dtype = prop::sample::select(vec![DType::F32, DType::F32, DType::BF16, DType::F16]);
    let bias = prop::option::of(prop::array::uniform3(any::<bool>()));
    (
        (1usize..3, 1usize..4, 1usize..4, lengths, keys, d),
        (dtype, 0usize..3, any::<bool>(), any::<bool>(), bias),
        (any::<bool>(), prop::option::of(-0.5f32..0.5)),
    )
        .prop_map(
            |(
                (b, h_kv, group, lq, lk, d),
                (dtype, spread, causal, key_mask, bias),
                (joint, scale),
            )| {
                let (group, lk) = if joint { (1, lq) } else { (group, lk) };
                Case {
                    b,
                    h_kv,
                    group,
                    lq,
                    lk,
                    d,
                    dtype,
                    spread: [0.1, 1.0, 10.0][spread],
                    causal,
                    key_mask,
                    bias,
                    joint,
                    scale,
                }
            },
        )
}

proptest! {
    #![proptest_config(at_most(128))]
    #[test]
    fn any_shape_equals_f64(case in cases()) {
        check(&case);
    }
}

#[test]
fn large_heads_and_many_blocks_equal_f64() {
    for (lq, lk, d) in [(90, 300, 512), (200, 1100, 64), (257, 700, 8)] {
        for causal in [false, true] {
            let case = Case {
                lq,
                lk,
                d,
                causal,
                ..PLAIN
            };
            check(&case);
            check(&Case {
                dtype: DType::BF16,
                group: 2,
                ..case
            });
        }
    }
}
