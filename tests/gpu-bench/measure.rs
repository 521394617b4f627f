//! Samples, taken by the GPU itself, of all cases in turns.

use crate::{Failure, case::BenchCase, flux, kernels};
use serde_json::{Value, json};
use xdit_kernels::{DType, Device, Tensor, TensorMut, elementwise::scale_into};

/// Calls before the first sample: they load kernels and plan products.
const WARM_UP: usize = 3;
const REPEATS: usize = 20;
/// Numbers that are written before each sample, more than any cache holds. Operands then come from memory, and the GPU is
/// still busy when the host has given it the operation.
const FLUSH: usize = 64 << 20;

/// A line about a case.
pub(crate) fn row(case: &BenchCase, round: u64, more: &Value) -> Value {
    let mut row =
        json!({"kind": "bench", "side": "xdit", "case": case.name, "op": case.op, "round": round});
    for (name, value) in more.as_object().into_iter().flatten() {
        row[name] = value.clone();
    }
    row
}

/// The median of sorted samples, of which there is at least one: the mean of the two in the middle, as PyTorch's side takes it.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

/// What the samples of a case, in seconds, say.
pub(crate) fn summary(samples: &[f64]) -> Value {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    json!({
        "median_s": median(&sorted),
        "least_s": sorted[0],
        "greatest_s": sorted[sorted.len() - 1],
        "repeats": sorted.len(),
    })
}

/// Measures all cases and prints a line about each.
///
/// # Errors
/// If the GPU fails. What fails in a case alone is the line about it.
pub(crate) fn run(device: &Device, smoke: bool, round: u64) -> Result<(), Failure> {
    let repeats = if smoke { 2 } else { REPEATS };
    let cases = BenchCase::all(smoke)?;
    let mut operations = Vec::new();
    for case in &cases {
        match kernels::make(case, device) {
            Ok(Some(operation)) => operations.push((case, operation, Ok(Vec::new()))),
            Ok(None) => {}
            Err(error) => println!("{}", failed(case, round, &error)),
        }
    }
    let numbers = [if smoke { 64 } else { FLUSH }];
    let mut flush = TensorMut::zeros(numbers, DType::F32, device)?;
    let source = Tensor::zeros(numbers, DType::F32, device)?;
    for turn in 0..WARM_UP + repeats {
        for (_, operation, samples) in &mut operations {
            let Ok(taken) = samples else { continue };
            scale_into(&source, 1.0, flush.view_mut())?;
            match sample(device, &mut operation.run) {
                Ok(time) if turn >= WARM_UP => taken.push(time),
                Ok(_) => {}
                Err(error) => *samples = Err(error),
            }
        }
    }
    for (case, operation, samples) in operations {
        match samples {
            Ok(samples) => {
                let mut line = row(case, round, &summary(&samples));
                line["bytes"] = json!(operation.bytes);
                line["flops"] = json!(operation.flops);
                println!("{line}");
            }
            Err(error) => println!("{}", failed(case, round, &error)),
        }
    }
    drop((flush, source));
    device.trim_cuda_memory()?;
    for case in cases.iter().filter(|case| case.op == "flux_step") {
        match flux::run(case, device, round, smoke) {
            Ok(line) => println!("{line}"),
            Err(error) => println!("{}", failed(case, round, &error)),
        }
    }
    Ok(())
}

fn failed(case: &BenchCase, round: u64, error: &Failure) -> Value {
    row(case, round, &json!({"error": error.to_string()}))
}

/// Seconds of one call on the GPU.
pub(crate) fn sample(
    device: &Device,
    run: &mut dyn FnMut() -> Result<(), Failure>,
) -> Result<f64, Failure> {
    let start = device.timestamp()?;
    run()?;
    let end = device.timestamp()?;
    Ok(end.since_blocking(&start)?.as_secs_f64())
}
