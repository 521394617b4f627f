use super::*;
use crate::DType;
use crate::layout;
use crate::testing::{at_most, test_devices};
use proptest::prelude::*;

fn noise(n: usize, seed: u32, mean: f32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| {
            let z = (i ^ seed.rotate_left(16)).wrapping_mul(0x9e37_79b9);
            mean + ((z ^ (z >> 15)).wrapping_mul(0x85eb_ca6b) >> 8) as f32 / (1u32 << 23) as f32
                - 1.0
        })
        .collect()
}

/// By definition, in f64, with the variance taken about the mean.
fn oracle(
    x: &[f32],
    [b, pixels, c]: [usize; 3],
    groups: usize,
    weight: &[f32],
    bias: &[f32],
    eps: f64,
    silu: bool,
) -> Vec<f64> {
    let in_group = c / groups;
    let mut out = vec![0.0; x.len()];
    for batch in 0..b {
        for g in 0..groups {
            let at: Vec<usize> = (0..pixels * in_group)
                .map(|i| (batch * pixels + i / in_group) * c + g * in_group + i % in_group)
                .collect();
            let n = at.len() as f64;
            let mean = at.iter().map(|&i| f64::from(x[i])).sum::<f64>() / n;
            let variance = at
                .iter()
                .map(|&i| (f64::from(x[i]) - mean).powi(2))
                .sum::<f64>()
                / n;
            for i in at {
                let y = (f64::from(x[i]) - mean) / (variance + eps).sqrt()
                    * f64::from(weight[i % c])
                    + f64::from(bias[i % c]);
                out[i] = if silu { y / (1.0 + (-y).exp()) } else { y };
            }
        }
    }
    out
}

#[derive(Debug, Clone)]
struct Case {
    dims: [usize; 4],
    groups: usize,
    dtype: DType,
    mean: f32,
    silu: bool,
}

fn check(case: &Case) {
    let Case {
        dims,
        groups,
        dtype,
        mean,
        silu,
    } = case.clone();
    let c = dims[3];
    let data = noise(dims.iter().product(), 1, mean);
    let (weight, bias) = (noise(c, 2, 1.0), noise(c, 3, 0.0));
    for device in &test_devices() {
        let x = Tensor::from_slice(&data, dims, device).unwrap();
        let x = x.to_dtype(dtype).unwrap();
        let want = oracle(
            &x.to_vec_blocking::<f32>().unwrap(),
            [dims[0], dims[1] * dims[2], c],
            groups,
            &weight,
            &bias,
            1e-6,
            silu,
        );
        let (w, b) = (
            View::from_slice(&weight, [c], device).unwrap(),
            View::from_slice(&bias, [c], device).unwrap(),
        );
        let y = group_norm(&x, groups, w, b, 1e-6, silu).unwrap();
        for (i, (got, want)) in y
            .to_vec_blocking::<f32>()
            .unwrap()
            .into_iter()
            .zip(&want)
            .enumerate()
        {
            // Deviations are about 0.6, so a mean of m costs m·2⁻²⁴/0.6 in x − mean; e^x adds 3e-7 of the value. A group
            // of one element has variance 0 and 1/√eps = 1000 times that.
            let lone = if dims[1] * dims[2] * c / groups < 3 {
                1e3
            } else {
                1.0
            };
            let f32_error = (1e-6 * want.abs() + 2e-6 + 4e-7 * f64::from(mean)) * lone;
            let rounding = match dtype {
                DType::F32 => 0.0,
                DType::F16 => want.abs() / 2048.0,
                _ => want.abs() / 256.0,
            };
            let tol = f32_error + rounding;
            assert!(
                (f64::from(got) - want).abs() <= tol,
                "{device} {case:?} element {i}: {got}, not {want} ± {tol:e}"
            );
        }
    }
}

proptest! {
    #![proptest_config(at_most(64))]
    #[test]
    fn equals_the_definition(
        (b, h, w) in (1usize..3, 1usize..24, 1usize..24),
        (groups, in_group) in (1usize..9, 1usize..9),
        dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]),
        mean in prop::sample::select(vec![0f32, 3.0, 100.0]),
        silu in any::<bool>(),
    ) {
        check(&Case { dims: [b, h, w, groups * in_group], groups, dtype, mean, silu });
    }
}

#[test]
fn large_pictures_and_threads() {
    let case = Case {
        dims: [2, 150, 70, 48],
        groups: 8,
        dtype: DType::F32,
        mean: 10.0,
        silu: true,
    };
    check(&case);
    for device in &test_devices() {
        let x = Tensor::from_slice(&noise(2 * 150 * 70 * 48, 1, 10.0), case.dims, device).unwrap();
        let ones = Tensor::from_slice(&[1f32; 48], [48], device).unwrap();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| group_norm(&x, 8, &ones, &ones, 1e-6, true))
                .unwrap()
        };
        let one = run(1);
        for threads in [2, 5] {
            assert_eq!(
                run(threads).host_bytes_blocking().unwrap(),
                one.host_bytes_blocking().unwrap()
            );
        }
        // Transposed rows and columns: another order of sums, the same statistics.
        let turned = group_norm(
            x.view().transpose(1, 2).unwrap(),
            8,
            &ones,
            &ones,
            1e-6,
            true,
        )
        .unwrap();
        let back = layout::contiguous(turned.view().transpose(1, 2).unwrap()).unwrap();
        for (a, b) in back
            .to_vec_blocking::<f32>()
            .unwrap()
            .into_iter()
            .zip(one.to_vec_blocking::<f32>().unwrap())
        {
            // The f64 statistics round to f32 neighbours at most.
            assert!((a - b).abs() <= 4e-6);
        }
    }
}

