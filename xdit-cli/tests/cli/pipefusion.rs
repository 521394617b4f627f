//! `xdit-cli generate` and `replay` with stages and patches.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::generate::pixels;
use crate::picture_record::record;
use crate::program::{run, small};

const PROMPT: &str = "a red circle on a blue background";
/// 64 pixels are 4 rows of tokens: three patches of 2, 1 and 1.
const PIPE: [&str; 6] = [
    "--pipefusion-parallel-degree",
    "2",
    "--num_pipeline_patch",
    "3",
    "--num-inference-steps",
    "5",
];

/// The same run with more flags; its steps are [`PIPE`]'s.
fn words<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let all = small(PROMPT, more);
    let without_steps = |word: &&str| *word != "--num-inference-steps" && *word != "2";
    let head: Vec<&str> = all[..9].iter().copied().filter(without_steps).collect();
    [&head[..], &PIPE, &all[9..]].concat()
}

fn draw(folder: &Path, more: &[&str]) -> Value {
    let json = run(folder, words(&[more, &["--json"]].concat()));
    json.succeeded().json()
}

#[test]
fn replay_redraws_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    for (row, more) in [
        &[][..],
        // Some steps whole, some not.
        &["--max-drift", "0.1", "--warmup-steps", "0"],
        &["--attn-layer-num-for-pp", "7,1", "--ulysses-degree", "2"],
        &[
            "--pipefusion-balance",
            "memory",
            "--ring-degree",
            "2",
            "--dtype",
            "bf16",
        ],
        &["--negative-prompt", "green", "--true-cfg-scale", "2"],
    ]
    .into_iter()
    .enumerate()
    {
        draw(folder.path(), &[more, &["--output", "a.png"]].concat());
        let again = ["replay", "a.png", "--output", "b.png"];
        let outcome = run(folder.path(), again).succeeded();
        assert!(outcome.stdout.contains("identical"), "{row}: {outcome:?}");
        // Pixels, and the record with all that was measured.
        let file = |name: &str| fs::read(folder.path().join(name)).unwrap();
        assert!(file("a.png") == file("b.png"), "row {row}: other bytes");
    }
}

#[test]
fn with_max_drift_replicas_decide_together() {
    let folder = tempfile::tempdir().unwrap();
    let more = "--num-images-per-prompt 3 --data-parallel-degree 2 --max-drift 0.13 --output a.png";
    let json = draw(folder.path(), &more.split_whitespace().collect::<Vec<_>>());
    let replicas = json["pipefusion"]["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 2);
    assert_eq!(replicas[0], replicas[1]);
    // The record does not hold the replicas: one draws the same.
    for image in 0..3 {
        let file = format!("a_{image:03}.png");
        run(folder.path(), ["replay", &file]).succeeded();
        let record = record(&folder.path().join(file));
        let recorded = &record["parallel"]["pipefusion"];
        assert_eq!(recorded["measured"]["drift"], replicas[0]["drift"]);
    }
}

#[test]
fn what_was_measured_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let json = draw(folder.path(), &["--output", "a.png"]);
    let told = &json["pipefusion"];
    assert_eq!(told["patches"], 3);
    assert_eq!(told["warmup_steps"], 1);
    assert_eq!(told["max_drift"], Value::Null);
    let blocks = |field: &str| -> Vec<u64> {
        let stages = told["stages"].as_array().unwrap().iter();
        stages.map(|stage| stage[field].as_u64().unwrap()).collect()
    };
    assert_eq!(blocks("first_block"), [0, blocks("blocks")[0]]);
    assert_eq!(blocks("blocks").iter().sum::<u64>(), 8);
    let [replica] = told["replicas"].as_array().unwrap().as_slice() else {
        panic!("{told}");
    };
    assert_eq!(replica["whole_steps"], json!([0]));
    assert_eq!(replica["whole_count"], 1);
    assert_eq!(replica["refreshed_steps"], json!([]));
    assert_eq!(replica["refreshed_count"], 0);
    let drift = replica["drift"].as_array().unwrap();
    assert_eq!((drift.len(), &drift[0]), (5, &Value::Null));
    let steps = drift[1..].iter().map(|step| step.as_f64().unwrap());
    let worst = steps.clone().fold(0.0, f64::max);
    assert!(
        steps.clone().all(|step| step > 0. && step < 1.),
        "{drift:?}"
    );
    assert_eq!(replica["worst_drift"].as_f64(), Some(worst));

    // The record says the same, in xDiT's words.
    let record = record(&folder.path().join("a.png"));
    let recorded = &record["parallel"]["pipefusion"];
    assert_eq!(recorded["pipefusion_parallel_degree"], 2);
    assert_eq!(recorded["num_pipeline_patch"], 3);
    assert_eq!(recorded["attn_layer_num_for_pp"], json!(blocks("blocks")));
    assert_eq!(recorded["measured"]["drift"], replica["drift"]);
    assert_eq!(recorded["measured"]["whole_steps"], json!([0]));

    let line = run(folder.path(), words(&["--output", "a.png"])).succeeded();
    let told = ", f32: pipe 2, 3 patches, drift 0.";
    assert!(line.stdout.contains(told), "{line:?}");
    // A limit that every drift is above: all that could were refreshed, and the line says how many.
    let more = ["--output", "a.png", "--max-drift", "0"];
    let line = run(folder.path(), words(&more)).succeeded();
    let told = " at most, 2 of 5 steps whole for --max-drift, ";
    assert!(line.stdout.contains(told), "{line:?}");
    let json = draw(folder.path(), &more);
    let replica = &json["pipefusion"]["replicas"][0];
    assert_eq!(replica["refreshed_steps"], json!([3, 4]));
    assert_eq!(replica["whole_count"], 3);
}

