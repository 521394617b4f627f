//! HunyuanDiT from the command line, on small pipelines that diffusers wrote.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Value, json};
use xdit_tests::goldens::{Golden, relative_l2};

use crate::generate::pixels;
use crate::picture_record::record;
use crate::program::{Outcome, run};
use crate::sd3::golden;

/// `COMMAND --model …`, at a size that no model was trained on; `more` are words.
pub(crate) fn on(folder: &Path, model: &str, command: &str, more: &str) -> Outcome {
    let words = format!(
        "{command} --height 96 --width 80 --no-use-resolution-binning --num-inference-steps 3 {more}"
    );
    let words = words.split_whitespace().map(str::to_owned);
    let model = ["--model".to_owned(), golden(model).display().to_string()];
    run(folder, words.chain(model))
}

const GENERATE: &str = "generate --prompt 一个红色的圆";

/// The recorded call as words.
fn call(case: &Golden) -> Vec<String> {
    let call = case.meta["call"].as_object().unwrap();
    let mut words = vec!["--no-use-resolution-binning".to_owned()];
    for (field, value) in call.iter().filter(|(_, value)| !value.is_boolean()) {
        words.push(format!("--{field}"));
        match value {
            Value::String(text) => words.push(text.clone()),
            Value::Array(list) => words.extend(list.iter().map(Value::to_string)),
            number => words.push(number.to_string()),
        }
    }
    if let Some(name) = case.meta["scheduler"].as_str() {
        words.extend(["--scheduler".to_owned(), name.to_owned()]);
    }
    words
}

fn tensor(file: &Path) -> Vec<f32> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensors()[0].1.data().to_vec();
    let chunks = data.chunks_exact(4);
    chunks
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// Chinese prompts, a negative one, each sampler, rescale, and the sizes that v1.1 is told.
#[test]
fn draws_what_diffusers_draws() {
    for (model, name) in [
        ("hunyuan-v1.2", "square"),
        ("hunyuan-v1.2", "dpm"),
        ("hunyuan-v1.2", "ddim"),
        ("hunyuan-v1.2", "euler"),
        ("hunyuan-v1.2", "rescale"),
        ("hunyuan-v1.1", "dpm"),
        ("hunyuan-v1.1", "sizes"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let case = Golden::read(&format!("cases/{model}/{name}.safetensors.gz"));
        let draw = |more: &str| {
            let model = golden(model).display().to_string();
            let words = format!("generate --model {model} {more}");
            let words = words.split_whitespace().map(str::to_owned);
            run(folder.path(), words.chain(call(&case))).succeeded()
        };
        draw("--output a.png --dump d");
        let (_, _, rgb) = pixels(&folder.path().join("a.png"));
        let want = case.pixels();
        assert_eq!(rgb.len(), want.len(), "{model} {name}");
        let levels = rgb.iter().zip(&want).map(|(a, b)| a.abs_diff(*b)).max();
        // What the contract allows in floats can only tip a rounding.
        assert!(levels <= Some(1), "{model} {name}: {levels:?} levels");

        draw("--output-type latent --output a.safetensors");
        let steps = case.meta["call"]["num_inference_steps"].as_u64().unwrap();
        for step in 0..steps {
            let name_of = format!("step.{step}.latents");
            let (_, want) = case.f32(&name_of);
            let dumped = folder.path().join(format!("d/{name_of}.safetensors"));
            let mut files = vec![dumped];
            if step + 1 == steps {
                files.push(folder.path().join("a.safetensors"));
            }
            for file in files {
                let apart = relative_l2(&tensor(&file), &want);
                // The contract's for latents.
                assert!(apart <= 1e-5, "{model} {name}, {file:?}: {apart:.2e}");
            }
        }
        for dumped in [
            "step.0.noise_pred_uncond",
            "step.0.noise_pred_cond",
            "text_embedding_mask",
            "text_embedding_mask_t5",
            "vae.input",
        ] {
            let file = folder.path().join(format!("d/{dumped}.safetensors"));
            assert!(file.exists(), "{model} {name}: no {dumped}");
        }
    }
}

#[test]
fn replay_redraws_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    for (model, more) in [
        (
            "hunyuan-v1.2",
            "--negative-prompt 模糊 --guidance-rescale 0.7",
        ),
        (
            "hunyuan-v1.2",
            "--scheduler DPMSolverMultistepScheduler --pipefusion-parallel-degree 2",
        ),
        (
            "hunyuan-v1.2",
            "--pipefusion-parallel-degree 3 --pipefusion-placement linear --use-cfg-parallel",
        ),
        (
            "hunyuan-v1.1",
            "--original-size 600 800 --target-size 512 384 --crops-coords-top-left 32 16 --ulysses-degree 2",
        ),
    ] {
        on(
            folder.path(),
            model,
            GENERATE,
            &format!("{more} --output a.png"),
        )
        .succeeded();
        let again = ["replay", "a.png", "--output", "b.png"];
        let outcome = run(folder.path(), again).succeeded();
        assert!(outcome.stdout.contains("identical"), "{more}: {outcome:?}");
        let file = |name: &str| fs::read(folder.path().join(name)).unwrap();
        assert!(file("a.png") == file("b.png"), "{more}: other bytes");
    }
    let request = &record(&folder.path().join("a.png"))["request"];
    assert_eq!(request["prompt"], json!(["一个红色的圆"]));
    assert_eq!(request["original_size"], json!([600, 800]));
}

