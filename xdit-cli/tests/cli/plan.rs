//! `xdit-cli plan`, and comparisons of plans with runs.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::bad_input::{refused, refused_with_totals};
use crate::broken_model::copy;
use crate::program::{names, run};

/// Small and uneven: 4 rows of 3 tokens, three patches.
const SIZE: &str = "--height 64 --width 48 --num-inference-steps 3 --pipefusion-parallel-degree 2 --num-pipeline-patch 3";

#[test]
fn memory_and_traffic_are_foretold() {
    let folder = tempfile::tempdir().unwrap();
    for mesh in [
        "",
        "--ulysses-degree 2",
        "--ring-degree 2 --data-parallel-degree 2 --num-images-per-prompt 3",
        "--negative-prompt green --true-cfg-scale 2 --ulysses-degree 3",
        "--attn-layer-num-for-pp 1,7",
    ] {
        for dtype in ["f32", "bf16"] {
            let words = |command| {
                let words =
                    format!("{command} --prompt circle {SIZE} {mesh} --dtype {dtype} --json");
                let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
                run(folder.path(), words).succeeded().json()
            };
            let (plan, done) = (words("plan"), words("generate"));
            let case = format!("{mesh} {dtype}");
            let foretold = plan["ranks"].as_array().unwrap();
            let measured = done["ranks"]["memory"].as_array().unwrap();
            assert_eq!(foretold.len(), measured.len(), "{case}");
            for (foretold, measured) in foretold.iter().zip(measured) {
                assert_eq!(foretold["rank"], measured["rank"], "{case}");
                for what in ["parameter_bytes", "kv_bytes"] {
                    let (f, m) = (foretold[what].as_f64(), measured[what].as_f64());
                    let (f, m) = (f.unwrap(), m.unwrap());
                    // The contract is a tenth.
                    assert!(
                        m > 0. && (f / m - 1.).abs() <= 0.1,
                        "{case}: {what} {f}, then {m}"
                    );
                }
            }
            assert_eq!(
                plan["stages"][0]["blocks"],
                done["pipefusion"]["stages"][0]["blocks"]
            );
            // What is counted between stages, of the first replica, is the plan's to the byte.
            let first = |rank: &Value| {
                let rank = &foretold[rank["rank"].as_u64().unwrap() as usize];
                rank["coordinates"]["data"] == 0
            };
            let sent = done["ranks"]["communication"].as_array().unwrap();
            let sent = sent
                .iter()
                .filter(|entry| entry["axis"] == "pipe" && entry["operation"] == "send")
                .filter(|entry| first(entry));
            let sum = |of: &str| {
                sent.clone()
                    .map(|entry| entry[of].as_u64().unwrap())
                    .sum::<u64>()
            };
            let all = &plan["links"]["all_steps"];
            assert_eq!(all["messages"], sum("calls"), "{case}");
            assert_eq!(all["bytes"], sum("bytes"), "{case}");
        }
    }
}

