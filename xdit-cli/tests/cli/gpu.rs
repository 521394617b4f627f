//! Whole pipelines on the virtual GPU (`tests/vgpu`): the binary that ships, its own PTX, every strategy. An image must be
//! that of the processor, which `tests/models` holds to diffusers', and the virtual GPU must report nothing: no race, no
//! leak, no read of memory that nothing wrote.

use std::path::Path;

use safetensors::SafeTensors;
use vgpu::{Gpu, Schedule};

use crate::picture_record::record;
use crate::program::{command, outcome};
use crate::sd3::golden;

/// One picture: its model and its plan.
pub(crate) struct Case {
    pub(crate) model: &'static str,
    pub(crate) plan: &'static str,
}

impl Case {
    pub(crate) fn words(&self, dtype: &str, file: &str) -> Vec<String> {
        // The text is short, since the interpreter runs every instruction of every token. A rank that waits for the virtual GPU
        // tells no progress, for minutes on a busy machine.
        let rest = if self.model.starts_with("hunyuan") {
            "--no-use-resolution-binning"
        } else {
            "--max-sequence-length 5"
        };
        let words = format!(
            "generate --prompt circle --height 32 --width 48 --num-inference-steps 2 --output-type float -q --rank-timeout 900 {rest} {} \
             --dtype {dtype} --output {file} --model",
            self.plan
        );
        let model = golden(self.model).display().to_string();
        words
            .split_whitespace()
            .map(str::to_owned)
            .chain([model])
            .collect()
    }

    /// The image of the processor in f32, and that of the virtual GPUs of `--device` in `dtype`. Only messages between two GPUs are
    /// copied from one to the other, and only by themselves where they reach each other's memory.
    fn draw(&self, folder: &Path, dtype: &str, gpu: Gpu, device: &str) -> [Vec<f32>; 2] {
        let host = self.words("f32", "host.safetensors");
        outcome(command().args(host).current_dir(folder).output()).succeeded();
        let mut on_gpu = command();
        on_gpu
            .args(self.words(dtype, "gpu.safetensors"))
            .args(["--device", device])
            .env("VGPU_STATS", "1")
            .current_dir(folder);
        let run = outcome(gpu.attach(&mut on_gpu).unwrap().output()).succeeded();
        assert!(run.stderr.contains(" cuLaunchKernel\n"), "{run:?}");
        // On tensor units, attention is by the kernels of capability 9.0 there: they alone take tensor maps.
        let boxes = run.stderr.contains(" cuTensorMapEncodeTiled\n");
        assert_eq!(boxes, gpu.capability == 90 && dtype != "f32", "{run:?}");
        let copies = run.stderr.contains(" cuMemcpyPeerAsync\n");
        assert_eq!(copies, device.contains(',') && gpu.peers, "{run:?}");
        ["host.safetensors", "gpu.safetensors"].map(|file| image(&folder.join(file)))
    }
}

/// The values of an image.
pub(crate) fn image(file: &Path) -> Vec<f32> {
    let bytes = std::fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = tensors.tensor("image").unwrap().data().chunks(4);
    values
        .map(|x| f32::from_le_bytes(x.try_into().unwrap()))
        .collect()
}

/// Draws each case in f32. The largest difference allowed is that of the processor's images to diffusers'.
#[track_caller]
fn equal_in_f32(cases: &[(&'static str, &'static str)], gpu: Gpu) {
    equal_on("cuda", cases, gpu);
}

#[track_caller]
fn equal_on(device: &str, cases: &[(&'static str, &'static str)], gpu: Gpu) {
    for &(model, plan) in cases {
        let folder = tempfile::tempdir().unwrap();
        let [host, gpu] = Case { model, plan }.draw(folder.path(), "f32", gpu, device);
        assert!(!host.is_empty() && host.len() == gpu.len());
        for (a, b) in host.iter().zip(&gpu) {
            assert!((a - b).abs() <= 5e-5, "{model} {plan}: {a} and {b}");
        }
    }
}

/// Draws each case in bf16: at least 40 dB to the processor's image in f32, a mean error of 1 % of the range.
#[track_caller]
fn near_in_bf16(cases: &[(&'static str, &'static str)], gpu: Gpu) {
    for &(model, plan) in cases {
        let folder = tempfile::tempdir().unwrap();
        let [host, gpu] = Case { model, plan }.draw(folder.path(), "bf16", gpu, "cuda");
        assert!(!host.is_empty() && host.len() == gpu.len());
        let squares = host.iter().zip(&gpu).map(|(a, b)| f64::from(a - b).powi(2));
        let mean = squares.sum::<f64>() / host.len() as f64;
        assert!(mean <= 1e-4, "{model} {plan}: a mean square of {mean:e}");
    }
}

fn hopper(schedule: Schedule) -> Gpu {
    Gpu {
        capability: 90,
        ..Gpu::new(schedule)
    }
}

/// Plain kernels run natively. For pipelines that run long; every family has others that interpret all kernels.
fn quick(schedule: Schedule) -> Gpu {
    Gpu {
        native: true,
        ..Gpu::new(schedule)
    }
}

#[test]
fn every_family_in_f32() {
    equal_in_f32(&[("flux-dev", "")], Gpu::new(Schedule::Lazy));
    equal_in_f32(&[("sd35-medium", "")], hopper(Schedule::Random(1)));
    equal_in_f32(&[("hunyuan-v1.2", "")], Gpu::new(Schedule::Eager));
}

#[test]
fn every_family_in_bf16() {
    let ulysses = "--ulysses-degree 2";
    near_in_bf16(&[("flux-dev", ulysses)], hopper(Schedule::Random(2)));
    near_in_bf16(&[("sd35-medium", "")], Gpu::new(Schedule::Eager));
    near_in_bf16(&[("hunyuan-v1.2", ulysses)], hopper(Schedule::Lazy));
}

