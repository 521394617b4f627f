//! Windows of rows, and bands of a picture with the rows beside them.

use super::*;

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop::sample::select(vec![Algorithm::Direct, Algorithm::Winograd])
}

/// The convolution of a case, its input and the whole result, on a device.
fn whole(case: &Case, device: &Device) -> (Conv2d, Tensor, Tensor) {
    let algorithm = case.options.algorithm;
    let x = case.x.to_device(device).unwrap();
    (
        case.pack(algorithm, device),
        x,
        case.forward(algorithm, device),
    )
}

/// Of numbers up to about 30 in sums of 9·40 products: what `winograd_is_the_sum` allows, for tiles that start elsewhere.
const TILES: f32 = 1e-4;

proptest! {
    #![proptest_config(at_most(48))]
    #[test]
    fn rows_are_those_of_the_whole(
        (b, h, w) in (1usize..3, 4usize..24, 4usize..20),
        (ic, oc) in (1usize..20, 1usize..20),
        padding in padding(),
        (upsample, residual) in (any::<bool>(), any::<bool>()),
        (algorithm, stride) in (algorithms(), 1usize..3),
        (first, count) in (0usize..48, 0usize..48),
    ) {
        let stride = if algorithm == Algorithm::Winograd { 1 } else { stride };
        let options = Conv2dOptions { padding, upsample, algorithm, stride };
        let mut case = Case::new([b, h, w, ic], [oc, 3, 3], options, DType::F32);
        case.residual = residual;
        for device in &test_devices() {
            let (conv, x, all) = whole(&case, device);
            let first = first % all.dim(1);
            let rows = first..first + count % (all.dim(1) - first + 1);
            let part = |x: &Tensor| x.narrow(1, rows.start, rows.len()).unwrap();
            let residual = case.residual(all.shape()).map(|r| part(&r).to_device(device).unwrap());
            let residual = residual.as_ref().map(Tensor::view);
            let got = conv.forward_rows(&x, residual, rows.clone()).unwrap();
            let want = part(&all);
            prop_assert_eq!(got.shape(), want.shape());
            if algorithm == Algorithm::Direct || rows.start % 4 == 0 {
                // The same sums in the same order.
                prop_assert_eq!(got.host_bytes_blocking().unwrap(), want.host_bytes_blocking().unwrap(), "{}", device);
            }
            for (a, b) in floats(&got).into_iter().zip(floats(&want)) {
                prop_assert!((a - b).abs() <= TILES, "{device}: {a} and {b}");
            }
        }
    }

    #[test]
    fn a_band_needs_one_row_on_either_side(
        (h, w) in (1usize..16, 1usize..20),
        (ic, oc) in (1usize..20, 1usize..20),
        (upsample, algorithm) in (any::<bool>(), algorithms()),
        (start, len) in (0usize..16, 1usize..16),
    ) {
        let options = Conv2dOptions { padding: Padding::all(1), upsample, algorithm, ..Conv2dOptions::default() };
        let case = Case::new([1, h, w, ic], [oc, 3, 3], options, DType::F32);
        let start = start % h;
        let end = (start + len).min(h);
        let (from, to) = (start.saturating_sub(1), (end + 1).min(h));
        let scale = if upsample { 2 } else { 1 };
        let rows = (start - from) * scale..(end - from) * scale;
        for device in &test_devices() {
            let (conv, x, all) = whole(&case, device);
            let band = x.narrow(1, from, to - from).unwrap();
            let got = conv.forward_rows(&band, None, rows.clone()).unwrap();
            let want = all.narrow(1, start * scale, (end - start) * scale).unwrap();
            for (a, b) in floats(&got).into_iter().zip(floats(&want)) {
                prop_assert!((a - b).abs() <= TILES, "{device}: {a} and {b}");
            }
        }
    }
}

#[test]
fn an_empty_range_is_allowed_and_rows_beyond_the_end_are_refused() {
    let options = Conv2dOptions {
        padding: Padding::all(1),
        upsample: true,
        ..Conv2dOptions::default()
    };
    let case = Case::new([1, 5, 6, 2], [7, 3, 3], options, DType::F32);
    for device in &test_devices() {
        let (conv, x, _) = whole(&case, device);
        let nothing = x.narrow(1, 0, 0).unwrap();
        let none = conv.forward_rows(&nothing, None, 0..0).unwrap();
        assert_eq!(none.shape(), [1, 0, 12, 7]);
        let residual = Tensor::zeros([1, 10, 12, 7], DType::F32, device).unwrap();
        let last = usize::MAX;
        for (x, residual, rows) in [
            (&nothing, None, 0..1),
            (&x, None, 9..11),
            (&x, None, last - 1..last),
            (&x, Some(residual.view()), 0..2),
        ] {
            assert!(conv.forward_rows(x, residual, rows).is_err(), "{device}");
        }
    }
}
