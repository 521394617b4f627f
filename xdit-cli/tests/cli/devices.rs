//! `devices` and `--device` where the driver does not work, whatever the machine, and `devices` on the virtual GPU.

use std::path::Path;

use vgpu::{Gpu, Schedule};

use crate::program::{Outcome, command, outcome, small};

/// Runs the program where the driver's library is a file that is none.
fn without_gpu(folder: &Path, words: &[&str]) -> Outcome {
    let library = folder.join("libcuda.so.1");
    std::fs::write(library, "no library").unwrap();
    let mut command = command();
    command.args(words).current_dir(folder);
    outcome(command.env("LD_LIBRARY_PATH", folder).output())
}

const REASON: &str = "NVIDIA's driver is not installed: libcuda.so.1 does not open (";

#[test]
fn the_processor_is_listed_and_one_line_says_why_there_is_no_gpu() {
    let folder = tempfile::tempdir().unwrap();
    let text = without_gpu(folder.path(), &["devices", "--cpu-tier", "portable"])
        .succeeded()
        .stdout;
    let cpu = text.lines().find(|line| line.starts_with("cpu "));
    let cpu = cpu.unwrap_or_else(|| panic!("{text}"));
    assert!(
        cpu.contains(" portable ") && cpu.ends_with("2 threads"),
        "{text}"
    );
    let last = text.lines().last().unwrap();
    assert!(last.starts_with(&format!("no GPU: {REASON}")), "{text}");
}

#[test]
fn as_json() {
    let folder = tempfile::tempdir().unwrap();
    let json = without_gpu(folder.path(), &["devices", "--json"])
        .succeeded()
        .json();
    assert_eq!(json["cpu"]["threads"], 2);
    let tiers = json["cpu"]["tiers"].as_array().unwrap();
    assert!(tiers.contains(&json["cpu"]["tier"]), "{json}");
    assert!(json["cpu"]["memory"].as_u64() >= json["cpu"]["available"].as_u64());
    assert_eq!(json["gpus"].as_array().map(Vec::len), Some(0));
    assert!(
        json["no_gpu"].as_str().unwrap().starts_with(REASON),
        "{json}"
    );
}

#[test]
fn gpus_are_listed() {
    let on = |devices: usize, words: &[&str]| {
        let gpu = Gpu {
            devices,
            capability: 90,
            ..Gpu::new(Schedule::Lazy)
        };
        let mut command = command();
        let command = gpu.attach(command.args(words)).unwrap();
        outcome(command.env("VGPU_MEM_MB", "512").output()).succeeded()
    };
    let text = on(2, &["devices"]).stdout;
    let gpus: Vec<&str> = text.lines().filter(|l| l.starts_with("cuda:")).collect();
    assert_eq!(gpus.len(), 2, "{text}");
    assert!(gpus[1].starts_with("cuda:1 "), "{text}");
    assert!(gpus[1].ends_with(" capability 9.0, CUDA 12.8"), "{text}");
    assert!(!text.contains("no GPU"), "{text}");
    let json = on(2, &["devices", "--json"]).json();
    assert_eq!(json["gpus"].as_array().map(Vec::len), Some(2));
    let gpu = &json["gpus"][1];
    assert_eq!(gpu["device"], "cuda:1");
    assert_eq!(gpu["name"], "Virtual GPU 1 (compute capability 9.0)");
    assert_eq!(
        (&gpu["memory"], &gpu["available"]),
        (&(512 << 20).into(), &(512 << 20).into())
    );
    assert!(
        gpu["unusable"].is_null() && json["no_gpu"].is_null(),
        "{json}"
    );
    let text = on(0, &["devices"]).stdout;
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("no GPU: "), "{text}");
}

#[test]
fn cuda_fails_with_the_reason_and_auto_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for device in ["cuda", "cuda:0"] {
        let run = without_gpu(folder.path(), &small("a circle", &["--device", device]));
        assert_eq!(run.code, Some(2), "{run:?}");
        let start = format!("error: --device cuda:0: {REASON}");
        assert!(run.stderr.starts_with(&start), "{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        let plan = without_gpu(folder.path(), &["plan", "--device", device]);
        assert_eq!(plan.code, Some(2), "{plan:?}");
    }
    let run = without_gpu(
        folder.path(),
        &small("a circle", &["--device", "auto", "-v"]),
    );
    let run = run.succeeded();
    let told = format!("--device auto is the processor: {REASON}");
    assert!(run.stderr.contains(&told), "{run:?}");
}
