use super::*;
use crate::testing::{FLOATS, floats, tensor, test_devices};
use crate::{DType, Tensor};
use proptest::prelude::*;

fn read(sums: &RunningSums) -> Vec<f64> {
    sums.to_vec_blocking(0..sums.count()).unwrap()
}

proptest! {
    #[test]
    fn sums_are_those_of_f64(
        b in 1usize..4, l in 1usize..40, c in 1usize..40, first in 0usize..20, every in 1usize..18, xd in 0usize..3, yd in 0usize..3,
    ) {
        for device in &test_devices() {
            let (x, y) = (tensor(&[b, l, c], FLOATS[xd], 1, device), tensor(&[b, l, c], FLOATS[yd], 2, device));
            // Not one after another in memory.
            let wide = tensor(&[b, l + 3, c], FLOATS[xd], 3, device);
            let inner = wide.view().narrow(1, 2, l).unwrap();
            let (xs, ys, inner_values) = (floats(&x), floats(&y), floats(&inner.to_tensor().unwrap()));
            let mut sums = RunningSums::zeros(5, device).unwrap();
            sums.add_distance(2, &x, &y, first, every).unwrap();
            sums.add_distance(2, inner, &y, first, every).unwrap();
            let mut want = [0.0, 0.0];
            for values in [&xs, &inner_values] {
                for row in (first..l).step_by(every) {
                    for i in (0..b * l * c).filter(|i| i / c % l == row) {
                        let (fresh, stale) = (f64::from(values[i]), f64::from(ys[i]));
                        want[0] += (fresh - stale) * (fresh - stale);
                        want[1] += fresh * fresh;
                    }
                }
            }
            // The same operations in the same order.
            prop_assert_eq!(read(&sums), [0.0, 0.0, want[0], want[1], 0.0], "{}", device);

            let mut sums = RunningSums::zeros(2 * b, device).unwrap();
            sums.add_moments(0, &x).unwrap();
            let len = l * c;
            for (entry, got) in read(&sums).chunks(2).enumerate() {
                let values = xs[entry * len..(entry + 1) * len].iter().map(|x| f64::from(*x));
                let want = [values.clone().sum::<f64>(), values.map(|x| x * x).sum()];
                for (got, want) in got.iter().zip(want) {
                    // Another order of at most 1,600 terms of at most 100, in f64.
                    prop_assert!((got - want).abs() <= 1e-9, "{device}: {got} is not {want}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_is_counted_by_entry() {
    for device in &test_devices() {
        for dtype in FLOATS {
            let mut values = [1.0f32; 3 * 50];
            (values[3], values[7], values[149]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
            let x = Tensor::from_slice(&values, [3, 50], device).unwrap();
            let x = x.to_dtype(dtype).unwrap();
            let mut sums = RunningSums::zeros(4, device).unwrap();
            sums.add_not_finite(1, &x).unwrap();
            sums.add_not_finite(1, x.view().narrow(1, 0, 5).unwrap())
                .unwrap();
            assert_eq!(read(&sums), [0.0, 3.0, 0.0, 1.0], "{dtype}");
        }
    }
}

#[test]
fn sums_add_up() {
    for device in &test_devices() {
        let x = Tensor::from_slice(&[1f32, 2.0], [1, 2], device).unwrap();
        let (mut total, mut part) = (
            RunningSums::zeros(4, device).unwrap(),
            RunningSums::zeros(2, device).unwrap(),
        );
        part.add_moments(0, &x).unwrap();
        total.add(2, &part).unwrap();
        total.add(2, &part).unwrap();
        assert_eq!(read(&total), [0.0, 0.0, 6.0, 10.0]);
        assert_eq!(total.to_vec_blocking(2..3).unwrap(), [6.0]);
        assert!(total.add(3, &part).is_err());
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    for device in &test_devices() {
        let mut sums = RunningSums::zeros(2, device).unwrap();
        let (x, y) = (
            tensor(&[2, 3], DType::F32, 1, device),
            tensor(&[2, 2], DType::F32, 1, device),
        );
        let scalar = tensor(&[], DType::F32, 1, device);
        for wrong in [
            sums.add_distance(0, &x, &y, 0, 1),
            sums.add_distance(0, &x, &x, 0, 0),
            sums.add_distance(1, &x, &x, 0, 1),
            sums.add_distance(usize::MAX, &x, &x, 0, 1),
            sums.add_distance(0, &scalar, &scalar, 0, 1),
            sums.add_moments(0, &x),
            sums.add_not_finite(1, &x),
            sums.add_not_finite(0, &scalar),
            sums.to_vec_blocking(1..3).map(drop),
        ] {
            assert!(wrong.unwrap_err().to_string().contains("sums"));
        }
        assert_eq!(read(&sums), [0.0, 0.0], "nothing was added");
    }
}

#[test]
fn nothing_adds_nothing() {
    for device in &test_devices() {
        let x = tensor(&[2, 0, 3], DType::F32, 1, device);
        let mut sums = RunningSums::zeros(4, device).unwrap();
        sums.add_moments(0, &x).unwrap();
        sums.add_not_finite(0, &x).unwrap();
        sums.add_distance(0, &x, &x, 0, 4).unwrap();
        assert_eq!(read(&sums), [0.0; 4]);
    }
}

#[test]
fn tensors_of_another_device_are_refused() {
    let devices = test_devices();
    let [one, other] = match &devices[..] {
        [one, other, ..] => [one, other],
        // A processor with one tier has one device.
        _ => return,
    };
    let x = tensor(&[1, 2], DType::F32, 1, other);
    let mut sums = RunningSums::zeros(2, one).unwrap();
    for wrong in [
        sums.add_moments(0, &x),
        sums.add_not_finite(0, &x),
        sums.add_distance(0, &x, &x, 0, 1),
        sums.add(0, &RunningSums::zeros(1, other).unwrap()),
    ] {
        let error = wrong.unwrap_err().to_string();
        assert!(
            error.contains(&one.to_string()) && error.contains(&other.to_string()),
            "{error}"
        );
    }
}
