//! Whole calls of a pipeline in a folder, with the same arguments as for diffusers.

use super::{
    Case, Failure,
    cases::{device, dtype},
};
use serde_json::Value;
use std::hint::black_box;
use xdit_models::{LoadOptions, ModelSource, Pipeline, Request};

fn load(request: &Value) -> Result<(Pipeline, Request), Failure> {
    let options = LoadOptions {
        dtype: dtype(request)?,
        device: device(request)?,
        threads: Some(rayon::current_num_threads()),
        ..Default::default()
    };
    let folder = request["folder"].as_str().ok_or("folder is missing")?;
    let pipe = Pipeline::load(&ModelSource::folder(folder)?, &options, &mut ())?;
    let argument = |name: &str| &request["call"][name];
    let text = |name: &str| argument(name).as_str().ok_or(format!("{name} is missing"));
    let size = |name: &str| {
        let number = argument(name).as_u64().map(|n| n as usize);
        number.ok_or(format!("{name} is missing"))
    };
    let mut call = Request::new([text("prompt")?])
        .negative_prompt([text("negative_prompt")?])
        .height(size("height")?)
        .width(size("width")?)
        .num_inference_steps(size("num_inference_steps")?);
    // Each only where the family has it.
    if !argument("max_sequence_length").is_null() {
        call = call.max_sequence_length(size("max_sequence_length")?);
    }
    if let Some(binning) = argument("use_resolution_binning").as_bool() {
        call = call.use_resolution_binning(binning);
    }
    let scale = argument("guidance_scale").as_f64();
    Ok((
        pipe,
        call.guidance_scale(scale.ok_or("guidance_scale is missing")?),
    ))
}

/// Prompt to pixels: prompts are encoded in every run.
pub(super) fn make(request: &Value) -> Result<Case, Failure> {
    let (pipe, call) = load(request)?;
    Ok(Box::new(move || {
        black_box(pipe.generate(&call, &mut ())?);
        Ok(())
    }))
}

/// The values of the picture that a call draws, `[1, 3, h, w]` in [0, 1].
pub(super) fn picture(request: &Value) -> Result<Vec<f32>, Failure> {
    let (pipe, call) = load(request)?;
    let output = pipe.generate(&call, &mut ())?;
    Ok(output
        .float
        .ok_or("no picture")?
        .to_vec_blocking::<f32>()
        .unwrap())
}
