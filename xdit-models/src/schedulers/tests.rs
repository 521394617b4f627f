use proptest::prelude::*;

use xdit_kernels::Device;

use super::*;
use crate::files::config::ConfigFile;

/// Some values as a tensor.
pub(super) fn row(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, [values.len()], &Device::cpu()).unwrap()
}

/// A tensor's values.
pub(super) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec_blocking().unwrap()
}

const HUNYUAN: &str = r#""beta_start": 0.00085, "beta_end": 0.03, "beta_schedule": "scaled_linear", "clip_sample": false,
    "prediction_type": "v_prediction", "steps_offset": 1"#;

fn read(class: &str, fields: &str) -> Result<SchedulerConfig> {
    let comma = if fields.is_empty() { "" } else { ", " };
    let json = format!(r#"{{"_class_name": "{class}", {HUNYUAN}{comma}{fields}}}"#);
    let file = ConfigFile::parse("scheduler/scheduler_config.json", json.as_bytes())?;
    SchedulerConfig::read(&file)
}

fn steps(config: &SchedulerConfig, steps: usize) -> Result<Box<dyn Scheduler>> {
    let mut scheduler = config.scheduler();
    scheduler.set_timesteps(&TimestepRequest {
        num_inference_steps: Some(steps),
        ..Default::default()
    })?;
    Ok(scheduler)
}

#[test]
fn what_is_not_supported_names_file_and_field() {
    let (ddpm, ddim) = ("DDPMScheduler", "DDIMScheduler");
    let (dpm, euler) = ("DPMSolverMultistepScheduler", "EulerDiscreteScheduler");
    for (class, fields, field) in [
        ("UniPCMultistepScheduler", "", "_class_name"),
        (ddpm, r#""thresholding": true"#, "thresholding"),
        (ddpm, r#""variance_type": "learned_range""#, "variance_type"),
        (
            ddpm,
            r#""variance_type": "fixed_large_log""#,
            "variance_type",
        ),
        (ddpm, r#""beta_schedule": "sigmoid""#, "beta_schedule"),
        (ddpm, r#""clip_sample_range": 0"#, "clip_sample_range"),
        (ddpm, r#""beta_end": 1.5"#, "beta_end"),
        // All noise long before the last timestep.
        (
            ddpm,
            r#""beta_end": 0.999, "beta_start": 0.999"#,
            "beta_end",
        ),
        (ddpm, r#""trained_betas": [0.1, 0.2]"#, "trained_betas"),
        (
            ddpm,
            r#""trained_betas": [0], "num_train_timesteps": 1, "steps_offset": 0"#,
            "trained_betas",
        ),
        (
            ddpm,
            r#""prediction_type": "flow_prediction""#,
            "prediction_type",
        ),
        (ddpm, r#""timestep_spacing": "karras""#, "timestep_spacing"),
        (ddim, r#""thresholding": true"#, "thresholding"),
        (ddim, r#""steps_offset": 1001"#, "steps_offset"),
        (dpm, r#""algorithm_type": "dpmsolver""#, "algorithm_type"),
        (dpm, r#""solver_order": 4"#, "solver_order"),
        (dpm, r#""use_lu_lambdas": "yes""#, "use_lu_lambdas"),
        (dpm, r#""use_flow_sigmas": true"#, "use_flow_sigmas"),
        (
            dpm,
            r#""use_dynamic_shifting": true"#,
            "use_dynamic_shifting",
        ),
        (
            dpm,
            r#""use_karras_sigmas": true, "use_beta_sigmas": true"#,
            "use_beta_sigmas",
        ),
        (dpm, r#""lambda_min_clipped": "low""#, "lambda_min_clipped"),
        (
            dpm,
            r#""prediction_type": "epsilon", "variance_type": "learned""#,
            "variance_type",
        ),
        (
            euler,
            r#""interpolation_type": "cubic""#,
            "interpolation_type",
        ),
        (euler, r#""final_sigmas_type": "one""#, "final_sigmas_type"),
        (euler, r#""sigma_min": 0"#, "sigma_min"),
    ] {
        // A later field of the same name counts.
        let error = read(class, fields).unwrap_err().to_string();
        let named = format!("scheduler_config.json: `{field}`");
        assert!(
            error.contains(&named) && !error.contains('\n'),
            "{class} {fields}: {error}"
        );
    }
}

#[test]
fn python_s_infinity_is_read() {
    let config = read(
        "DPMSolverMultistepScheduler",
        r#""lambda_min_clipped": -Infinity"#,
    )
    .unwrap();
    assert_eq!(config, read("DPMSolverMultistepScheduler", "").unwrap());
}

#[test]
fn unknown_names_list_the_known_ones() {
    let file = ConfigFile::parse("scheduler_config.json", b"{}").unwrap();
    let error = SchedulerConfig::read_as("KarrasVeScheduler", &file).unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("`scheduler` = KarrasVeScheduler"),
        "{error}"
    );
    for class in SchedulerConfig::DIFFUSION
        .iter()
        .chain(SchedulerConfig::FLOW_MATCHING)
    {
        assert!(error.contains(class), "{error}");
    }
}

#[test]
fn fields_that_only_held_a_default_are_not_taken_over() {
    let json = r#"{"_class_name": "DDPMScheduler", "timestep_spacing": "leading", "steps_offset": 1,
        "_use_default_values": ["timestep_spacing"]}"#;
    let file = ConfigFile::parse("scheduler_config.json", json.as_bytes()).unwrap();
    let euler = SchedulerConfig::read_as("EulerDiscreteScheduler", &file).unwrap();
    let expected = EulerConfig {
        schedule: NoiseSchedule {
            steps_offset: 1,
            ..EulerConfig::default().schedule
        },
        ..EulerConfig::default()
    };
    assert_eq!(euler, SchedulerConfig::Euler(expected));
}

#[test]
fn steps_that_the_schedule_does_not_have_are_refused() {
    let zero = r#""rescale_betas_zero_snr": true, "timestep_spacing": "trailing", "prediction_type": "epsilon""#;
    let karras = r#""use_karras_sigmas": true"#;
    for (class, fields, count, part) in [
        ("DDPMScheduler", "", 1001, "num_train_timesteps"),
        ("DDIMScheduler", "", 0, "from 1 to"),
        // The offset leads to timestep 1000.
        ("DDPMScheduler", "", 1000, "steps_offset"),
        ("DDIMScheduler", "", 1000, "steps_offset"),
        ("DDPMScheduler", zero, 4, "rescale_betas_zero_snr"),
        ("DDIMScheduler", zero, 4, "rescale_betas_zero_snr"),
        (
            "DPMSolverMultistepScheduler",
            "",
            1000,
            "falling noise level",
        ),
        (
            "EulerDiscreteScheduler",
            karras,
            1001,
            "num_train_timesteps",
        ),
    ] {
        let error = steps(&read(class, fields).unwrap(), count).unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("`num_inference_steps`") && error.contains(part),
            "{class} {fields} {count}: {error}"
        );
    }
    for class in SchedulerConfig::DIFFUSION {
        let mut scheduler = read(class, "").unwrap().scheduler();
        let lists = TimestepRequest {
            sigmas: Some(&[1.0, 0.5]),
            ..Default::default()
        };
        let error = scheduler.set_timesteps(&lists).unwrap_err().to_string();
        assert!(error.starts_with("`sigmas`"), "{class}: {error}");
    }
}

#[test]
fn wrong_steps_are_refused() {
    for class in SchedulerConfig::DIFFUSION {
        let scheduler = steps(&read(class, "").unwrap(), 2).unwrap();
        let (sample, output) = (row(&[0.5; 3]), row(&[0.1; 3]));
        let short = scheduler.step(&mut StepState::default(), &row(&[0.1; 2]), &sample, None);
        assert!(
            short.unwrap_err().to_string().starts_with("`model_output`"),
            "{class}"
        );
        let late = scheduler.step(&mut StepState::at(2), &output, &sample, Some(&output));
        assert!(
            late.unwrap_err().to_string().starts_with("`step`"),
            "{class}"
        );
        if scheduler.draws_noise(0) {
            let silent = scheduler.step(&mut StepState::default(), &output, &sample, None);
            assert!(
                silent.unwrap_err().to_string().starts_with("`noise`"),
                "{class}"
            );
        }
    }
}

/// A made-up model's answer.
fn output(sample: &Tensor, step: usize) -> Tensor {
    let output = values(sample).into_iter();
    row(&output
        .map(|x| (x * 0.6 + step as f32).sin())
        .collect::<Vec<_>>())
}

proptest! {
    /// An image that is stepped in patches, each with a state of its own, is the image stepped whole.
    #[test]
    fn patches_are_stepped_as_the_whole(
        len in 1..40_usize,
        cut in 0..40_usize,
        count in 1..20_usize,
        class in prop::sample::select(SchedulerConfig::DIFFUSION),
        order in 1..=3_usize,
        sde in any::<bool>(),
    ) {
        let algorithm = if sde { "sde-dpmsolver++" } else { "dpmsolver++" };
        let fields = format!(r#""solver_order": {order}, "algorithm_type": "{algorithm}""#);
        let scheduler = steps(&read(class, &fields).unwrap(), count).unwrap();
        let cut = cut.min(len);
        let start: Vec<f32> = (0..len).map(|i| (i as f32 * 1.7).cos()).collect();
        let mut whole = row(&start);
        let mut parts = [row(&start[..cut]), row(&start[cut..])];
        let mut states = [StepState::default(), StepState::default()];
        let mut state = StepState::default();
        for step in 0..count {
            let noise: Vec<f32> = (0..len).map(|i| ((i * 7 + step) as f32).sin()).collect();
            let noise = scheduler.draws_noise(step).then(|| row(&noise));
            let outputs = output(&whole, step);
            whole = scheduler.step(&mut state, &outputs, &whole, noise.as_ref()).unwrap();
            for (i, (start, len)) in [(0, cut), (cut, len - cut)].into_iter().enumerate() {
                let outputs = output(&parts[i], step);
                let noise = noise.as_ref().map(|noise| noise.narrow(0, start, len).unwrap());
                let stepped = scheduler.step(&mut states[i], &outputs, &parts[i], noise.as_ref());
                parts[i] = stepped.unwrap();
            }
            prop_assert_eq!(state.history.len(), scheduler.history_len(step + 1));
        }
        prop_assert_eq!(values(&whole), parts.map(|part| values(&part)).concat());
    }
}
