//! Keys in several parts, added up one after another.

use super::*;
use crate::merge::merge;

/// The calls for keys `cuts[0]..cuts[1]`, `cuts[1]..cuts[2]` and so on.
pub(super) fn parts<'a>(input: &AttnInput<'a>, cuts: &[usize]) -> Vec<AttnInput<'a>> {
    let keys = |x: View<'a>, dim, from, to| x.narrow(dim, from, to - from).unwrap();
    let part = |cut: &[usize]| {
        let (from, to) = (cut[0], cut[1]);
        let mut part = *input;
        part.k = keys(input.k, 1, from, to);
        part.v = keys(input.v, 1, from, to);
        part.mask.key_mask = (input.mask.key_mask).map(|x| keys(x, 1, from, to));
        part.mask.bias = input.mask.bias.map(|x| keys(x, 3, from, to));
        part
    };
    cuts.windows(2).map(part).collect()
}

/// What `attention` adds up.
pub(super) fn accumulated(attention: &mut dyn Attention, parts: &[AttnInput<'_>]) -> AttnOut {
    let mut sum = None;
    for part in parts {
        sum = Some(attention.accumulate(part, sum).unwrap());
    }
    sum.unwrap().freeze()
}

/// An implementation that leaves the sum to the trait.
struct Plain;

impl Attention for Plain {
    fn attend(&mut self, input: &AttnInput<'_>) -> Result<AttnOut> {
        Flash.attend(input)
    }
}

fn cases() -> Vec<Case> {
    let plain = Case {
        b: 2,
        h_kv: 2,
        group: 2,
        lq: 90,
        lk: 300,
        d: 33,
        ..PLAIN
    };
    let masked = Case {
        key_mask: true,
        lq: 7,
        ..plain.clone()
    };
    let biased = Case {
        bias: Some([true, false, false]),
        scale: Some(-0.25),
        ..masked.clone()
    };
    vec![plain, masked, biased]
}

#[test]
fn parts_equal_f64() {
    for device in &test_devices() {
        for case in cases() {
            let data = case.data(device);
            let want = oracle(&case, &data);
            let input = case.input(&data);
            for cuts in [&[0, 1, 130, 300][..], &[0, 300], &[0, 0, 299, 299, 300]] {
                let got = accumulated(&mut Flash, &parts(&input, cuts));
                compare(&case, &got, &want, false, &format!("{device}, {cuts:?}"));
            }
        }
    }
}

#[test]
fn the_processor_adds_what_attention_and_merge_give() {
    for device in &test_devices() {
        for (case, dtype) in cases().into_iter().flat_map(|case| {
            [DType::F32, DType::BF16, DType::F16].map(|dtype| (case.clone(), dtype))
        }) {
            let case = Case { dtype, ..case };
            let data = case.data(device);
            let parts = parts(&case.input(&data), &[0, 77, 78, 300]);
            let wide = |input| {
                let part = Flash.attend(input).unwrap();
                AttnOut {
                    out: part.out.to_dtype(DType::F32).unwrap(),
                    lse: part.lse,
                }
            };
            let want = parts[1..].iter().fold(wide(&parts[0]), |sum, part| {
                merge(&sum, &wide(part)).unwrap()
            });
            for got in [
                accumulated(&mut Flash, &parts),
                accumulated(&mut Plain, &parts),
            ] {
                for (got, want) in [(&got.out, &want.out), (&got.lse, &want.lse)] {
                    assert_eq!(got.dtype(), DType::F32);
                    let same =
                        got.host_bytes_blocking().unwrap() == want.host_bytes_blocking().unwrap();
                    assert!(same, "{device}: {case:?}");
                }
            }
        }
    }
}

#[test]
fn sums_of_the_dtype_of_the_queries_and_outputs_that_do_not_fit() {
    let device = &Device::cpu();
    let case = Case {
        lq: 5,
        lk: 40,
        dtype: DType::BF16,
        ..PLAIN
    };
    let data = case.data(device);
    let input = case.input(&data);
    let parts = parts(&input, &[0, 17, 40]);
    let first = Flash.attend(&parts[0]).unwrap();
    let second = Flash.attend(&parts[1]).unwrap();
    let want = merge(&first, &second).unwrap();
    let mut out = TensorMut::zeros(input.q.shape(), DType::BF16, device).unwrap();
    let mut lse = TensorMut::zeros([1, 1, 5], DType::F32, device).unwrap();
    flash_into(&parts[0], out.view_mut(), lse.view_mut()).unwrap();
    flash_accumulate_into(&parts[1], out.view_mut(), lse.view_mut()).unwrap();
    let (out, lse) = (out.freeze(), lse.freeze());
    for (got, want) in [(out, want.out), (lse, want.lse)] {
        assert_eq!(
            got.host_bytes_blocking().unwrap(),
            want.host_bytes_blocking().unwrap()
        );
    }
    let new = |shape: &[usize], dtype| TensorMut::zeros(shape, dtype, device).unwrap();
    for (out, lse) in [
        (new(&[1, 5, 1, 32], DType::F16), new(&[1, 1, 5], DType::F32)),
        (new(&[1, 4, 1, 32], DType::F32), new(&[1, 1, 5], DType::F32)),
        (new(&[1, 5, 1, 32], DType::F32), new(&[1, 5, 1], DType::F32)),
    ] {
        let sum = AttnSum { out, lse };
        assert!(Flash.accumulate(&parts[0], Some(sum)).is_err());
    }
}
