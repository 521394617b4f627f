//! diffusers' schedulers of diffusion, step by step: the `runs` of `schedulers.json.gz`.

use serde_json::{Value, json};
use xdit_kernels::{Device, Tensor};
use xdit_models::ConfigFile;
use xdit_models::noise::Generator;
use xdit_models::schedulers::{Scheduler, SchedulerConfig, StepState, TimestepRequest};

use xdit_tests::goldens;

fn recorded(part: &str) -> Vec<Value> {
    let bytes = goldens::bytes("schedulers.json.gz");
    let mut recorded: Value = serde_json::from_slice(&bytes).expect("a golden file");
    match recorded[part].take() {
        Value::Array(entries) => entries,
        other => panic!("not a list of {part}: {other}"),
    }
}

/// How far timesteps may be from those of diffusers, whose whole numbers must be met. Euler's lie between two of training, found
/// from logarithms by another C library.
fn timestep_tolerance(class: &str) -> f32 {
    match class {
        "EulerDiscreteScheduler" => 2e-6,
        _ => 0.0,
    }
}

fn numbers(value: &Value) -> Vec<f32> {
    let list = value.as_array().expect("a list");
    let number = |number: &Value| number.as_f64().expect("a number") as f32;
    list.iter().map(number).collect()
}

fn scheduler(class: &str, config: &Value) -> xdit_models::Result<Box<dyn Scheduler>> {
    let file = ConfigFile::parse("scheduler_config.json", config.to_string().as_bytes())?;
    Ok(SchedulerConfig::read_as(class, &file)?.scheduler())
}

/// The difference, where it is not within `tolerance` of the larger of 1 and the value.
fn far(found: &[f32], expected: &[f32], tolerance: f32) -> Option<String> {
    if found.len() != expected.len() {
        return Some(format!("{} values, not {}", found.len(), expected.len()));
    }
    let mut pairs = found.iter().zip(expected).enumerate();
    let far = pairs.find(|(_, (found, expected))| {
        let close = (*found - *expected).abs() <= tolerance * expected.abs().max(1.0);
        !close
    });
    far.map(|(i, (found, expected))| format!("[{i}] is {found}, not {expected}"))
}

/// What is wrong with a run, if anything.
fn follow(run: &Value) -> Option<String> {
    let class = run["class"].as_str().expect("a class");
    let mut scheduler = scheduler(class, &run["config"]).expect("what diffusers took");
    let steps = run["num_inference_steps"].as_u64().map(|n| n as usize);
    let request = TimestepRequest {
        num_inference_steps: steps,
        ..Default::default()
    };
    scheduler
        .set_timesteps(&request)
        .expect("what diffusers took");
    // exp, ln and pow of another C library, SciPy's beta quantiles: units in the last place.
    for (name, found, tolerance) in [
        (
            "timesteps",
            scheduler.timesteps(),
            timestep_tolerance(class),
        ),
        ("sigmas", scheduler.sigmas(), 4e-7),
        ("init_noise_sigma", &[scheduler.init_noise_sigma()], 4e-7),
    ] {
        let expected = match &run[name] {
            one @ Value::Number(_) => numbers(&json!([one])),
            list => numbers(list),
        };
        if let Some(wrong) = far(found, &expected, tolerance) {
            return Some(format!("{name}{wrong}"));
        }
    }
    let direction = numbers(&run["direction"]);
    let mut sample = numbers(&run["noise"]);
    for x in &mut sample {
        *x *= scheduler.init_noise_sigma();
    }
    let mut generator = Generator::new(run["noise_seed"].as_u64().expect("a seed"));
    let mut state = StepState::default();
    let expected = run["samples"].as_array().expect("samples");
    let count = scheduler.timesteps().len();
    for step in 0..count {
        let divisor = scheduler.model_input_divisor(step);
        let output: Vec<f32> = sample
            .iter()
            .zip(&direction)
            .map(|(x, d)| 0.7 * d + 0.25 * divisor.map_or(*x, |divisor| x / divisor))
            .collect();
        let noise = scheduler
            .draws_noise(step)
            .then(|| tensor(&generator.randn(sample.len()).expect("four numbers")));
        let done = scheduler.step(
            &mut state,
            &tensor(&output),
            &tensor(&sample),
            noise.as_ref(),
        );
        sample = done
            .expect("a step")
            .to_vec_blocking()
            .expect("four numbers");
        // Runs of many steps have the last sample alone.
        let Some(expected) = (step + expected.len()).checked_sub(count) else {
            continue;
        };
        let expected = numbers(&run["samples"][expected]);
        // Twice what they differ by a step: units in the last place. Stochastic ones hold noise that is as far from torch's.
        let tolerance = match noise {
            Some(_) => 1e-6,
            None => 4e-7,
        };
        if let Some(wrong) = far(&sample, &expected, tolerance * (step + 1) as f32) {
            return Some(format!("sample{wrong} after step {step}"));
        }
    }
    (state.step != count).then(|| format!("{} steps", state.step))
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, [values.len()], &Device::cpu()).expect("four numbers")
}

#[test]
fn runs_are_those_of_diffusers() {
    let runs = recorded("runs");
    assert!(runs.len() > 250, "only {} runs", runs.len());
    let wrong: Vec<String> = runs
        .iter()
        .filter_map(|run| {
            let wrong = follow(run)?;
            let (class, config) = (&run["class"], &run["config"]);
            let steps = &run["num_inference_steps"];
            Some(format!("{class} {config}, {steps} steps: {wrong}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn timesteps_are_those_of_diffusers() {
    let schedules = recorded("timesteps");
    assert!(schedules.len() > 200, "only {} schedules", schedules.len());
    let mut wrong = Vec::new();
    for schedule in &schedules {
        let (class, config) = (&schedule["class"], &schedule["config"]);
        let class = class.as_str().expect("a class");
        let mut scheduler = scheduler(class, config).expect("what diffusers took");
        let by_steps = schedule["timesteps"].as_object().expect("timesteps");
        for (steps, expected) in by_steps {
            let request = TimestepRequest {
                num_inference_steps: steps.parse().ok(),
                ..Default::default()
            };
            let tolerance = timestep_tolerance(class);
            let far = match scheduler.set_timesteps(&request) {
                Ok(()) => far(scheduler.timesteps(), &numbers(expected), tolerance),
                Err(error) => Some(format!(": {error}")),
            };
            if let Some(far) = far {
                wrong.push(format!("{class} {config}, {steps} steps: timesteps{far}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// As an issue of this project has them: the highest noise level, 45.3836212, is met at the last timestep of training.
#[test]
fn hunyuan_with_exponential_levels_begins_at_999() {
    let config = json!({"beta_start": 0.00085, "beta_end": 0.018, "beta_schedule": "scaled_linear", "steps_offset": 1,
        "prediction_type": "v_prediction", "timestep_spacing": "leading", "use_exponential_sigmas": true});
    let mut scheduler = scheduler("DPMSolverMultistepScheduler", &config).expect("a scheduler");
    for expected in [
        &[999.0, 811.0, 535.0, 175.0, 16.0, 0.0][..],
        &[
            999.0, 902.0, 786.0, 641.0, 456.0, 248.0, 91.0, 22.0, 4.0, 0.0,
        ],
    ] {
        let request = TimestepRequest {
            num_inference_steps: Some(expected.len()),
            ..Default::default()
        };
        scheduler.set_timesteps(&request).expect("steps");
        assert_eq!(scheduler.timesteps(), expected);
        assert_eq!(scheduler.sigmas()[0], 45.383_62_f32);
    }
}