#[test]
fn every_argument_changes_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |more: &str| {
        let words = format!("--output a.png {more}");
        on(folder.path(), "hunyuan-v1.1", GENERATE, &words).succeeded();
        pixels(&folder.path().join("a.png")).2
    };
    let plain = draw("");
    for more in [
        "--negative-prompt 模糊",
        "--guidance-scale 3",
        "--guidance-rescale 1",
        "--scheduler DDIMScheduler",
        "--scheduler DPMSolverMultistepScheduler",
        "--scheduler EulerDiscreteScheduler",
        "--original-size 64 64",
        "--target-size 64 64",
        "--crops-coords-top-left 512 0",
    ] {
        assert!(draw(more) != plain, "{more} has no effect");
    }
    // Each stage and each branch on ranks of their own, every step whole, is the same picture but for sums in another order.
    let whole = draw("--pipefusion-parallel-degree 2 --warmup-steps 3 --use-cfg-parallel");
    let levels = plain.iter().zip(&whole).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(levels <= Some(1), "{levels:?} levels");
}

#[test]
fn json_tells_what_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let more = "--json --output a.png --guidance-rescale 0.5 --scheduler DDIMScheduler --pipefusion-parallel-degree 3";
    let done = on(folder.path(), "hunyuan-v1.2", GENERATE, more);
    let done = done.succeeded().json();
    let request = &done["request"];
    for (field, value) in [
        ("prompt", json!(["一个红色的圆"])),
        ("scheduler", json!("DDIMScheduler")),
        ("guidance_rescale", json!(0.5)),
        ("guidance_scale", json!(5.0)),
        ("use_resolution_binning", json!(false)),
    ] {
        assert_eq!(request[field], value, "{field}: {request}");
    }
    // What is sent is what the plan foretells.
    let plan = on(
        folder.path(),
        "hunyuan-v1.2",
        "plan",
        "--json --pipefusion-parallel-degree 3",
    );
    let plan = plan.succeeded().json();
    let sent = done["ranks"]["communication"].as_array().unwrap();
    let sent = sent
        .iter()
        .filter(|entry| entry["axis"] == "pipe" && entry["operation"] == "send");
    let bytes: u64 = sent.map(|entry| entry["bytes"].as_u64().unwrap()).sum();
    assert_eq!(plan["links"]["all_steps"]["bytes"], bytes);
}

const FOLDED: &str = "--pipefusion-parallel-degree 3";
const LINEAR: &str = "--pipefusion-parallel-degree 3 --pipefusion-placement linear";

