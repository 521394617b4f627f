#![allow(clippy::excessive_precision, reason = "numbers as Python prints them")]

//! Schedules and steps as diffusers 0.42 computes them (the beta quantiles with 30 digits instead of SciPy's).

use super::*;
use crate::noise::Generator;
use crate::schedulers::SigmaSpacing;
use crate::schedulers::tests::{row, values};

struct Case {
    name: &'static str,
    config: FlowMatchEulerConfig,
    request: TimestepRequest<'static>,
    sigmas: &'static [f32],
    timesteps: &'static [f32],
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    vec![
        Case { name: "dev4", config: FlowMatchEulerConfig { shift: 3.0, use_dynamic_shifting: true, ..Default::default() }, request: TimestepRequest { sigmas: Some(&[1.0, 0.75, 0.5, 0.25]), mu: Some(0.83), ..Default::default() }, sigmas: &[1.0, 0.873095691204071, 0.6963549256324768, 0.43324780464172363, 0.0], timesteps: &[1000.0, 873.095703125, 696.3549194335938, 433.247802734375] },
        Case { name: "schnell", config: FlowMatchEulerConfig { shift: 1.0, ..Default::default() }, request: TimestepRequest { sigmas: Some(&[1.0, 0.75, 0.5, 0.25]), mu: Some(0.5), ..Default::default() }, sigmas: &[1.0, 0.75, 0.5, 0.25, 0.0], timesteps: &[1000.0, 750.0, 500.0, 250.0] },
        Case { name: "sd3 double shift", config: FlowMatchEulerConfig { shift: 3.0, ..Default::default() }, request: TimestepRequest { num_inference_steps: Some(5), ..Default::default() }, sigmas: &[1.0, 0.9003590941429138, 0.7511211037635803, 0.5029850602149963, 0.008928571827709675, 0.0], timesteps: &[1000.0, 900.3590698242188, 751.12109375, 502.98504638671875, 8.928571701049805] },
        Case { name: "dynamic default f64", config: FlowMatchEulerConfig { use_dynamic_shifting: true, ..Default::default() }, request: TimestepRequest { num_inference_steps: Some(5), mu: Some(1.15), ..Default::default() }, sigmas: &[1.0, 0.9046458601951599, 0.759876012802124, 0.5138424038887024, 0.0031513916328549385, 0.0], timesteps: &[1000.0, 904.6458740234375, 759.8760375976562, 513.8424072265625, 3.1513917446136475] },
        Case { name: "linear", config: FlowMatchEulerConfig { use_dynamic_shifting: true, time_shift_type: TimeShift::Linear, ..Default::default() }, request: TimestepRequest { sigmas: Some(&[1.0, 0.6, 0.3]), mu: Some(0.9), ..Default::default() }, sigmas: &[1.0, 0.5744680762290955, 0.2783505320549011, 0.0], timesteps: &[1000.0, 574.4680786132812, 278.35052490234375] },
        Case { name: "terminal", config: FlowMatchEulerConfig { shift: 2.0, shift_terminal: Some(0.1), ..Default::default() }, request: TimestepRequest { num_inference_steps: Some(4), ..Default::default() }, sigmas: &[1.0, 0.8197124004364014, 0.5495508909225464, 0.10000000149011612, 0.0], timesteps: &[1000.0, 819.71240234375, 549.5509033203125, 100.0] },
        Case { name: "karras", config: FlowMatchEulerConfig { shift: 3.0, spacing: Some(SigmaSpacing::Karras), ..Default::default() }, request: TimestepRequest { num_inference_steps: Some(5), ..Default::default() }, sigmas: &[1.0, 0.4003215432167053, 0.13959911465644836, 0.040372706949710846, 0.008928571827709675, 0.0], timesteps: &[1000.0, 400.321533203125, 139.59912109375, 40.37270736694336, 8.928571701049805] },
        Case { name: "exponential", config: FlowMatchEulerConfig { shift: 3.0, spacing: Some(SigmaSpacing::Exponential), ..Default::default() }, request: TimestepRequest { sigmas: Some(&[1.0, 0.7, 0.2]), ..Default::default() }, sigmas: &[1.0, 0.6546536684036255, 0.4285714626312256, 0.0], timesteps: &[1000.0, 654.6536865234375, 428.57147216796875] },
        Case { name: "beta", config: FlowMatchEulerConfig { shift: 3.0, spacing: Some(SigmaSpacing::Beta), ..Default::default() }, request: TimestepRequest { num_inference_steps: Some(5), ..Default::default() }, sigmas: &[1.0, 0.8258882164955139, 0.5044642686843872, 0.18304038047790527, 0.008928571827709675, 0.0], timesteps: &[1000.0, 825.8882446289062, 504.4642639160156, 183.04037475585938, 8.928571701049805] },
        Case { name: "karras ends", config: FlowMatchEulerConfig { spacing: Some(SigmaSpacing::Karras), sigma_min: Some(0.02), sigma_max: Some(0.9), ..Default::default() }, request: TimestepRequest { num_inference_steps: Some(3), ..Default::default() }, sigmas: &[0.8999999761581421, 0.17324359714984894, 0.019999999552965164, 0.0], timesteps: &[900.0, 173.24359130859375, 20.0] },
        Case { name: "invert", config: FlowMatchEulerConfig { invert_sigmas: true, ..Default::default() }, request: TimestepRequest { num_inference_steps: Some(3), ..Default::default() }, sigmas: &[0.0, 0.49949997663497925, 0.9990000128746033, 1.0], timesteps: &[0.0, 499.4999694824219, 999.0] },
        Case { name: "timesteps", config: FlowMatchEulerConfig { shift: 2.0, ..Default::default() }, request: TimestepRequest { timesteps: Some(&[900.0, 500.0, 100.0]), ..Default::default() }, sigmas: &[0.9473683834075928, 0.6666666865348816, 0.1818181872367859, 0.0], timesteps: &[900.0, 500.0, 100.0] },
        Case { name: "both", config: FlowMatchEulerConfig { shift: 2.0, ..Default::default() }, request: TimestepRequest { timesteps: Some(&[900.0, 500.0, 100.0]), sigmas: Some(&[1.0, 0.5, 0.2]), ..Default::default() }, sigmas: &[1.0, 0.6666666865348816, 0.3333333134651184, 0.0], timesteps: &[900.0, 500.0, 100.0] },
        Case { name: "one", config: FlowMatchEulerConfig { shift: 3.0, ..Default::default() }, request: TimestepRequest { num_inference_steps: Some(1), ..Default::default() }, sigmas: &[1.0, 0.0], timesteps: &[1000.0] },
    ]
}

