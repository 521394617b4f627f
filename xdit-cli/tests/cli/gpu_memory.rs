//! The memory of GPUs: what `plan` predicts is what the pool's peak was, `--low-memory` lowers it, and what does not fit ends
//! with the numbers. On virtual GPUs that allocate and compute nothing, so that sizes are those of real pictures.

use serde_json::Value;
use vgpu::{Gpu, Schedule};

use crate::program::{Outcome, command, outcome};
use crate::sd3::golden;

/// Runs the program on a virtual GPU with so much memory, which skips kernels.
fn on_gpu(words: &str, model: &str, variables: &[(&str, &str)]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command();
    command
        .args(words.split_whitespace())
        .arg("--model")
        .arg(golden(model))
        .current_dir(folder.path());
    let command = Gpu::new(Schedule::Eager).attach(&mut command).unwrap();
    let skipping = [("VGPU_SKIP_KERNELS", "1"), ("VGPU_MEM_MB", "16384")];
    let variables = skipping.iter().chain(variables).copied();
    outcome(command.envs(variables).output())
}

/// What cuBLASLt may take for a product, and what its double takes.
const SCRATCH: [u64; 2] = [32 << 20, 64 << 10];

/// Of each GPU, the bytes that `plan` predicts with the double's scratch, of denoising where latents are the result, and the peak
/// of `generate`.
fn of_each_gpu(model: &str, flags: &str, latents: bool, pace: &str) -> Vec<[f64; 2]> {
    let plan = on_gpu(&format!("plan --prompt circle --json {flags}"), model, &[]);
    let plan = plan.succeeded().json();
    let result = match latents {
        false => "--output a.png",
        true => "--output a.safetensors --output-type latent",
    };
    // The host reads zeros, which do not look like numbers that are finite.
    let words = format!("generate --prompt circle --json --allow-non-finite {result} {flags}");
    let pace = [("VGPU_PACE", pace)];
    let drawn: Value = on_gpu(&words, model, &pace).succeeded().json();
    let of_gpu = |(index, told): (usize, &Value)| {
        assert_eq!(told["device"], format!("cuda:{index}"));
        assert_eq!(told["scratch"], SCRATCH[0]);
        let bytes = |pointer: &str| told.pointer(pointer).unwrap().as_u64().unwrap();
        let predicted = match latents {
            false => bytes("/total") - SCRATCH[0],
            true => [
                "/weights_at_once",
                "/embeddings",
                "/latents",
                "/keys_and_values/other_patches",
                "/keys_and_values/text",
                "/activations/denoise",
            ]
            .map(bytes)
            .iter()
            .sum(),
        };
        let peak = &drawn["peak_device_memory_bytes"][format!("cuda:{index}")];
        [
            (predicted + SCRATCH[1]) as f64,
            peak.as_u64().unwrap() as f64,
        ]
    };
    let gpus = plan["memory"]["gpus"].as_array().unwrap();
    // Each GPU has the blocks of its stages.
    let held = gpus
        .iter()
        .map(|gpu| gpu["weights"]["transformer"].as_u64());
    let held: Vec<u64> = held.collect::<Option<_>>().unwrap();
    let parameters = plan["totals"]["parameter_bytes"].as_u64().unwrap();
    match plan["stages"].as_array().unwrap().len() {
        1 => assert!(held.iter().all(|bytes| *bytes == parameters)),
        _ => assert_eq!(held.iter().sum::<u64>(), parameters),
    }
    let peaks = drawn["peak_device_memory_bytes"].as_object().unwrap();
    assert_eq!(peaks.len(), gpus.len());
    gpus.iter().enumerate().map(of_gpu).collect()
}

/// Sizes at which activations weigh more than everything else. The positions of the small SD3s are tables of so many pixels.
const FAMILIES: [(&str, &str); 4] = [
    (
        "flux-dev",
        "--height 1024 --width 1024 --max-sequence-length 64 --num-images-per-prompt 6",
    ),
    (
        "sd3-medium",
        "--height 144 --width 144 --max-sequence-length 64 --num-images-per-prompt 16",
    ),
    (
        "sd35-medium",
        "--height 192 --width 192 --max-sequence-length 64 --num-images-per-prompt 16",
    ),
    (
        "hunyuan-v1.2",
        "--height 1024 --width 1024 --no-use-resolution-binning --num-images-per-prompt 6",
    ),
];

