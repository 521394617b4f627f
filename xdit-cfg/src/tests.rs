//! Compares two ranks with one rank bit by bit, one rank with f64, and the bytes sent with the formula.

use crate::{Branch, Error, Guidance, GuidancePlan, Scales, SkipLayers};
use proptest::prelude::*;
use xdit_comm::{Group, threads};
use xdit_kernels::{DType, Device, Tensor};

#[derive(Debug, Clone)]
struct Case {
    shape: Vec<usize>,
    dtype: DType,
    scales: Scales,
    seed: u32,
}

impl Case {
    /// What the model predicts for a branch; exact in the case's dtype.
    fn prediction(&self, branch: Branch) -> Tensor {
        let mut state = (self.seed ^ (branch.index() as u32 + 1).wrapping_mul(0x9e37_79b9)) | 1;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / 2_147_483_648.0 - 1.0
        };
        let data: Vec<f32> = (0..self.shape.iter().product())
            .map(|_| uniform() + uniform())
            .collect();
        Tensor::from_slice(&data, &self.shape[..], &Device::cpu())
            .and_then(|wide| wide.to_dtype(self.dtype))
            .unwrap()
    }

    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }

    fn combined(&self, group: Option<Group>) -> xdit_comm::Result<Tensor> {
        let guidance = Guidance::new(group)?;
        let branches = guidance.branches(&self.scales).iter();
        let predictions: Vec<_> = branches.map(|branch| self.prediction(*branch)).collect();
        Ok(guidance.combine(&self.scales, &predictions)?)
    }

    /// The definition, in f64, and how far f32 may be from each element.
    fn oracle(&self) -> (Vec<f64>, Vec<f64>) {
        let f64s = |branch| -> Vec<f64> {
            let values = self.prediction(branch).to_vec_blocking::<f32>().unwrap();
            values.into_iter().map(f64::from).collect()
        };
        let [cond, uncond, skipped] = [
            Branch::Conditional,
            Branch::Unconditional,
            Branch::SkipLayers,
        ]
        .map(f64s);
        let w = f64::from(self.scales.guidance);
        let skip = f64::from(self.scales.skip_layers.unwrap_or(0.0));
        let phi = f64::from(self.scales.rescale);
        if w <= 1.0 {
            let exact = vec![0.0; cond.len()];
            return (cond, exact);
        }
        // Six roundings at most, each of 2⁻²⁴ of less than the sum of what is added up.
        let unit = 6.0 * f64::from(f32::EPSILON) / 2.0;
        let (mut guided, mut tols) = (Vec::new(), Vec::new());
        for ((c, u), s) in cond.iter().zip(&uncond).zip(&skipped) {
            guided.push(u + w * (c - u) + skip * (c - s));
            let magnitude = u.abs() + w * (c.abs() + u.abs()) + skip.abs() * (c.abs() + s.abs());
            tols.push(unit * magnitude);
        }
        if phi > 0.0 {
            let len = guided.len() / self.shape[0];
            for entry in 0..self.shape[0] {
                let rows = entry * len..(entry + 1) * len;
                let spread = std(&guided[rows.clone()]);
                let ratio = std(&cond[rows.clone()]) / spread;
                let factor = phi * ratio + (1.0 - phi);
                // Elements wrong by `worst` make the spread wrong by 2·worst at most (√(n/(n−1)) ≤ √2).
                let worst = tols[rows.clone()].iter().fold(0.0, |m: f64, t| m.max(*t));
                let factor_tol = phi * ratio * 2.0 * worst / (spread - 2.0 * worst).max(0.0);
                for i in rows {
                    tols[i] = (tols[i] + unit * guided[i].abs()) * (factor + factor_tol)
                        + guided[i].abs() * factor_tol;
                    guided[i] *= factor;
                }
            }
        }
        (guided, tols)
    }
}

/// Two passes, n − 1: as torch has it.
fn std(x: &[f64]) -> f64 {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let squares: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
    (squares / (x.len() as f64 - 1.0)).sqrt()
}

