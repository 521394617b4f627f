//! diffusers' flow-matching schedules and steps: `schedulers.json.gz`.

use serde_json::Value;
use xdit_kernels::{Device, Tensor};
use xdit_models::ConfigFile;
use xdit_models::noise::Generator;
use xdit_models::schedulers::{
    FlowMatchEuler, FlowMatchEulerConfig, Scheduler, StepState, TimestepRequest,
};

use xdit_tests::goldens;

fn recorded() -> Value {
    serde_json::from_slice(&goldens::bytes("schedulers.json.gz")).expect("a golden file")
}

fn scheduler(config: &Value) -> FlowMatchEuler {
    let file = ConfigFile::parse("schedulers.json", config.to_string().as_bytes())
        .expect("a configuration");
    FlowMatchEuler::new(
        FlowMatchEulerConfig::read(&file).expect("a configuration that diffusers took"),
    )
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .expect("a list")
        .iter()
        .map(|number| number.as_f64().expect("a number"))
        .collect()
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, [values.len()], &Device::cpu()).expect("a short list")
}

fn row(value: &Value) -> Tensor {
    let values: Vec<f32> = numbers(value).iter().map(|x| *x as f32).collect();
    tensor(&values)
}

fn close(name: &str, found: &[f32], expected: &[f64], unit: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        // Two units in the last place: exp, ln and pow of another C library, SciPy's beta quantiles.
        let tolerance = unit * 1.2e-7;
        let difference = (f64::from(*found) - expected).abs();
        assert!(
            difference <= tolerance,
            "{name}[{i}]: {found} is not diffusers' {expected}"
        );
    }
}

#[test]
fn schedules_are_those_of_diffusers() {
    let recorded = recorded();
    let schedules = recorded["schedules"].as_array().expect("schedules");
    assert!(schedules.len() > 200, "only {} schedules", schedules.len());
    for case in schedules {
        let call = &case["set_timesteps"];
        let sigmas = call.get("sigmas").map(numbers);
        let timesteps = call.get("timesteps").map(numbers);
        let mut scheduler = scheduler(&case["config"]);
        let request = TimestepRequest {
            num_inference_steps: call["num_inference_steps"].as_u64().map(|n| n as usize),
            sigmas: sigmas.as_deref(),
            timesteps: timesteps.as_deref(),
            mu: call["mu"].as_f64(),
        };
        scheduler
            .set_timesteps(&request)
            .expect("a schedule that diffusers made");
        let name = format!("{} {call}", case["config"]);
        close(&name, scheduler.sigmas(), &numbers(&case["sigmas"]), 1.0);
        close(
            &name,
            scheduler.timesteps(),
            &numbers(&case["timesteps"]),
            1000.0,
        );
    }
}

#[test]
fn steps_are_those_of_diffusers() {
    let recorded = recorded();
    let runs = recorded["steps"].as_array().expect("steps");
    assert!(!runs.is_empty(), "no steps");
    for run in runs {
        let mut scheduler = scheduler(&run["config"]);
        let request = TimestepRequest {
            sigmas: Some(&[1.0, 0.75, 0.5, 0.25]),
            mu: run["mu"].as_f64(),
            ..Default::default()
        };
        scheduler
            .set_timesteps(&request)
            .expect("a schedule that diffusers made");
        let mut sample = row(&run["sample"]);
        let mut generator = Generator::new(run["noise_seed"].as_u64().unwrap_or_default());
        let mut state = StepState::default();
        for step in run["steps"].as_array().expect("steps of a run") {
            let velocity = row(&step["model_output"]);
            let noise = scheduler.draws_noise(state.step).then(|| {
                let noise = generator.randn::<f32>(sample.numel());
                tensor(&noise.expect("eight numbers"))
            });
            sample = scheduler
                .step(&mut state, &velocity, &sample, noise.as_ref())
                .expect("a step");
            // Values below 4: two units in their last place; stochastic steps hold noise that is 3e-6 from torch's.
            let unit = if noise.is_some() { 30.0 } else { 4.0 };
            close(
                &run["config"].to_string(),
                &sample.to_vec_blocking::<f32>().expect("eight numbers"),
                &numbers(&step["prev_sample"]),
                unit,
            );
        }
        assert_eq!(state.step, 4, "{}", run["config"]);
    }
}