#[test]
fn what_is_printed() {
    let words = "plan --pipefusion-parallel-degree 2 --ulysses-degree 2 --num-pipeline-patch 3 --show-schedule 2";
    let outcome = run(Path::new("."), words.split_whitespace()).succeeded();
    let text = &outcome.stdout;
    for part in [
        "demo: 256×256, 1 image, 20 steps, f32; 24 text and 256 image tokens\n",
        "4 ranks: pipe 2 × ulysses 2\n",
        "3 patches: 1 of 6 rows (96 tokens), 2 of 5 rows (80 tokens)\n",
        "1 step whole, then 19 patch by patch: lossy",
        "2 double, 2 single",
        "\nrank  pipe  ulysses  parameters  keys and values\n",
        "\nstage to stage (1×)  2 messages",
        "\nstage 0 | 0.* 0.* 0.* ·   ·   ·   1.0 1.1 1.2 ·\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    // Two threads compute.
    let crowded = "warning: 4 ranks share 2 threads: slower than one rank on this machine; good for checking plans\n";
    assert_eq!(outcome.stderr, crowded);
    assert!(text.lines().count() <= 30, "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    let alone = run(Path::new("."), ["plan"]).succeeded().stdout;
    assert!(alone.contains("\n1 rank\n1 patch: 16 rows\n20 steps whole: exact\n"));
}

/// Only the configurations are there; and another machine may have the memory that this one lacks.
#[test]
fn needs_no_weights_and_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&model);
    for entry in fs::read_dir(&model).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            for name in names(&path)
                .iter()
                .filter(|name| *name != "config.json" && *name != "scheduler_config.json")
            {
                fs::remove_file(path.join(name)).unwrap();
            }
        }
    }
    let words = ["plan", "--model", "model", "--json"];
    let plan = run(folder.path(), words).succeeded().json();
    assert_eq!(plan["model"], "model");
    let large = ["--height", "32768", "--width", "32768"];
    let outcome = run(folder.path(), words.iter().chain(&large)).succeeded();
    let plan = outcome.json();
    assert_eq!(plan["image_tokens"], 2048 * 2048);
    let memory = &plan["memory"];
    assert_eq!(memory["fits"], false);
    assert!(memory["total"].as_u64() > memory["available"].as_u64());
    let warnings = plan["warnings"].as_array().unwrap().iter();
    let mut warnings = warnings.map(|warning| warning.as_str().unwrap());
    let warning = warnings
        .find(|text| text.contains("out of memory"))
        .unwrap();
    let start = "not on this machine: out of memory: 32768 × 32768 needs ";
    assert!(
        warning.starts_with(start) && warning.contains(" GiB are available; try --vae-tiling"),
        "{warning}"
    );
    assert!(outcome.stderr.contains(warning), "{outcome:?}");
    assert_eq!(names(folder.path()), ["model"]);
}

/// Whether it fits is told of the whole process, by the estimate that `generate` is refused by; what ranks share counts once.
#[test]
fn says_whether_it_fits() {
    let run = |words: &str| run(Path::new("."), words.split_whitespace());
    let plan = |more: &str| {
        run(&format!("plan --json --height 64 --width 64 {more}"))
            .succeeded()
            .json()
    };
    let one = plan("");
    assert_eq!(one["memory"]["fits"], true);
    let weights = &one["memory"]["weights"];
    assert_eq!(one["totals"]["parameter_bytes"], weights["transformer"]);
    for part in ["text_encoder", "text_encoder_2"] {
        assert!(
            weights["text_encoders"][part].as_u64().unwrap() > 0,
            "{part}"
        );
    }
    let four = plan("--ulysses-degree 2 --pipefusion-parallel-degree 2");
    assert_eq!(four["memory"]["weights"], one["memory"]["weights"]);
    assert_eq!(
        four["totals"]["parameter_bytes"],
        one["totals"]["parameter_bytes"]
    );
    assert!(four["ranks"].as_array().unwrap().len() == 4);
    // Threads and --low-memory count as in a run.
    let low = plan("--low-memory");
    assert!(low["memory"]["total"].as_u64() < one["memory"]["total"].as_u64());
    let text = run("plan").succeeded().stdout;
    let line = text
        .lines()
        .find(|line| line.starts_with("memory of the process at its peak: "));
    assert!(line.unwrap().ends_with(" available: fits"), "{text}");
    let large = run("plan --height 32768 --width 32768").succeeded().stdout;
    assert!(large.contains(" available: DOES NOT FIT\n"), "{large}");
    let words = "generate --prompt a --height 32768 --width 32768";
    let refusal = run(words);
    assert_eq!(refusal.code, Some(5));
    let told = refusal.stderr.lines().last().unwrap();
    let needs = |text: &str| {
        text.split_once(" needs ")
            .unwrap()
            .1
            .split_once(',')
            .unwrap()
            .0
            .to_owned()
    };
    assert!(
        told.starts_with("error: out of memory: 32768 × 32768 needs "),
        "{told}"
    );
    assert!(
        large.contains(&format!("at its peak: {} of ", needs(told))),
        "{large} {told}"
    );
}

