//! The benchmark of `ci/gpu.sh`, and the report of what its folder has found on a GPU.
//!
//! ```text
//! gpu-bench probe                      one JSON line about the GPU, or one line that says why there is none
//! gpu-bench bench [--smoke] [ROUND]    one JSON line a case of cases.json, which bench_torch.py reads too
//! gpu-bench report FOLDER              FOLDER/report.md and FOLDER/report.jsonl from the files there
//! ```
//!
//! Where there is no GPU, the program ends with code 2.

mod case;
mod flux;
mod kernels;
mod measure;
mod report;
mod results;

use std::{path::Path, process::ExitCode};

use serde_json::json;
use xdit_kernels::{CudaDeviceInfo, Device};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The code of a program that finds no GPU.
const NO_GPU: u8 = 2;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["probe"] => return probe(),
        ["bench", ref rest @ ..] => bench(rest),
        ["report", folder] => report::write(Path::new(folder)),
        _ => Err("gpu-bench probe | bench [--smoke] [ROUND] | report FOLDER".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gpu-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn probe() -> ExitCode {
    // A device that opens is one whose context, memory and streams the driver gives.
    let found = Device::cuda(0).and_then(|_| CudaDeviceInfo::list());
    let gpus = match found {
        Ok(gpus) => gpus,
        Err(error) => {
            eprintln!("no GPU: {error}");
            return ExitCode::from(NO_GPU);
        }
    };
    let Some(gpu) = gpus.first() else {
        eprintln!("no GPU: NVIDIA's driver lists none");
        return ExitCode::from(NO_GPU);
    };
    let [major, minor] = gpu.capability;
    let line = json!({
        "kind": "device",
        "name": gpu.name,
        "capability": format!("{major}.{minor}"),
        "memory": gpu.memory,
        "free_memory": gpu.free_memory,
        "cuda": gpu.cuda_version,
        "gpus": gpus.len(),
    });
    println!("{line}");
    ExitCode::SUCCESS
}

fn bench(words: &[&str]) -> Result<(), Failure> {
    let smoke = words.contains(&"--smoke");
    let rounds = words.iter().find(|word| !word.starts_with("--"));
    let round = rounds.map_or(Ok(1), |round| round.parse())?;
    measure::run(&Device::cuda(0)?, smoke, round)
}