#[test]
fn schedules_are_those_of_diffusers() {
    for case in cases() {
        let mut scheduler = FlowMatchEuler::new(case.config);
        scheduler.set_timesteps(&case.request).unwrap();
        assert_eq!(scheduler.sigmas().len(), case.sigmas.len(), "{}", case.name);
        assert_eq!(
            scheduler.timesteps().len(),
            case.timesteps.len(),
            "{}",
            case.name
        );
        let pairs =
            |a: &[f32], b: &[f32]| a.iter().copied().zip(b.iter().copied()).collect::<Vec<_>>();
        for (found, expected) in pairs(scheduler.sigmas(), case.sigmas) {
            // One unit in the last place below 1: exp, ln and pow may round differently in another C library.
            assert!(
                (found - expected).abs() <= 6e-8,
                "{}: sigma {found} is not {expected}",
                case.name
            );
        }
        for (found, expected) in pairs(scheduler.timesteps(), case.timesteps) {
            // The same, times 1000.
            assert!(
                (found - expected).abs() <= 6.2e-5,
                "{}: timestep {found} is not {expected}",
                case.name
            );
        }
    }
}

fn three_steps(config: FlowMatchEulerConfig) -> FlowMatchEuler {
    let mut scheduler = FlowMatchEuler::new(FlowMatchEulerConfig {
        shift: 3.0,
        ..config
    });
    scheduler
        .set_timesteps(&TimestepRequest {
            sigmas: Some(&[1.0, 0.5, 0.25]),
            ..Default::default()
        })
        .unwrap();
    scheduler
}

#[test]
fn steps_are_those_of_diffusers() {
    let scheduler = three_steps(FlowMatchEulerConfig::default());
    let (mut sample, velocity) = (row(&[0.3, -1.7, 2.25]), row(&[-0.9, 0.4, 1.1]));
    let mut state = StepState::default();
    for expected in [
        [0.5249999761581421, -1.8000000715255737, 1.975000023841858],
        [0.75, -1.9000000953674316, 1.7000000476837158],
        [1.2000000476837158, -2.1000001430511475, 1.1500000953674316],
    ] {
        sample = scheduler
            .step(&mut state, &velocity, &sample, None)
            .unwrap();
        // The same two roundings in the same order: equal.
        assert_eq!(values(&sample), expected);
    }
    let error = scheduler
        .step(&mut state, &velocity, &sample, None)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "`step` = 3: must be below 3: the schedule's steps"
    );
}