proptest! {
    #![proptest_config(at_most(32))]
    #[test]
    fn rows_know_the_statistics_of_the_whole(
        (b, h, w) in (1usize..3, 1usize..24, 1usize..24),
        (groups, in_group) in (1usize..9, 1usize..9),
        cuts in prop::collection::vec(0usize..24, 0..4),
        dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]),
    ) {
        for device in &test_devices() {
            let dims = [b, h, w, groups * in_group];
            let x = Tensor::from_slice(&noise(dims.iter().product(), 1, 3.0), dims, device).unwrap().to_dtype(dtype).unwrap();
            let p = Tensor::from_slice(&noise(dims[3], 2, 1.0), [dims[3]], device).unwrap();
            let whole = group_norm(&x, groups, &p, &p, 1e-6, true).unwrap();
            // Any cuts, empty bands among them.
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (h + 1)).chain([0, h]).collect();
            ends.sort_unstable();
            let bands: Vec<Tensor> = ends.windows(2).map(|w| x.narrow(1, w[0], w[1] - w[0]).unwrap()).collect();
            let sums: Vec<Vec<f64>> = bands.iter().map(|band| GroupSums::of(band, groups).unwrap().to_vec_blocking().unwrap()).collect();
            let sums = GroupSums::total(groups, &sums, device).unwrap();
            let views: Vec<View<'_>> = bands.iter().map(Tensor::view).collect();
            let rows = group_norm_rows(&views, &sums, &p, &p, 1e-6, true).unwrap();
            prop_assert_eq!(rows.shape(), whole.shape());
            for (a, b) in rows.to_vec_blocking::<f32>().unwrap().into_iter().zip(whole.to_vec_blocking::<f32>().unwrap()) {
                // Sums in another order; a lone element's 1/√eps = 1000 makes much of little. bf16 may round to a neighbour.
                let lone = if h * w * in_group < 3 { 1e3 } else { 1.0 };
                let rounding = match dtype { DType::F32 => 0.0, DType::F16 => 1.0 / 1024.0, _ => 1.0 / 128.0 };
                prop_assert!((a - b).abs() <= 4e-6 * lone + rounding * b.abs(), "{a} and {b}");
            }
            let one = group_norm_rows(&[x.view()], &GroupSums::of(&x, groups).unwrap(), &p, &p, 1e-6, true).unwrap();
            prop_assert!(one.host_bytes_blocking().unwrap() == whole.host_bytes_blocking().unwrap(), "one part is the whole, bit for bit");
        }
    }
}

#[test]
fn sums_of_other_pictures_are_refused() {
    for device in &test_devices() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device).unwrap();
        let (x, p) = (zeros(&[1, 2, 2, 6]), zeros(&[6]));
        let rows = |parts: &[View<'_>], sums: &GroupSums| {
            group_norm_rows(parts, sums, &p, &p, 1e-6, false).map(|y| y.dim(1))
        };
        let sums = GroupSums::of(&x, 3).unwrap();
        assert_eq!(rows(&[x.view(), x.view()], &sums).unwrap(), 4);
        assert!(rows(&[], &sums).is_err());
        assert!(rows(&[zeros(&[2, 2, 2, 6]).view()], &sums).is_err());
        assert!(rows(&[x.view(), zeros(&[1, 2, 3, 6]).view()], &sums).is_err());
        assert!(rows(&[x.view(), zeros(&[2, 6]).view()], &sums).is_err());
        assert!(rows(&[zeros(&[2, 6]).view()], &sums).is_err());
        let total = |groups, parts: &[&[f64]]| {
            GroupSums::total(groups, parts, device).map(|sums| sums.to_vec_blocking().unwrap())
        };
        let one = &sums.to_vec_blocking().unwrap()[..];
        assert_eq!(total(3, &[one]).unwrap(), one);
        assert!(total(3, &[one, &one[1..]]).is_err());
        assert!(total(4, &[one, one]).is_err() && total(0, &[one]).is_err());
        assert!(total(3, &[]).is_err() && total(3, &[&[]]).is_err());
    }
}

#[test]
fn wrong_input_is_an_error() {
    for device in &test_devices() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device).unwrap();
        let p = zeros(&[6]);
        assert!(group_norm(&zeros(&[1, 2, 2, 6]), 4, &p, &p, 1e-6, false).is_err());
        assert!(group_norm(&zeros(&[1, 2, 2, 6]), 0, &p, &p, 1e-6, false).is_err());
        assert!(group_norm(&zeros(&[2, 2, 6]), 3, &p, &p, 1e-6, false).is_err());
        assert!(group_norm(&zeros(&[1, 2, 2, 6]), 3, &zeros(&[5]), &p, 1e-6, false).is_err());
        let empty = group_norm(&zeros(&[0, 2, 2, 6]), 3, &p, &p, 1e-6, false).unwrap();
        assert_eq!(empty.shape(), [0, 2, 2, 6]);
    }
}
