//! diffusers' schedulers of diffusion, step by step: the `runs` of `schedulers.json.gz`.

use serde_json::{Value, json};
use xdit_models::ConfigFile;
use xdit_models::noise::Generator;
use xdit_models::schedulers::{Scheduler, SchedulerConfig, StepState, TimestepRequest};

use xdit_tests::goldens;

fn runs() -> Vec<Value> {
    let bytes = goldens::bytes("schedulers.json.gz");
    let mut recorded: Value = serde_json::from_slice(&bytes).expect("a golden file");
    match recorded["runs"].take() {
        Value::Array(runs) => runs,
        other => panic!("not runs: {other}"),
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
    // exp, ln and pow of another C library, SciPy's beta quantiles: units in the last place. Timesteps between two of
    // training are found from the logarithms of noise levels, whose f32 form they are that sensitive to.
    for (name, found, tolerance) in [
        ("timesteps", scheduler.timesteps(), 2e-6),
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
            .then(|| generator.randn::<f32>(sample.len()).expect("four numbers"));
        let done = scheduler.step(&mut state, &output, &mut sample, noise.as_deref());
        done.expect("a step");
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

#[test]
fn runs_are_those_of_diffusers() {
    let runs = runs();
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