/// Denoising takes the most where latents are the result, and decoding where images are. Ranks in step are at their peaks in the
/// same moment, as the prediction says. Where one rank is behind, the ranks take less, and never more.
#[track_caller]
fn within_a_tenth(families: &[(&str, &str)], plan: &str, latents: bool) {
    let several = plan.contains("degree");
    for (model, flags) in families {
        for dtype in ["f32", "bf16"] {
            let flags = format!("--num-inference-steps 2 --dtype {dtype} {flags} {plan}");
            let check = |pace, most_above: f64| {
                for [predicted, measured] in of_each_gpu(model, &flags, latents, pace) {
                    let off = predicted / measured - 1.0;
                    assert!(
                        -0.1 <= off && off <= most_above,
                        "{model} {flags}, {pace}: {predicted} predicted, {measured} measured"
                    );
                }
            };
            check(if several { "level" } else { "free" }, 0.1);
            // One rank joins the images, and the others are done then.
            if several && latents {
                check("slow:1", f64::INFINITY);
                check("slow:2", f64::INFINITY);
            }
        }
    }
}

#[test]
fn denoising_takes_what_plan_predicts() {
    within_a_tenth(&FAMILIES, "--device cuda", true);
}

#[test]
fn images_take_what_plan_predicts() {
    within_a_tenth(&FAMILIES, "--device cuda", false);
}

#[test]
fn denoising_takes_what_plan_predicts_with_ulysses() {
    within_a_tenth(&FAMILIES, "--device cuda --ulysses-degree 2", true);
}

#[test]
fn images_take_what_plan_predicts_with_ulysses() {
    within_a_tenth(&FAMILIES, "--device cuda --ulysses-degree 2", false);
}

#[test]
fn denoising_takes_what_plan_predicts_on_each_of_two_gpus() {
    within_a_tenth(&FAMILIES, "--device cuda:0,1 --ulysses-degree 2", true);
}

/// Flux, where decoding takes the most on the second GPU too, and an SD3.
#[test]
fn images_take_what_plan_predicts_on_each_of_two_gpus() {
    let families = &FAMILIES[..2];
    within_a_tenth(families, "--device cuda:0,1 --ulysses-degree 2", false);
}

/// Two stages, each on its GPU. The patches follow each other after a step over the whole image.
const STAGES: &str = "--device cuda:0,1 --pipefusion-parallel-degree 2 --warmup-steps 1";

#[test]
fn denoising_takes_what_plan_predicts_on_the_gpu_of_each_stage() {
    within_a_tenth(&FAMILIES, STAGES, true);
}

#[test]
fn images_take_what_plan_predicts_on_the_gpu_of_each_stage() {
    within_a_tenth(&FAMILIES[..2], STAGES, false);
}

#[test]
fn low_memory_lets_text_encoders_go_before_denoising() {
    // So small that weights take the most.
    let flags =
        "--device cuda --height 32 --width 32 --num-inference-steps 1 --max-sequence-length 5";
    let low = format!("{flags} --low-memory");
    let both = [flags, &low];
    let [kept, let_go] = both.map(|flags| of_each_gpu("flux-dev", flags, false, "free")[0]);
    for [predicted, measured] in [kept, let_go] {
        assert!(
            (predicted / measured - 1.0).abs() <= 0.1,
            "{kept:?} {let_go:?}"
        );
    }
    // As predicted: the encoders of this model weigh more than a tenth of it.
    let lower = |index: usize| 1.0 - let_go[index] / kept[index];
    assert!(lower(1) >= 0.1, "{kept:?} {let_go:?}");
    assert!((lower(0) - lower(1)).abs() <= 0.05, "{kept:?} {let_go:?}");
}

const SMALL: &str = "--allow-non-finite --prompt circle --height 256 --width 256 --num-inference-steps 1 --max-sequence-length 5";

