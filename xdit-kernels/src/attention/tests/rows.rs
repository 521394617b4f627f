//! Rows: those that see nothing, those that see NaN, their independence; and inputs that do not fit.

use super::*;
use crate::{ViewMut, testing::test_devices};
use half::f16;

#[test]
fn rows_that_see_no_key_are_zero() {
    for device in &test_devices() {
        let case = Case {
            b: 2,
            lq: 5,
            lk: 300,
            ..PLAIN
        };
        let mut data = case.data(device);
        let mut mask = vec![1u8; 600];
        mask[300..].fill(0);
        data.key_mask = Some(Tensor::from_slice(&mask, [2, 300], device).unwrap());
        // What hidden keys and values hold has no effect, NaN included.
        let poison = |x: &Tensor| {
            let mut x = x.to_vec_blocking::<f32>().unwrap();
            x[300 * 32..].fill(f32::NAN);
            Tensor::from_slice(&x, [2, 300, 1, 32], device).unwrap()
        };
        data.k = poison(&data.k);
        data.v = poison(&data.v);
        let got = Flash.attend(&case.input(&data)).unwrap();
        let (out, lse) = (
            got.out.to_vec_blocking::<f32>().unwrap(),
            got.lse.to_vec_blocking::<f32>().unwrap(),
        );
        assert!(out[..160].iter().all(|x| x.is_finite() && *x != 0.0));
        assert_eq!(out[160..], [0.0; 160], "{device}");
        assert_eq!(lse[5..], [f32::NEG_INFINITY; 5], "{device}");
        // A bias of −∞ hides as well.
        data.key_mask = None;
        data.k = case.data(device).k;
        data.v = case.data(device).v;
        let bias = vec![f32::NEG_INFINITY; 300];
        data.bias = Some(Tensor::from_slice(&bias, [1, 1, 1, 300], device).unwrap());
        let got = Flash.attend(&case.input(&data)).unwrap();
        assert!(
            got.out
                .to_vec_blocking::<f32>()
                .unwrap()
                .iter()
                .all(|&x| x == 0.0),
            "{device}"
        );
    }
}

#[test]
fn nan_reaches_the_rows_that_see_it_and_no_other() {
    let devices = test_devices();
    let dtypes = [DType::F32, DType::BF16];
    for (device, dtype) in devices
        .iter()
        .flat_map(|device| dtypes.map(|dtype| (device, dtype)))
    {
        let case = Case {
            h_kv: 2,
            lq: 300,
            lk: 300,
            dtype,
            ..PLAIN
        };
        let poison = |x: &Tensor, row: usize| {
            let shape = x.shape().to_vec();
            let mut x = x.to_vec_blocking::<f32>().unwrap();
            // Head 1 of that token.
            x[(row * 2 + 1) * 32 + 5] = f32::NAN;
            Tensor::from_slice(&x, shape.as_slice(), device)
                .unwrap()
                .to_dtype(dtype)
                .unwrap()
        };
        for which in 0..3 {
            let mut data = case.data(device);
            match which {
                0 => data.q = poison(&data.q, 7),
                1 => data.k = poison(&data.k, 299),
                _ => data.v = poison(&data.v, 0),
            }
            let input = case.input(&data);
            let mut runs = vec![Flash.attend(&input).unwrap()];
            if dtype == DType::BF16 {
                runs.push(with_pairs(&input));
            }
            for got in runs {
                let (out, lse) = (
                    got.out.to_vec_blocking::<f32>().unwrap(),
                    got.lse.to_vec_blocking::<f32>().unwrap(),
                );
                for i in 0..300 {
                    let bad = |head: usize| out[(i * 2 + head) * 32 + 5].is_nan();
                    assert!(!bad(0), "{device}: head 0 sees no NaN");
                    assert_eq!(bad(1), which > 0 || i == 7, "{device} {which} row {i}");
                    assert_eq!(lse[300 + i].is_nan(), which == 1 || which == 0 && i == 7);
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others_or_on_the_threads() {
    for device in &test_devices() {
        let case = Case {
            h_kv: 2,
            lq: 200,
            lk: 400,
            causal: true,
            ..PLAIN
        };
        let data = case.data(device);
        let input = case.input(&data);
        let run = |threads, input: &AttnInput<'_>| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| Flash.attend(input)).unwrap()
        };
        let one = run(1, &input);
        // Two kv heads: a head for each of two threads; three pack both heads together.
        for threads in [2, 3] {
            let more = run(threads, &input);
            assert_eq!(
                one.out.host_bytes_blocking().unwrap(),
                more.out.host_bytes_blocking().unwrap()
            );
            assert_eq!(
                one.lse.host_bytes_blocking().unwrap(),
                more.lse.host_bytes_blocking().unwrap()
            );
        }
        // Causal attention aligns at the first key, so the first rows alone are the same problem.
        for n in [1, 2, 3, 5, 9, 77, 101] {
            let few = AttnInput {
                q: input.q.narrow(1, 0, n).unwrap(),
                ..input
            };
            let few = run(1, &few).out.to_vec_blocking::<f32>().unwrap();
            assert_eq!(
                few[..],
                one.out.to_vec_blocking::<f32>().unwrap()[..few.len()],
                "{n} rows"
            );
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    for device in &test_devices() {
        let zeros = |shape: [usize; 4]| Tensor::zeros(shape, DType::F32, device).unwrap();
        let (q, k) = (zeros([1, 2, 4, 8]), zeros([1, 3, 2, 8]));
        let input = AttnInput::new(&q, &k, &k);
        assert!(Flash.attend(&input).is_ok());
        let fails = |input: AttnInput<'_>, word: &str| {
            let e = Flash.attend(&input).unwrap_err().to_string();
            assert!(e.starts_with("attention: ") && e.contains(word), "{e}");
        };
        let (three, wide) = (zeros([1, 3, 3, 8]), zeros([1, 3, 2, 9]));
        fails(AttnInput::new(&q, &three, &three), "divides 4 heads");
        fails(AttnInput::new(&q, &wide, &wide), "[1, lk, h_kv, 8]");
        fails(AttnInput::new(&q, &k, &three), "v [1, 3, 2, 8]");
        let half = k.to_dtype(DType::F16).unwrap();
        fails(AttnInput::new(&q, &half, &half), "f32 of q");
        let mut masked = input;
        let mask = Tensor::from_slice(&[1u8; 4], [1, 4], device).unwrap();
        masked.mask.key_mask = Some(mask.view());
        fails(masked, "key mask [1, 3]");
        let mask = Tensor::zeros([1, 3], DType::F32, device).unwrap();
        masked.mask.key_mask = Some(mask.view());
        fails(masked, "u8 key mask");
        let mut biased = input;
        biased.mask.bias = Some(k.view());
        fails(biased, "bias");
        let lse = &mut [0.0; 4];
        let out = &mut [f16::ZERO; 64];
        let (out, lse) = (
            ViewMut::from_slice(out, [1, 2, 4, 8], device).unwrap(),
            ViewMut::from_slice(lse, [1, 4, 1], device).unwrap(),
        );
        assert!(flash_into(&input, out, lse).is_err());
        let mut boxed: Box<dyn Attention> = Box::new(Flash);
        assert!(Attention::attend(&mut &mut boxed, &input).is_ok());
    }
}