/// The ranks also share the decoding of the image, as they do by default.
#[test]
fn sequence_parallel() {
    let cases = [
        ("flux-dev", "--ulysses-degree 2"),
        ("flux-dev", "--ring-degree 2"),
        ("flux-dev", "--ulysses-degree 2 --ring-degree 2"),
    ];
    equal_in_f32(&cases[..1], Gpu::new(Schedule::Eager));
    equal_in_f32(&cases[1..2], Gpu::new(Schedule::Lazy));
    equal_in_f32(&cases[2..], Gpu::new(Schedule::Random(3)));
}

#[test]
fn pipelines_and_guidance() {
    let stages = "--pipefusion-parallel-degree 2 --warmup-steps 1";
    equal_in_f32(&[("flux-dev", stages)], Gpu::new(Schedule::Random(4)));
    equal_in_f32(&[("hunyuan-v1.2", stages)], quick(Schedule::Lazy));
    equal_in_f32(
        &[("sd3-medium", "--use-cfg-parallel")],
        hopper(Schedule::Eager),
    );
}

/// Two ranks on two GPUs.
const SPREAD: [(&str, &str); 4] = [
    ("flux-dev", "--ulysses-degree 2"),
    ("flux-dev", "--ring-degree 2"),
    (
        "flux-dev",
        "--pipefusion-parallel-degree 2 --warmup-steps 1",
    ),
    ("sd3-medium", "--use-cfg-parallel"),
];

#[test]
fn two_gpus_that_reach_each_other() {
    equal_on("cuda:0,1", &SPREAD[..2], Gpu::new(Schedule::Random(6)));
    equal_on("cuda:1,0", &SPREAD[2..3], hopper(Schedule::Lazy));
    equal_on("cuda:0,1", &SPREAD[3..], Gpu::new(Schedule::Eager));
}

#[test]
fn two_gpus_whose_messages_go_through_the_host() {
    let apart = |schedule| Gpu {
        peers: false,
        ..Gpu::new(schedule)
    };
    equal_on("cuda:0,1", &SPREAD[..1], apart(Schedule::Lazy));
    equal_on("cuda:0,1", &SPREAD[1..2], apart(Schedule::Eager));
    equal_on("cuda:0,1", &SPREAD[2..], apart(Schedule::Random(7)));
}

#[test]
fn all_axes_together() {
    let all = "--use-cfg-parallel --ulysses-degree 2 --ring-degree 2 --pipefusion-parallel-degree 2 --warmup-steps 1 \
               --data-parallel-degree 2 --num-images-per-prompt 2";
    equal_in_f32(&[("sd3-medium", all)], quick(Schedule::Random(5)));
}

#[test]
fn several_gpus_are_named_and_each_has_a_rank() {
    let folder = tempfile::tempdir().unwrap();
    let model = golden("flux-schnell").display().to_string();
    let on_gpus = |words: &str| {
        let words = words.replace("MODEL", &model);
        let mut run = command();
        run.args(words.split_whitespace())
            .current_dir(folder.path());
        outcome(Gpu::new(Schedule::Lazy).attach(&mut run).unwrap().output())
    };
    let two = "--device cuda:0,1 --ulysses-degree 2 --max-sequence-length 5 --height 32 --width 32 --num-inference-steps 1";
    let plan = on_gpus(&format!("plan --model MODEL --json {two}")).succeeded();
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    let devices = [0, 1].map(|rank| plan["ranks"][rank]["device"].clone());
    assert_eq!(devices, ["cuda:0", "cuda:1"]);
    let draw = format!("generate --prompt circle --dtype bf16 --output a.png --model MODEL {two}");
    on_gpus(&draw).succeeded();
    assert_eq!(record(&folder.path().join("a.png"))["device"], "cuda:0,1");
    let again = on_gpus("replay a.png").succeeded();
    assert!(again.stdout.contains("identical"), "{again:?}");
    let refused = on_gpus("plan --model MODEL --device cuda:0,1");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let told = "--device cuda:0, cuda:1: must be at most 1 device: each needs a rank";
    assert!(refused.stderr.contains(told), "{refused:?}");
}

#[test]
fn a_replay_runs_where_the_image_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let on_gpu = |words: &[&str]| {
        let mut run = command();
        run.args(words).current_dir(folder.path());
        let run = Gpu::new(Schedule::Lazy).attach(&mut run).unwrap().output();
        outcome(run).succeeded()
    };
    let model = golden("flux-schnell").display().to_string();
    let draw = "generate --prompt circle --height 32 --width 32 --num-inference-steps 1 --max-sequence-length 5 --dtype bf16 \
                --device cuda --output a.png --model";
    let draw: Vec<&str> = draw.split_whitespace().chain([&*model]).collect();
    on_gpu(&draw);
    assert_eq!(record(&folder.path().join("a.png"))["device"], "cuda:0");
    let again = on_gpu(&["replay", "a.png"]);
    assert!(again.stdout.contains("identical"), "{again:?}");
    assert!(!again.stderr.contains("warning"), "{again:?}");
    // Without a GPU the processor repeats it, and the program says so.
    let words = ["replay", "a.png"];
    let here = outcome(command().args(words).current_dir(folder.path()).output());
    assert!(matches!(here.code, Some(0 | 1)), "{here:?}");
    let told = "warning: the image was made on a GPU, and the processor repeats it";
    assert!(here.stderr.contains(told), "{here:?}");
    assert!(here.stderr.contains("--device cuda:0: "), "{here:?}");
}
