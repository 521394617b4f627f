//! Ranks that are processes, each on a virtual GPU of its own: NCCL's double carries their messages from process to process.

use std::path::Path;

use vgpu::{Gpu, Schedule};

use crate::gpu::{Case, image};
use crate::job::{Job, outcomes};
use crate::program::{Outcome, command, names, outcome};
use crate::sd3::golden;

/// Draws with one process on the processor, and with those of `launch` on GPUs. The largest difference allowed is that of the
/// processor's images to diffusers', as in `gpu`.
#[track_caller]
fn equal(model: &'static str, plan: &'static str, ranks: usize, gpu: Gpu) {
    let folder = tempfile::tempdir().unwrap();
    let case = Case { model, plan };
    let one = case.words("f32", "host.safetensors");
    outcome(command().args(one).current_dir(folder.path()).output()).succeeded();
    let number = ranks.to_string();
    let mut launch = command();
    launch
        .args(["launch", "--nproc", &number, "--"])
        .args(case.words("f32", "gpus.safetensors"))
        .args(["--device", "cuda"]);
    let gpu = Gpu {
        devices: ranks,
        ..gpu
    };
    on_gpus(&mut launch, gpu, folder.path()).succeeded();
    // What the double of NCCL has carried.
    let meeting = folder
        .path()
        .join("nccl")
        .join(&names(&folder.path().join("nccl"))[0]);
    let sent = names(&meeting)
        .into_iter()
        .map(|process| meeting.join(process));
    let sent: Vec<u64> = sent.map(|file| file.metadata().unwrap().len()).collect();
    assert_eq!(sent.len(), ranks);
    assert!(sent.iter().all(|bytes| *bytes > 2000), "{sent:?}");
    let [host, gpus] =
        ["host.safetensors", "gpus.safetensors"].map(|file| image(&folder.path().join(file)));
    assert!(!host.is_empty() && host.len() == gpus.len());
    for (a, b) in host.iter().zip(&gpus) {
        assert!((a - b).abs() <= 5e-5, "{model} {plan}: {a} and {b}");
    }
}

fn on_gpus(run: &mut std::process::Command, gpu: Gpu, folder: &Path) -> Outcome {
    let run = gpu.attach(run).unwrap();
    outcome(
        run.env("VGPU_NCCL_FOLDER", folder.join("nccl"))
            .current_dir(folder)
            .output(),
    )
}

#[test]
fn ulysses() {
    equal(
        "flux-dev",
        "--ulysses-degree 2",
        2,
        Gpu::new(Schedule::Lazy),
    );
}

#[test]
fn ring() {
    equal(
        "flux-dev",
        "--ring-degree 2",
        2,
        Gpu::new(Schedule::Random(1)),
    );
}

#[test]
fn stages_of_pipefusion() {
    let plan = "--pipefusion-parallel-degree 2 --warmup-steps 1";
    equal("flux-dev", plan, 2, Gpu::new(Schedule::Eager));
}

#[test]
fn guidance() {
    let gpu = Gpu::new(Schedule::Random(2));
    equal("sd3-medium", "--use-cfg-parallel", 2, gpu);
}

/// What a small Flux draws on ranks that each see the GPUs that `first` says: so many, from this one of the machine on.
fn each_sees(folder: &Path, first: [&str; 2], variables: &[(&str, &str)]) -> Vec<Outcome> {
    let words = "generate --prompt circle --height 32 --width 32 --num-inference-steps 1 --max-sequence-length 5 --ulysses-degree 2 \
                 --device cuda --rank-timeout 900 --output a.png --model";
    let job = Job::new(2);
    let start = |rank: usize| {
        let words = words.split_whitespace().map(str::to_owned);
        let words = words.chain([golden("flux-schnell").display().to_string()]);
        let mut command = job.command(rank, folder, words);
        let gpu = Gpu {
            devices: 1,
            ..Gpu::new(Schedule::Lazy)
        };
        gpu.attach(&mut command)
            .unwrap()
            .env("VGPU_FIRST_DEVICE", first[rank])
            .env("VGPU_NCCL_FOLDER", folder.join("nccl"))
            .envs(variables.iter().copied());
        command.spawn().unwrap()
    };
    outcomes((0..2).map(start).collect())
}

/// As with `srun --gpus-per-task=1`.
#[test]
fn a_rank_that_sees_one_gpu_has_that() {
    let folder = tempfile::tempdir().unwrap();
    let all = each_sees(folder.path(), ["0", "1"], &[]);
    assert!(all.iter().all(|one| one.code == Some(0)), "{all:?}");
    assert!(folder.path().join("a.png").exists());
}

#[test]
fn two_ranks_on_one_gpu_are_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let all = each_sees(folder.path(), ["3", "3"], &[]);
    let line = &all[0].stderr;
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.starts_with("error: ranks 0 and 1 ("), "{line}");
    let told = ") have one GPU, GPU-76677075-2d64-6576-6963-652d00000003: ";
    assert!(line.contains(told), "{line}");
    assert_eq!((all[0].code, all[1].code), (Some(2), Some(2)));
    assert_eq!(all[1].stderr, "");
}

#[test]
fn a_path_of_nccl_that_cannot_be_used_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no library").unwrap();
    let library = vgpu::libraries().unwrap().join("libnccl.so.2");
    for (path, told) in [
        (file.as_path(), "file does not open ("),
        (folder.path(), " has no libnccl.so.2, nor have its folders "),
        (Path::new("/no/such"), "/no/such does not open ("),
    ] {
        let path = path.display().to_string();
        let all = each_sees(folder.path(), ["0", "1"], &[("XDIT_NCCL_LIB", &path)]);
        let line = &all[0].stderr;
        assert_eq!(line.lines().count(), 1, "{line}");
        let start = format!("error: XDIT_NCCL_LIB={path}: ");
        assert!(line.starts_with(&start) && line.contains(told), "{line}");
        assert_eq!((all[0].code, all[1].code), (Some(2), Some(2)));
        assert_eq!(all[1].stderr, "");
    }
    // A folder as pip makes it, which the system does not look in.
    let pip = folder.path().join("site-packages/nvidia/nccl/lib");
    std::fs::create_dir_all(&pip).unwrap();
    std::os::unix::fs::symlink(library.canonicalize().unwrap(), pip.join("libnccl.so.2")).unwrap();
    let packages = folder.path().join("site-packages").display().to_string();
    let mut doctor = command();
    doctor
        .args(["doctor", "--json"])
        .env("XDIT_NCCL_LIB", packages);
    let told = outcome(doctor.output()).succeeded().json();
    let nccl = &told["checks"]["NCCL"];
    assert_eq!(nccl["data"]["version"], "2.28.9", "{nccl}");
    let file = nccl["data"]["library"].as_str().unwrap();
    assert!(file.ends_with("libvgpu_nccl.so"), "{file}");
}