/// One line that names the flag and what is allowed, before weights are read: those here cannot be.
#[test]
fn what_cannot_be_is_refused_as_generate_does() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&model);
    let weights = "transformer/diffusion_pytorch_model.safetensors";
    fs::write(model.join(weights), b"no weights").unwrap();
    fs::write(folder.path().join("prompts"), "a\n").unwrap();
    let of_the_model = [
        (
            "--pipefusion_parallel_degree 9",
            "--pipefusion-parallel-degree 9: must be from 1 to 8",
        ),
        (
            "--num-pipeline-patch 0",
            "--num-pipeline-patch 0: must be from 1 to",
        ),
        (
            "--pipefusion-parallel-degree 2 --attn-layer-num-for-pp 3,4",
            "--attn-layer-num-for-pp 3,4: must be at least 1 each and 8 in all",
        ),
        (
            "--pipefusion-parallel-degree 2 --attn_layer_num_for_pp 8,0",
            "--attn-layer-num-for-pp 8,0: must be at least 1 each",
        ),
        (
            "--pipefusion-parallel-degree 2 --attn-layer-num-for-pp 3 3 2",
            "--attn-layer-num-for-pp 3,3,2: must be 2 numbers",
        ),
    ];
    // Refused without a model, and before a prompt file is read.
    let of_the_flags = [
        (
            "--pipefusion-parallel-degree 0",
            "--pipefusion-parallel-degree 0",
        ),
        (
            "--pipefusion-parallel-degree -2",
            "--pipefusion-parallel-degree",
        ),
        ("--num-pipeline-patch -1", "--num-pipeline-patch"),
        ("--warmup-steps -1", "--warmup-steps"),
        ("--attn-layer-num-for-pp 4,x", "--attn-layer-num-for-pp"),
        ("--attn-layer-num-for-pp 8,", "--attn-layer-num-for-pp"),
        ("--max-drift -0.1", "--max-drift"),
        ("--max-drift nan", "must be a finite number from 0 up"),
        ("--max-drift inf", "--max-drift"),
        ("--pipefusion-balance time", "--pipefusion-balance"),
        (
            "--pipefusion-balance memory --attn-layer-num-for-pp 8",
            "'--pipefusion-balance <flops|memory>' cannot be used with '--attn-layer-num-for-pp",
        ),
    ];
    let one_size = [
        (
            "--num_pipeline_patch 5",
            "--num-pipeline-patch 5: must be from 1 to 4",
        ),
        (
            "--pipefusion-parallel-degree 5",
            "--num-pipeline-patch 5, as many as stages: must be from 1 to 4",
        ),
    ];
    let size = "--height 64 --model model";
    for (flags, told) in of_the_model.iter().chain(&of_the_flags).chain(&one_size) {
        for command in ["plan", "generate --prompt a"] {
            let words = format!("{command} {size} {flags}");
            refused(&run(folder.path(), words.split_whitespace()), 2, told);
        }
    }
    let of_prompts = |flags| {
        let words = format!("generate --prompt-file prompts {size} {flags}");
        run(folder.path(), words.split_whitespace())
    };
    for (flags, told) in of_the_model {
        refused_with_totals(of_prompts(flags), 2, told);
    }
    for (flags, told) in of_the_flags {
        refused(&of_prompts(flags), 2, told);
    }
    refused(
        &run(folder.path(), ["plan", "--show-schedule", "0"]),
        2,
        "--show-schedule",
    );
    refused(
        &run(folder.path(), ["plan", "--model", "./nowhere"]),
        3,
        "./nowhere",
    );
    assert_eq!(names(folder.path()), ["model", "prompts"]);
}
