use super::{cpu::CHUNK, *};
use crate::{DType, sums::RunningSums, testing::test_devices};
use half::{bf16, f16};

#[test]
fn each_dtype_and_place_is_seen() {
    for device in &test_devices() {
        let len = CHUNK + CHUNK / 2;
        let first = |values: &[f32]| {
            let halves: Vec<bf16> = values.iter().map(|v| bf16::from_f32(*v)).collect();
            let small: Vec<f16> = values
                .iter()
                .map(|v| f16::from_f32(v.min(65504.0)))
                .collect();
            [
                Tensor::from_slice(values, [len], device)
                    .unwrap()
                    .first_not_finite_blocking()
                    .unwrap(),
                Tensor::from_slice(&halves, [len], device)
                    .unwrap()
                    .first_not_finite_blocking()
                    .unwrap(),
                Tensor::from_slice(&small, [len], device)
                    .unwrap()
                    .first_not_finite_blocking()
                    .unwrap(),
            ]
        };
        for (index, bad) in [
            (0, f32::NAN),
            (CHUNK - 1, f32::NEG_INFINITY),
            (CHUNK, f32::NEG_INFINITY),
            (len - 1, f32::NAN),
        ] {
            let mut values = vec![1.0_f32; len];
            values[7] = 3.0e38;
            values[8] = 65504.0;
            assert_eq!(first(&values), [None; 3]);
            values[index] = bad;
            // `min` gives the number where one side is NaN.
            let small = (!bad.is_nan()).then_some(index);
            assert_eq!(first(&values), [Some(index), Some(index), small]);
        }
        assert_eq!(
            Tensor::from_slice::<f32>(&[], [0], device)
                .unwrap()
                .first_not_finite_blocking()
                .unwrap(),
            None
        );
    }
}

/// The count is that of a loop over the elements, whatever the number of threads.
#[test]
fn all_are_counted_in_all_chunks() {
    let (entries, len) = (3, CHUNK + CHUNK / 3);
    let is_bad = |i: usize| i.is_multiple_of(977) || i % len == len - 1;
    let values: Vec<f32> = (0..entries * len)
        .map(|i| match (is_bad(i), i % 2) {
            (true, 0) => f32::NAN,
            (true, _) => f32::INFINITY,
            (false, _) => 60_000.0,
        })
        .collect();
    let want: Vec<f64> = (0..entries)
        .map(|entry| {
            (entry * len..(entry + 1) * len)
                .filter(|i| is_bad(*i))
                .count() as f64
        })
        .collect();
    for device in &test_devices() {
        let x = Tensor::from_slice(&values, [entries, len], device).unwrap();
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let x = x.to_dtype(dtype).unwrap();
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let mut sums = RunningSums::zeros(entries, device).unwrap();
                let count = || sums.add_not_finite(0, &x);
                pool.build().unwrap().install(count).unwrap();
                let got = sums.to_vec_blocking(0..entries).unwrap();
                assert_eq!(got, want, "{device} {dtype} {threads} threads");
            }
        }
    }
}