fn cases() -> impl Strategy<Value = Case> {
    let dtype = prop_oneof![Just(DType::F32), Just(DType::BF16), Just(DType::F16)];
    // At least two elements an entry, so that there is a standard deviation.
    let shape = (
        1usize..4,
        prop::collection::vec(1usize..7, 0..3),
        2usize..40,
    );
    let rescale = prop_oneof![Just(0f32), 0f32..1.0];
    let guidance = prop_oneof![1 => -1f32..=1.0, 4 => 1.001f32..12.0];
    let skip_layers = prop::option::of(-1f32..4.0);
    (shape, dtype, rescale, guidance, skip_layers, any::<u32>()).prop_map(
        |((batch, middle, last), dtype, rescale, guidance, skip_layers, seed)| Case {
            shape: [vec![batch], middle, vec![last]].concat(),
            dtype,
            scales: Scales {
                guidance,
                rescale,
                skip_layers,
            },
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn one_rank_gives_the_definition(case in cases()) {
        let got = case.combined(None).unwrap();
        prop_assert_eq!(got.shape(), &case.shape[..]);
        prop_assert_eq!(got.dtype(), DType::F32);
        let (expected, tols) = case.oracle();
        for ((got, expected), tol) in got.to_vec_blocking::<f32>().unwrap().into_iter().zip(expected).zip(tols) {
            let diff = (f64::from(got) - expected).abs();
            prop_assert!(diff <= tol, "{} and {}: {} > {}", got, expected, diff, tol);
        }
    }

    #[test]
    fn two_ranks_give_the_bits_of_one(case in cases()) {
        let one = case.combined(None).unwrap();
        let own = case.clone();
        let two = threads::run(2, move |cfg| {
            let out = own.combined(Some(cfg.clone()))?;
            Ok((out, cfg.stats()))
        }).unwrap();
        let branches = case.scales.branches().len();
        for (rank, (out, stats)) in two.iter().enumerate() {
            prop_assert_eq!(out.host_bytes_blocking().unwrap(), one.host_bytes_blocking().unwrap());
            if branches == 1 {
                prop_assert!(stats.is_empty(), "{:?}", stats);
                continue;
            }
            prop_assert_eq!(stats.len(), 1);
            let did = stats[&("all_gather", None)];
            prop_assert_eq!(did.calls, 1);
            let mine = if rank == 0 { 1 } else { branches - 1 };
            prop_assert_eq!(did.bytes, mine * case.bytes());
            prop_assert_eq!(did.copied, if mine > 1 { did.bytes } else { 0 });
        }
    }
}

fn scales(guidance: f32, rescale: f32, skip_layers: Option<f32>) -> Scales {
    Scales {
        guidance,
        rescale,
        skip_layers,
    }
}

const COND: [f32; 8] = [0.5, -1.25, 2., 0.125, 3., 1., -2., 0.75];
const UNCOND: [f32; 8] = [0.25, -1., 1.5, 0.5, 2., 0.5, -1., -0.25];
const SKIPPED: [f32; 8] = [0.375, -0.5, 1.75, 0., 2.5, 1.5, -1.5, 0.5];

fn two_by_four(x: &[f32]) -> Tensor {
    Tensor::from_slice(x, [2, 4], &Device::cpu()).unwrap()
}

#[test]
fn numbers_of_diffusers() {
    // torch 2.15, diffusers 0.42.1: n = u + 5·(c − u), n + (c − s)·2.8, rescale_noise_cfg(n, c, 0.7).
    let skipped = [1.85, -4.35, 4.7, -1.025, 8.4, 1.6, -7.4, 5.45];
    let both = [
        1.001_051_9,
        -2.353_825,
        2.543_212_7,
        -0.554_636_9,
        4.280_357_4,
        0.815_306_2,
        -3.770_791,
        2.777_136_8,
    ];
    let rescaled = [
        0.942_684_1,
        -1.414_026_3,
        2.513_824_5,
        -0.864_127_2,
        3.867_210_4,
        1.657_375_9,
        -3.314_751_9,
        2.624_178_4,
    ];
    let guidance = Guidance::new(None).unwrap();
    let [c, u, s] = [COND, UNCOND, SKIPPED].map(|x| two_by_four(&x));
    for (scales, expected) in [
        (scales(5.0, 0.0, Some(2.8)), skipped),
        (scales(5.0, 0.7, Some(2.8)), both),
        (scales(5.0, 0.7, None), rescaled),
    ] {
        let all = [c.clone(), u.clone(), s.clone()];
        let got = guidance
            .combine(&scales, &all[..scales.branches().len()])
            .unwrap();
        for (got, expected) in got
            .to_vec_blocking::<f32>()
            .unwrap()
            .into_iter()
            .zip(expected)
        {
            let diff = (got - expected).abs();
            // torch rounds the two terms of the rescale, this crate its factor: three roundings apart.
            assert!(
                diff <= 3.0 * f32::EPSILON * expected.abs(),
                "{got} {expected}"
            );
        }
    }
}

#[test]
fn without_guidance_the_conditional_branch_is_the_prediction() {
    // Rescale and skipped layers belong to guidance, as in diffusers.
    let guidance = Guidance::new(None).unwrap();
    let scales = scales(1.0, 0.7, Some(2.8));
    assert_eq!(guidance.branches(&scales), [Branch::Conditional]);
    let out = guidance.combine(&scales, &[two_by_four(&COND)]).unwrap();
    assert_eq!(out.to_vec_blocking::<f32>().unwrap(), COND);
}

#[test]
fn a_rank_without_rows_takes_part() {
    let empty = Tensor::from_slice::<f32>(&[], [2, 0, 3], &Device::cpu()).unwrap();
    let scales = scales(5.0, 0.5, Some(1.0));
    let shapes = threads::run(2, move |cfg| {
        let guidance = Guidance::new(Some(cfg))?;
        let predictions = vec![empty.clone(); guidance.branches(&scales).len()];
        let guided = guidance.guide(&scales, &predictions)?;
        assert!(guided.needs_rescale());
        Ok(guided.into_prediction().shape().to_vec())
    });
    assert_eq!(shapes.unwrap(), [[2, 0, 3], [2, 0, 3]]);
}

#[test]
fn branches_of_ranks_are_all_branches() {
    let plan = GuidancePlan {
        guidance_scale: 5.0,
        skip_layers: Some(SkipLayers::default()),
        ..Default::default()
    };
    let ranks = threads::run(2, move |cfg| {
        let guidance = Guidance::new(Some(cfg))?;
        let of = |step| guidance.branches(&plan.scales(step, 28));
        Ok([of(0), of(1)])
    });
    use Branch::{Conditional, SkipLayers as Skip, Unconditional};
    assert_eq!(
        ranks.unwrap(),
        [
            [&[Conditional][..], &[Conditional]],
            [&[Unconditional], &[Unconditional, Skip]]
        ]
    );
}

#[test]
fn the_window_of_diffusers() {
    // Python: [i for i in range(n) if i > n * start and i < n * stop]
    let active = |start, stop, steps: usize| -> Vec<usize> {
        let skip = SkipLayers {
            scale: 1.0,
            start,
            stop,
        };
        (0..steps).filter(|i| skip.is_active(*i, steps)).collect()
    };
    assert_eq!(active(0.01, 0.2, 28), [1, 2, 3, 4, 5]);
    assert_eq!(active(0.01, 0.2, 10), [1]);
    assert_eq!(active(0.01, 0.2, 4), [0; 0]);
    assert_eq!(active(0.0, 1.0, 3), [1, 2]);
    assert_eq!(active(-1.0, 1.0, 3), [0, 1, 2]);
    assert_eq!(active(0.5, 0.2, 9), [0; 0]);
}

#[test]
fn plans_that_cannot_be() {
    let plan = |guidance_scale, guidance_rescale| GuidancePlan {
        guidance_scale,
        guidance_rescale,
        skip_layers: None,
    };
    let skip = |scale, start| GuidancePlan {
        skip_layers: Some(SkipLayers {
            scale,
            start,
            ..Default::default()
        }),
        ..plan(5.0, 0.0)
    };
    for (plan, name) in [
        (plan(f32::NAN, 0.0), "guidance_scale"),
        (plan(f32::INFINITY, 0.0), "guidance_scale"),
        (plan(5.0, f32::NAN), "guidance_rescale"),
        (plan(5.0, -0.1), "guidance_rescale"),
        (skip(f32::NAN, 0.0), "skip_layer_guidance_scale"),
        (skip(2.8, f64::NAN), "skip_layer_guidance_start"),
    ] {
        let message = plan.check(1).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{name}: ")), "{message}");
    }
    let scales = plan(f32::NAN, 0.0).scales(0, 1);
    let one = Guidance::new(None).unwrap();
    let refused = one.combine(&scales, &[two_by_four(&COND)]);
    assert!(matches!(refused, Err(Error::Scale { .. })));

    assert!(matches!(
        plan(1.0, 0.0).check(2),
        Err(Error::OneBranch { .. })
    ));
    assert!(plan(1.0, 0.0).check(1).is_ok());
    for degree in [0, 3] {
        assert!(matches!(
            plan(5.0, 0.0).check(degree),
            Err(Error::Degree { got }) if got == degree
        ));
    }
    let three = threads::run(3, |cfg| Ok(Guidance::new(Some(cfg))?));
    let message = three.unwrap_err().to_string();
    assert!(message.contains("over 3 ranks"), "{message}");
}

#[test]
fn predictions_that_do_not_fit() {
    let guidance = Guidance::new(None).unwrap();
    let scales = scales(5.0, 0.0, None);
    let cond = two_by_four(&COND);
    let refused = |other: &[Tensor]| {
        let all = [std::slice::from_ref(&cond), other].concat();
        guidance.combine(&scales, &all).unwrap_err()
    };
    let count = refused(&[]);
    assert!(
        matches!(
            count,
            Error::Predictions {
                expected: 2,
                got: 1,
                ..
            }
        ),
        "{count}"
    );
    assert_eq!(
        count.to_string(),
        "combine: the number of predictions is 1, but must be 2 (conditional, unconditional)"
    );
    for other in [
        Tensor::from_slice(&UNCOND, [4, 2], &Device::cpu()).unwrap(),
        cond.to_dtype(DType::BF16).unwrap(),
    ] {
        let error = refused(&[other]);
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }
    let scalar = Tensor::from_slice(&[1f32], [], &Device::cpu()).unwrap();
    let error = guidance.combine(&scales, &[scalar.clone(), scalar]);
    assert!(matches!(error, Err(Error::Shape { .. })));
}

#[test]
fn ranks_that_disagree_return() {
    // One rank with skipped layers, one without: the sizes of the exchange differ, and both are told.
    let outcomes = threads::run_each(2, threads::Options::default(), |cfg| {
        let skip = (cfg.rank() == 1).then_some(1.0);
        let guidance = Guidance::new(Some(cfg))?;
        let scales = scales(5.0, 0.0, skip);
        let predictions = vec![two_by_four(&COND); guidance.branches(&scales).len()];
        guidance.combine(&scales, &predictions)?;
        Ok(())
    });
    assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
}
