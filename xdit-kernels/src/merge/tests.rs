use super::{cpu::weights, *};
use crate::testing::{at_most, test_devices};
use crate::{
    Device, Tensor, View,
    attention::{Attention, AttnInput, Flash, Mask},
};
use proptest::prelude::*;

fn noise(shape: [usize; 4], seed: u32, device: &Device) -> Tensor {
    let mut state = seed;
    let data: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 22) as f32 - 2.0
        })
        .collect();
    Tensor::from_slice(&data, shape, device).unwrap()
}

/// Attention over all keys equals the merge of the attentions over two parts of them.
fn check(lq: usize, lk: usize, cut: usize, d: usize, dtype: DType, hide: usize) {
    let h = 3;
    // Of batch row 0, the first `hide` keys.
    let seen: Vec<u8> = (0..2 * lk).map(|j| u8::from(j >= hide.min(lk))).collect();
    for device in &test_devices() {
        let cast = |shape, seed| noise(shape, seed, device).to_dtype(dtype).unwrap();
        let q = cast([2, lq, h, d], 1);
        let (k, v) = (cast([2, lk, 1, d], 2), cast([2, lk, 1, d], 3));
        let seen = View::from_slice(&seen, [2, lk], device).unwrap();
        let run = |start: usize, len: usize| {
            let [seen, k, v] = [seen, k.view(), v.view()].map(|x| x.narrow(1, start, len).unwrap());
            let mask = Mask::default().with_key_mask(Some(seen));
            let input = AttnInput::new(&q, k, v).with_mask(mask);
            Flash.attend(&input).unwrap()
        };
        let (whole, both) = (
            run(0, lk),
            merge(&run(0, cut), &run(cut, lk - cut)).unwrap(),
        );
        // f32: a few roundings of values in −2..2. 16 bits: each part is rounded once and the sum again.
        let tol = match dtype {
            DType::F32 => 4e-6,
            DType::F16 => 2.0 * 2f32.powi(-10),
            _ => 2.0 * 2f32.powi(-7),
        };
        for (g, w) in both
            .out
            .to_vec_blocking::<f32>()
            .unwrap()
            .iter()
            .zip(whole.out.to_vec_blocking::<f32>().unwrap())
        {
            assert!((g - w).abs() <= tol, "{device}: {g} not {w}");
        }
        let tol = if dtype == DType::F32 { 4e-6 } else { 2e-4 };
        for (g, w) in both
            .lse
            .to_vec_blocking::<f32>()
            .unwrap()
            .iter()
            .zip(whole.lse.to_vec_blocking::<f32>().unwrap())
        {
            assert!(
                (g - w).abs() <= tol * w.abs().max(1.0) || *g == w,
                "{device}: lse {g} not {w}"
            );
        }
    }
}

proptest! {
    #![proptest_config(at_most(48))]
    #[test]
    fn parts_make_the_whole(
        lq in 1usize..20, lk in 0usize..300, cut in 0usize..300, d in 1usize..70, hide in 0usize..400, dtype in 0usize..3,
    ) {
        check(lq, lk, cut.min(lk), d, [DType::F32, DType::BF16, DType::F16][dtype], hide);
    }
}

#[test]
fn a_part_without_keys_changes_no_bit() {
    for device in &test_devices() {
        let (q, k) = (
            noise([1, 5, 2, 33], 1, device),
            noise([1, 7, 2, 33], 2, device),
        );
        let some = Flash.attend(&AttnInput::new(&q, &k, &k)).unwrap();
        let none = k.view().narrow(1, 0, 0).unwrap();
        let none = Flash.attend(&AttnInput::new(&q, none, none)).unwrap();
        for both in [merge(&some, &none).unwrap(), merge(&none, &some).unwrap()] {
            assert_eq!(
                both.out.host_bytes_blocking().unwrap(),
                some.out.host_bytes_blocking().unwrap()
            );
            assert_eq!(
                both.lse.host_bytes_blocking().unwrap(),
                some.lse.host_bytes_blocking().unwrap()
            );
        }
        let nothing = merge(&none, &none).unwrap();
        assert!(
            nothing
                .out
                .to_vec_blocking::<f32>()
                .unwrap()
                .iter()
                .all(|&x| x == 0.0)
        );
        assert!(
            nothing
                .lse
                .to_vec_blocking::<f32>()
                .unwrap()
                .iter()
                .all(|&x| x == f32::NEG_INFINITY)
        );
    }
}

#[test]
fn weights_hold_at_the_ends() {
    let inf = f32::INFINITY;
    assert_eq!(weights(0.0, 0.0), (0.5, 0.5, 2f32.ln()));
    assert_eq!(weights(1e30, -1e30), (1.0, 0.0, 1e30));
    assert_eq!(weights(-inf, -inf), (1.0, 0.0, -inf));
    for (a, b) in [(f32::NAN, 0.0), (0.0, f32::NAN)] {
        let (wa, wb, sum) = weights(a, b);
        assert!(wa.is_nan() && wb.is_nan() && sum.is_nan());
    }
    assert!(weights(f32::NAN, -inf).2.is_nan());
}

#[test]
fn shapes_that_differ_are_errors() {
    for device in &test_devices() {
        let (q, k) = (
            noise([1, 5, 2, 3], 1, device),
            noise([1, 7, 2, 3], 2, device),
        );
        let five = Flash.attend(&AttnInput::new(&q, &k, &k)).unwrap();
        let seven = Flash.attend(&AttnInput::new(&k, &k, &k)).unwrap();
        let e = merge(&five, &seven).unwrap_err().to_string();
        assert!(e.starts_with("merge: expected out [1, 5, 2, 3]"), "{e}");
    }
}