#[test]
fn a_run_that_does_not_fit_the_gpu_is_refused_before_weights_are_read() {
    let variables = [("VGPU_MEM_MB", "8"), ("VGPU_STATS", "1")];
    for (device, end) in [
        ("--device cuda", "\n"),
        (
            "",
            " (--device auto chose cuda:0; --device cpu computes on the processor)\n",
        ),
    ] {
        let words = format!("generate {device} --output a.png {SMALL}");
        let run = on_gpu(&words, "flux-dev", &variables);
        assert_eq!(run.code, Some(5), "{run:?}");
        let error = run.stderr.lines().find(|line| line.starts_with("error: "));
        let error = format!("{}\n", error.unwrap_or_default());
        let start = "error: out of memory on cuda:0: 256 × 256 needs ";
        assert!(error.starts_with(start), "{run:?}");
        assert!(error.contains(", 8.0 MiB are available; try --"), "{run:?}");
        assert!(error.ends_with(end), "{run:?}");
        assert!(!run.stderr.contains("cuMemcpyHtoD"), "{run:?}");
    }
    let small = SMALL.trim_start_matches("--allow-non-finite ");
    let plan = on_gpu(
        &format!("plan --device cuda {small}"),
        "flux-dev",
        &variables,
    );
    let plan = plan.succeeded();
    assert!(
        plan.stdout.contains("memory of cuda:0 at its peak: "),
        "{plan:?}"
    );
    assert!(
        plan.stdout.contains(" of 8.0 MiB available: DOES NOT FIT"),
        "{plan:?}"
    );
    let told = "not on this machine: out of memory on cuda:0: ";
    assert!(plan.stderr.contains(told), "{plan:?}");
}

/// So many allocations of the pool are made when the plan has been checked and images are drawn: with 40 they are not, with 50
/// they are.
const WHILE_DRAWING: &str = "60";

