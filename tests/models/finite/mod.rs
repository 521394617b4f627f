//! Numbers beyond the range of a dtype: the guards of transformers and diffusers for f16, and results that are not finite.

mod guards;
mod not_finite;

use xdit_kernels::DType;
use xdit_models::{LoadOptions, Output, Parallel, Pipeline, Request, Result};
use xdit_tests::changed::{Files, pipeline};
use xdit_tests::goldens::{Golden, Recorder, request};

/// The recorded call of this name.
fn call(model: &str, case: &str) -> Request {
    request(&Golden::read(&format!("cases/{model}/{case}.safetensors.gz")).meta)
}

fn load(files: &Files, dtype: DType, parallel: Parallel) -> Pipeline {
    let options = LoadOptions {
        threads: Some(2),
        dtype,
        ..LoadOptions::default()
    };
    let source = pipeline(files.clone());
    Pipeline::load_over(&source, &options, parallel, &mut ()).expect("a loaded pipeline")
}

/// What comes of a call, and what it shows.
fn run(files: &Files, dtype: DType, request: &Request) -> (Result<Output>, Recorder) {
    let mut seen = Recorder::default();
    let pipe = load(files, dtype, Parallel::default());
    let result = pipe.generate(request, &mut seen);
    (result, seen)
}
