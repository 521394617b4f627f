//! `--device auto` and `--allow-tf32` on the virtual GPU.

use std::path::Path;
use std::process::Command;

use vgpu::{Gpu, Schedule};

use crate::picture_record::record;
use crate::program::{Outcome, command, outcome};
use crate::sd3::golden;

/// A small picture of a small Flux, on the processor or on a GPU.
fn draw(folder: &Path, more: &str) -> Command {
    let words = format!(
        "generate --prompt circle --height 32 --width 32 --num-inference-steps 1 --max-sequence-length 5 --output a.png {more} --model"
    );
    let mut command = command();
    command
        .args(words.split_whitespace())
        .arg(golden("flux-schnell"))
        .current_dir(folder);
    command
}

/// The same on virtual GPUs, with further variables of the environment.
fn on_gpu(folder: &Path, gpu: Gpu, more: &str, variables: &[(&str, &str)]) -> Outcome {
    let mut command = draw(folder, more);
    let command = gpu.attach(&mut command).unwrap();
    outcome(command.envs(variables.iter().copied()).output())
}

#[test]
fn auto_is_the_first_gpu_that_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let run = on_gpu(folder.path(), Gpu::new(Schedule::Lazy), "-v", &[]).succeeded();
    let told = "--device auto is cuda:0 (Virtual GPU 0 (compute capability 8.0))";
    assert!(run.stderr.contains(told), "{run:?}");
    assert_eq!(record(&folder.path().join("a.png"))["device"], "cuda:0");
}

#[test]
fn auto_goes_on_without_a_gpu_and_says_why_with_v_only() {
    let folder = tempfile::tempdir().unwrap();
    let old = Gpu {
        capability: 75,
        ..Gpu::new(Schedule::Lazy)
    };
    let none = Gpu {
        devices: 0,
        ..Gpu::new(Schedule::Lazy)
    };
    // The driver alone, without cuBLASLt: a machine whose owner plays games.
    let driver = folder.path().join("driver");
    std::fs::create_dir(&driver).unwrap();
    let double = vgpu::libraries().unwrap().join("libcuda.so.1");
    std::os::unix::fs::symlink(double, driver.join("libcuda.so.1")).unwrap();
    for name in ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"] {
        std::fs::write(driver.join(name), "no library").unwrap();
    }
    let driver = driver.display().to_string();
    for (gpu, variables, why) in [
        (old, vec![], "the kernels need compute capability 8.0"),
        (none, vec![], "finds no GPU"),
        (
            Gpu::new(Schedule::Lazy),
            vec![("VGPU_DRIVER", "11080")],
            "NVIDIA's driver supports CUDA 11.8; install driver 525 (CUDA 12.0) or newer",
        ),
        (
            Gpu::new(Schedule::Lazy),
            vec![("LD_LIBRARY_PATH", &*driver)],
            "cuBLASLt is not installed",
        ),
    ] {
        let run = on_gpu(folder.path(), gpu, "-v", &variables).succeeded();
        let lines = run.stderr.lines();
        let told: Vec<&str> = lines
            .filter(|line| line.contains("--device auto"))
            .collect();
        assert_eq!(told.len(), 1, "{run:?}");
        assert!(told[0].contains("is the processor: "), "{run:?}");
        assert!(told[0].contains(why), "{run:?}");
        assert_eq!(record(&folder.path().join("a.png"))["device"], "cpu");
        let run = on_gpu(folder.path(), gpu, "-q", &variables).succeeded();
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn what_fails_on_the_chosen_gpu_is_an_error_that_names_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let small = [("VGPU_MEM_MB", "1")];
    let run = on_gpu(folder.path(), Gpu::new(Schedule::Lazy), "", &small);
    assert_eq!(run.code, Some(5), "{run:?}");
    let end = "(--device auto chose cuda:0; --device cpu computes on the processor)\n";
    assert!(run.stderr.ends_with(end), "{run:?}");
    // Who chose it, knows.
    let run = on_gpu(
        folder.path(),
        Gpu::new(Schedule::Lazy),
        "--device cuda",
        &small,
    );
    assert_eq!(run.code, Some(5), "{run:?}");
    assert!(!run.stderr.contains("--device"), "{run:?}");
    let mut on_processor = draw(folder.path(), "--device cpu");
    let on_processor = Gpu::new(Schedule::Lazy).attach(&mut on_processor).unwrap();
    outcome(on_processor.envs(small).output()).succeeded();
}

#[test]
fn tf32_is_asked_for_recorded_and_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let gpu = Gpu::new(Schedule::Lazy);
    let picture = folder.path().join("a.png");
    on_gpu(folder.path(), gpu, "--device cuda", &[]).succeeded();
    let exact = std::fs::read(&picture).unwrap();
    assert!(record(&picture)["allow_tf32"].is_null());
    let run = on_gpu(folder.path(), gpu, "--device cuda --allow-tf32", &[]).succeeded();
    assert!(!run.stderr.contains("warning"), "{run:?}");
    assert_eq!(record(&picture)["allow_tf32"], true);
    assert!(exact != std::fs::read(&picture).unwrap());
    let mut again = command();
    again.args(["replay", "a.png"]).current_dir(folder.path());
    let again = outcome(gpu.attach(&mut again).unwrap().output()).succeeded();
    assert!(again.stdout.contains("identical"), "{again:?}");
}

#[test]
fn tf32_without_effect_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let plan = |words: &str| {
        let mut command = command();
        let words = format!("plan --allow-tf32 {words}");
        command.args(words.split_whitespace());
        let command = Gpu::new(Schedule::Lazy).attach(&mut command).unwrap();
        outcome(command.current_dir(folder.path()).output()).succeeded()
    };
    for (words, told) in [
        ("--device cpu", Some("the processor has no TF32")),
        (
            "--device cuda --dtype bf16",
            Some("products of bf16 do not use TF32"),
        ),
        ("--device cuda", None),
    ] {
        let run = plan(words);
        let told = told.map(|why| format!("--allow-tf32 has no effect: {why}"));
        let found = run.stderr.lines().find(|line| line.contains("allow-tf32"));
        match told {
            Some(told) => assert!(found.unwrap_or_default().contains(&told), "{run:?}"),
            None => assert_eq!(found, None, "{run:?}"),
        }
    }
    let run = plan("--device cuda --cpu-tier portable");
    let told = "--cpu-tier has no effect: cuda:0 computes";
    assert!(run.stderr.contains(told), "{run:?}");
}