#[test]
fn whole_steps_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let picture = |words: Vec<&str>| {
        run(folder.path(), words).succeeded();
        pixels(&folder.path().join("a.png")).2
    };
    let one = picture(small(PROMPT, &["--output", "a.png"]));
    for more in [
        &["--pipefusion-parallel-degree", "3"][..],
        &["--num-pipeline-patch", "3"],
    ] {
        let warm = ["--output", "a.png", "--warmup-steps", "2"];
        let shared = picture(small(PROMPT, &[&warm, more].concat()));
        // f32 sums in another order can only tip a rounding.
        let levels = one.iter().zip(&shared).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(levels <= Some(1), "{more:?}: {levels:?} levels");
        let lossy = [&["--output", "a.png", "--warmup-steps", "0"], more].concat();
        assert!(picture(small(PROMPT, &lossy)) != one, "{more:?} is exact");
    }
}

#[test]
fn each_line_of_a_prompt_file_has_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "a red circle\n{\"prompt\": \"a green star\", \"height\": 32}\n{\"prompt\": \"a\", \"height\": 48}\n";
    fs::write(folder.path().join("prompts"), lines).unwrap();
    let flags = "generate --prompt-file prompts --height 64 --width 64 --data-parallel-degree 2 --max-drift 0.5";
    let words = || flags.split_whitespace().chain(PIPE);
    let outcome = run(
        folder.path(),
        words().chain(["--json", "--output", "set.png"]),
    );
    // The second has two rows, and three patches are asked for.
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let told = "prompts:2: --num-pipeline-patch 3: must be from 1 to 2";
    assert!(outcome.stderr.contains(told), "{outcome:?}");
    for number in [1, 3] {
        let line = outcome
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|line| line["line"] == number)
            .unwrap();
        assert_eq!(line["pipefusion"]["replicas"].as_array().unwrap().len(), 1);
        assert_eq!(line["ranks"]["memory"].as_array().unwrap().len(), 2);
        let file = format!("set-{number:05}.png");
        run(folder.path(), ["replay", &file]).succeeded();
        let record = record(&folder.path().join(file));
        let recorded = &record["parallel"]["pipefusion"];
        assert_eq!(
            recorded["measured"]["drift"],
            line["pipefusion"]["replicas"][0]["drift"]
        );
        // Each line has one replica, however many there are.
        assert_eq!(recorded["data_parallel_degree"], Value::Null);
    }
    let text = run(folder.path(), words().chain(["--output", "set.png"]));
    let told = "set-00001.png: a red circle; 3 patches, drift 0.";
    assert!(text.stdout.contains(told), "{text:?}");
}