#[test]
fn a_plan_folds_and_unfolds() {
    let folder = tempfile::tempdir().unwrap();
    let text = |more: &str| {
        let more = format!("{more} --show-schedule 2");
        on(folder.path(), "hunyuan-v1.2", "plan", &more)
            .succeeded()
            .stdout
    };
    let folded = text(FOLDED);
    for part in [
        "3 ranks: pipe 3\n3 patches: 3 of 2 rows (10 tokens)\n",
        "\n    0    0, 7  1 plain, 1 skip ",
        "\n    2     2–5  3 plain, 1 skip ",
        "\nstage to stage (2×)  2 messages  7.5 KiB  6 messages    7.5 KiB\n",
        "\nand up again (2×)    2 messages  7.5 KiB  6 messages    7.5 KiB\n",
        "\nSTEP.PATCH down, STEP'PATCH up, by stage and time; * a whole step\nstage 0 | 0.* ",
        " 1'0 ",
    ] {
        assert!(folded.contains(part), "{part:?} is not in\n{folded}");
    }
    for part in ["\nskips", "last to first"] {
        assert!(!folded.contains(part), "{part:?} is in\n{folded}");
    }
    let linear = text(LINEAR);
    for part in [
        "\n    0     0–2  3 plain ",
        "\n    1     3–5  2 plain, 1 skip ",
        "\n    2     6–7  2 skip ",
        "\nlast to first        3 messages  1.9 KiB  3 messages    1.9 KiB\n",
        "\nskips                6 messages  22 KiB   18 messages   22 KiB\n",
        "\nSTEP.PATCH by stage and time, .* a whole step\nstage 0 | 0.* ",
    ] {
        assert!(linear.contains(part), "{part:?} is not in\n{linear}");
    }
    assert!(!linear.contains("up again"), "{linear}");
}

#[test]
fn a_plan_as_json_has_ranges_and_links() {
    let folder = tempfile::tempdir().unwrap();
    let plan = |more: &str| {
        let more = format!("--json {more}");
        on(folder.path(), "hunyuan-v1.2", "plan", &more)
            .succeeded()
            .json()
    };
    let ranges = |plan: &Value| -> Vec<Value> {
        let stages = plan["stages"].as_array().unwrap().iter();
        stages.map(|stage| stage["ranges"].clone()).collect()
    };
    let none = json!({"messages": 0, "bytes": 0});
    let folded = plan(FOLDED);
    assert_eq!(folded["placement"], "folded");
    assert_eq!(
        ranges(&folded),
        [
            json!([[0, 1], [7, 8]]),
            json!([[1, 2], [6, 7]]),
            json!([[2, 6]])
        ]
    );
    let linear = plan(LINEAR);
    assert_eq!(linear["placement"], "linear");
    assert_eq!(
        ranges(&linear),
        [json!([[0, 3]]), json!([[3, 6]]), json!([[6, 8]])]
    );
    // Both branches' 30 tokens of 32 channels, in f32.
    let stream = 2 * 30 * 32 * 4;
    for step in ["whole_step", "patched_step"] {
        let (folded, linear) = (&folded["links"][step], &linear["links"][step]);
        assert_eq!((&folded["skips"], &folded["back"]), (&none, &none));
        assert_eq!(folded["upward"]["bytes"], stream);
        assert_eq!(linear["upward"], none);
        // Blocks 0, 1 and 2 are read again by 7, 6 and 5.
        assert_eq!(linear["skips"]["bytes"], 3 * stream);
        assert_eq!(linear["back"]["bytes"], 30 * 16 * 4);
    }
    // The widest split: one block of each half on each of four stages, and each block alone.
    for (degree, placement) in [(4, "folded"), (8, "linear"), (7, "linear")] {
        let more = format!(
            "--pipefusion-parallel-degree {degree} --pipefusion-placement {placement} --num-pipeline-patch 2"
        );
        assert_eq!(plan(&more)["stages"].as_array().unwrap().len(), degree);
    }
}

#[test]
fn info_tells_encoders_and_blocks() {
    for (model, heads) in [("hunyuan-v1.1", "3 × 4"), ("hunyuan-v1.2", "4 × 8")] {
        let folder = golden(model).display().to_string();
        let text = run(Path::new("."), ["info", &folder]).succeeded().stdout;
        for word in [
            "HunyuanDiTPipeline",
            "BertModel",
            "T5EncoderModel",
            "HunyuanDiT2DModel",
            heads,
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        let json = run(Path::new("."), ["info", &folder, "--json"]);
        let json = json.succeeded().json();
        assert_eq!(json["components"].as_array().unwrap().len(), 7, "{json}");
    }
}