#[test]
fn an_allocation_that_fails_says_what_holds_the_memory() {
    let words = format!("generate --device cuda --output a.png {SMALL}");
    // Another program takes what is free: first while weights are loaded, then while images are drawn.
    for (after, parts) in [
        ("1", vec!["the weights so far "]),
        (
            WHILE_DRAWING,
            vec!["text encoders ", "transformer ", "VAE ", "activations "],
        ),
    ] {
        let run = on_gpu(&words, "flux-dev", &[("VGPU_TAKEN_AFTER", after)]);
        assert_eq!(run.code, Some(5), "{run:?}");
        let start = "error: out of memory on cuda:0: ";
        assert!(run.stderr.starts_with(start), "{run:?}");
        for part in parts {
            assert!(run.stderr.contains(part), "{run:?}");
        }
        for part in [
            ", 0 B are available; the rest: ",
            "; try --dtype bf16",
            "--low-memory",
        ] {
            assert!(run.stderr.contains(part), "{run:?}");
        }
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
}

#[test]
fn out_of_memory_in_a_rank_is_exit_code_5_too() {
    let words = format!("generate --device cuda --ring-degree 2 --output a.png {SMALL}");
    let run = on_gpu(&words, "flux-dev", &[("VGPU_TAKEN_AFTER", WHILE_DRAWING)]);
    assert_eq!(run.code, Some(5), "{run:?}");
    let start = "error: rank ";
    assert!(run.stderr.starts_with(start), "{run:?}");
    assert!(run.stderr.contains("out of memory on cuda:0: "), "{run:?}");
}

/// The names of GPUs in the text of `plan`, and the words of the lines that tell their memory.
fn told_of_gpus(words: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let plan = on_gpu(words, "flux-dev", variables).succeeded();
    assert!(
        plan.stdout.lines().all(|line| line.chars().count() <= 80),
        "{plan:?}"
    );
    let lines = plan
        .stdout
        .lines()
        .filter(|line| line.starts_with("memory of "));
    let told = lines.map(|line| line.split(": ").next().unwrap().to_owned());
    told.collect()
}

#[test]
fn plan_tells_the_memory_of_each_gpu_and_of_equal_ones_once() {
    let flags = "--prompt circle --height 256 --width 256 --ulysses-degree 4";
    let words = format!("plan {flags} --device cuda:0,1,2,3");
    let told = told_of_gpus(&words, &[("VGPU_DEVICES", "4")]);
    assert_eq!(
        told,
        [
            "memory of cuda:0 at its peak",
            "memory of each of cuda:1-3",
            "memory of the process at its peak"
        ]
    );
    // Stages: each GPU holds the blocks of its own, and the whole model is counted once.
    let words = "plan --prompt circle --pipefusion-parallel-degree 2 --json --device cuda:0,1";
    let plan = on_gpu(words, "flux-dev", &[]).succeeded().json();
    let gpus = plan["memory"]["gpus"].as_array().unwrap();
    let of = |gpu: &Value| gpu["weights"]["transformer"].as_u64().unwrap();
    let total = plan["totals"]["parameter_bytes"].as_u64().unwrap();
    assert_eq!(of(&gpus[0]) + of(&gpus[1]), total);
    assert_eq!(gpus[1]["weights"]["text_encoders"]["text_encoder"], 0);
}

#[test]
fn images_are_decoded_on_the_gpu_where_the_model_ends() {
    let decode = |flags: &str| {
        let words = format!(
            "plan --prompt circle --pipefusion-parallel-degree 2 --json --device cuda:0,1 {flags}"
        );
        let plan = on_gpu(&words, "flux-dev", &[]).succeeded().json();
        [0, 1].map(|gpu| {
            plan["memory"]["gpus"][gpu]["activations"]["decode"]
                .as_u64()
                .unwrap()
        })
    };
    // The first GPU, which is the pipeline's, only joins the images: a quarter of what decodes them.
    let [first, last] = decode("--no-parallel-vae");
    assert!(first < last / 3, "{first} {last}");
    // Half of the rows each; what is gathered and joined differs.
    let [first, last] = decode("");
    assert!(first > last / 2 && first < last * 2, "{first} {last}");
}

#[test]
fn a_call_that_does_not_fit_one_of_several_gpus_is_refused_with_its_name() {
    // The second GPU decodes most rows, and the first has all weights and images.
    let flags = "--prompt circle --height 256 --width 256 --num-inference-steps 1 --max-sequence-length 5 \
                 --ulysses-degree 2 --device cuda:0,1";
    let plan = on_gpu(&format!("plan --json {flags}"), "flux-dev", &[]);
    let plan = plan.succeeded().json();
    let totals = plan["memory"]["gpus"].as_array().unwrap().iter();
    let totals: Vec<u64> = totals.map(|gpu| gpu["total"].as_u64().unwrap()).collect();
    let least = (totals[1] >> 20).to_string();
    assert!(totals[1] < totals[0]);
    let variables = [("VGPU_MEM_MB", &*least), ("VGPU_STATS", "1")];
    let words = format!("generate --output a.png {flags}");
    let run = on_gpu(&words, "flux-dev", &variables);
    assert_eq!(run.code, Some(5), "{run:?}");
    assert!(
        run.stderr
            .contains("error: out of memory on cuda:0: 256 × 256 needs "),
        "{run:?}"
    );
    assert!(!run.stderr.contains("cuMemcpyHtoD"), "{run:?}");
    // Where only the second is too small.
    let variables = [("VGPU_LITTLE_ON", "1"), ("VGPU_STATS", "1")];
    let run = on_gpu(&words, "flux-dev", &variables);
    assert_eq!(run.code, Some(5), "{run:?}");
    assert!(
        run.stderr
            .contains("error: out of memory on cuda:1: 256 × 256 needs "),
        "{run:?}"
    );
    assert!(!run.stderr.contains("cuMemcpyHtoD"), "{run:?}");
}

#[test]
fn ranks_on_another_gpu_take_nothing_of_the_first() {
    let total = |device: &str| {
        let words = format!("plan --prompt circle --json --ulysses-degree 2 --device {device}");
        let plan = on_gpu(&words, "flux-dev", &[]).succeeded().json();
        let told = &plan["memory"]["gpus"][0];
        assert_eq!(told["device"], "cuda:0");
        let activations = told["activations"]["denoise"].as_u64().unwrap();
        (activations, told["total"].as_u64().unwrap())
    };
    let (one, two) = (total("cuda"), total("cuda:0,1"));
    assert_eq!(one.0, 2 * two.0);
    assert!(two.1 < one.1);
}