#[test]
fn stochastic_steps_are_those_of_diffusers() {
    let scheduler = three_steps(FlowMatchEulerConfig {
        stochastic_sampling: true,
        ..Default::default()
    });
    assert!(scheduler.draws_noise(0));
    let mut generator = Generator::new(3);
    let (mut sample, velocity) = (row(&[0.3, -1.7, 2.25]), row(&[-0.9, 0.4, 1.1]));
    let mut state = StepState::default();
    let silent = scheduler.step(&mut state, &velocity, &sample, None);
    assert!(silent.is_err());
    for expected in [
        [0.902457058429718, -0.39387500286102295, 0.3542335629463196],
        [0.4818694591522217, -0.3238462805747986, -0.9195128679275513],
        [0.9318694472312927, -0.5238462686538696, -1.469512939453125],
    ] {
        let noise: Vec<f32> = generator.randn(3).unwrap();
        sample = scheduler
            .step(&mut state, &velocity, &sample, Some(&row(&noise)))
            .unwrap();
        for (found, expected) in values(&sample).iter().zip(expected) {
            // The noise agrees with torch's to 3e-6.
            assert!(
                (found - expected).abs() <= 3e-6_f32,
                "{found} is not {expected}"
            );
        }
    }
}

#[test]
fn patches_step_apart() {
    let scheduler = three_steps(FlowMatchEulerConfig::default());
    let (velocity, start) = (row(&[-0.9, 0.4, 1.1, 0.2]), row(&[0.3, -1.7, 2.25, 0.7]));
    let run = |velocity: &Tensor, start: &Tensor| {
        let (mut state, mut sample) = (StepState::default(), start.clone());
        for _ in 0..3 {
            sample = scheduler.step(&mut state, velocity, &sample, None).unwrap();
        }
        values(&sample)
    };
    let part = |x: &Tensor, start: usize| x.narrow(0, start, 2).unwrap();
    let parts = [0, 2].map(|at| run(&part(&velocity, at), &part(&start, at)));
    assert_eq!(run(&velocity, &start), parts.concat());
}

#[test]
fn a_picture_is_mixed_with_noise() {
    let scheduler = three_steps(FlowMatchEulerConfig::default());
    let (sample, noise) = (row(&[2.0]), row(&[10.0]));
    let mixed = scheduler.scale_noise(1, &sample, &noise).unwrap();
    assert_eq!(values(&mixed), [0.75 * 10.0 + 0.25 * 2.0]);
    assert!(scheduler.scale_noise(9, &sample, &noise).is_err());
    assert!(scheduler.scale_noise(1, &sample, &row(&[])).is_err());
}

#[test]
fn contradictory_requests_name_their_argument() {
    let refuse = |config: FlowMatchEulerConfig, request: TimestepRequest<'_>| {
        FlowMatchEuler::new(config)
            .set_timesteps(&request)
            .unwrap_err()
            .to_string()
    };
    let plain = FlowMatchEulerConfig::default;
    let none = TimestepRequest::default;
    for (error, argument) in [
        (refuse(plain(), none()), "num_inference_steps"),
        (
            refuse(
                plain(),
                TimestepRequest {
                    num_inference_steps: Some(0),
                    ..none()
                },
            ),
            "num_inference_steps",
        ),
        (
            refuse(
                plain(),
                TimestepRequest {
                    num_inference_steps: Some(1 << 40),
                    ..none()
                },
            ),
            "num_inference_steps",
        ),
        (
            refuse(
                plain(),
                TimestepRequest {
                    num_inference_steps: Some(2),
                    sigmas: Some(&[1.0]),
                    ..none()
                },
            ),
            "sigmas",
        ),
        (
            refuse(
                plain(),
                TimestepRequest {
                    timesteps: Some(&[1.0]),
                    sigmas: Some(&[1.0, 0.5]),
                    ..none()
                },
            ),
            "timesteps",
        ),
        (
            refuse(
                plain(),
                TimestepRequest {
                    sigmas: Some(&[f64::NAN]),
                    ..none()
                },
            ),
            "sigmas",
        ),
        (
            refuse(
                FlowMatchEulerConfig {
                    use_dynamic_shifting: true,
                    ..plain()
                },
                TimestepRequest {
                    num_inference_steps: Some(4),
                    ..none()
                },
            ),
            "mu",
        ),
        (
            // One step of sigma 1 cannot be stretched to end elsewhere: diffusers' image is NaN there.
            refuse(
                FlowMatchEulerConfig {
                    shift_terminal: Some(0.1),
                    ..plain()
                },
                TimestepRequest {
                    num_inference_steps: Some(1),
                    ..none()
                },
            ),
            "sigmas",
        ),
    ] {
        assert!(error.starts_with(&format!("`{argument}` = ")), "{error}");
    }
}
