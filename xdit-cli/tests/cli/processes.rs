//! `xdit-cli` over ranks that are processes: what it draws and writes.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::job::{Job, outcomes, run_on};
use crate::program::{Outcome, names, run, small};

const PROMPT: &str = "a red circle on a blue background";

/// What each rank of the mesh sent on each axis: rank, operation, axis, calls, bytes.
fn sent(json: &Value) -> Vec<(u64, String, String, u64, u64)> {
    let number = |value: &Value| value.as_u64().expect("a number");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let entries = json["ranks"]["communication"].as_array().expect("a list");
    let mut sent: Vec<_> = entries
        .iter()
        .filter(|entry| !entry["axis"].is_null() && entry["operation"] != "control")
        .map(|entry| {
            let (rank, calls, bytes) = (&entry["rank"], &entry["calls"], &entry["bytes"]);
            let (operation, axis) = (text(&entry["operation"]), text(&entry["axis"]));
            (number(rank), operation, axis, number(calls), number(bytes))
        })
        .collect();
    sent.sort();
    sent
}

/// Draws with threads and with processes, and compares every byte of every file.
fn draws_what_threads_draw(ranks: usize, flags: &str) -> (Outcome, Value) {
    let folder = tempfile::tempdir().unwrap();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let words = |more: &[&'static str]| small(PROMPT, &[&flags, more].concat());
    let threads = run(folder.path(), words(&["--output", "threads/", "--json"])).succeeded();
    let processes = words(&["--output", "processes/", "--json"]);
    let outcome = run_on(ranks, folder.path(), &processes).succeeded();
    let files = names(&folder.path().join("threads"));
    assert!(!files.is_empty());
    assert_eq!(names(&folder.path().join("processes")), files);
    for file in &files {
        let read = |kind: &str| fs::read(folder.path().join(kind).join(file)).unwrap();
        assert!(read("threads") == read("processes"), "{flags:?}: {file}");
    }
    let (threads, json) = (threads.json(), outcome.json());
    assert_eq!(sent(&threads), sent(&json), "{flags:?}");
    for key in ["request", "images", "pipefusion", "dtype", "tier"] {
        assert_eq!(threads[key], json[key], "{flags:?}: {key}");
    }
    assert_eq!(threads["ranks"]["memory"], json["ranks"]["memory"]);
    (outcome, json)
}

#[test]
fn ulysses_and_ring() {
    let (outcome, json) = draws_what_threads_draw(2, "--ulysses-degree 2");
    let processes = json["processes"].as_array().unwrap();
    let of = |process: usize, key: &str| processes[process][key].clone();
    assert_eq!(processes.len(), 2);
    assert_eq!([of(0, "mesh_rank"), of(1, "mesh_rank")], [0, 1]);
    assert!((0..2).all(|rank| of(rank, "peak_memory_bytes").as_u64() > Some(0)));
    assert!((0..2).all(|rank| of(rank, "threads") == 1));
    // No word about ranks that share a thread: each has one.
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    draws_what_threads_draw(2, "--ring-degree 2 --no-parallel-vae");
}

#[test]
fn stages_and_patches() {
    let (_, json) = draws_what_threads_draw(2, "--pipefusion-parallel-degree 2 --warmup-steps 1");
    // Rank 0 of the launcher is where the images come together.
    let rank = |process: usize| json["processes"][process]["mesh_rank"].clone();
    assert_eq!([rank(0), rank(1)], [1, 0]);
}

#[test]
fn branches_of_guidance() {
    let flags = "--cfg-degree 2 --true-cfg-scale 3 --negative-prompt blue";
    draws_what_threads_draw(2, flags);
}

#[test]
fn replicas() {
    // More ranks than images: the last replica has none.
    draws_what_threads_draw(3, "--data-parallel-degree 3 --num-images-per-prompt 2");
    let flags = "--data-parallel-degree 2 --num-images-per-prompt 3 --output-type latent";
    draws_what_threads_draw(2, flags);
}

#[test]
fn plans_of_several_axes() {
    let flags = "--pipefusion-parallel-degree 2 --num-pipeline-patch 2 --ulysses-degree 2 --output-type float";
    draws_what_threads_draw(4, flags);
    let flags = "--data-parallel-degree 2 --pipefusion-parallel-degree 2 --num-images-per-prompt 2";
    draws_what_threads_draw(4, flags);
}

fn file(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn rank_0_alone_writes_whatever_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let dumped = |name: &'static str, ranks: usize| {
        let trace = ["--trace", if ranks == 1 { "one.json" } else { "two.json" }];
        let plan = ["--ulysses-degree", "2", "--dump", name, "-v"];
        let words = small(PROMPT, &[&plan[..], &trace, &["--output", "-"]].concat());
        match ranks {
            1 => drop(
                crate::program::command()
                    .args(&words)
                    .current_dir(folder.path())
                    .output(),
            ),
            _ => {
                // Standard output is the picture.
                let job = crate::job::Job::new(ranks);
                let children = job.start(folder.path(), &words);
                let wait = |child: std::process::Child| child.wait_with_output().unwrap();
                let all: Vec<_> = children.into_iter().map(wait).collect();
                assert!(all.iter().all(|one| one.status.success()), "{all:?}");
                assert!(all[0].stdout.starts_with(b"\x89PNG"));
                assert!(
                    all[1].stdout.is_empty() && all[1].stderr.is_empty(),
                    "{all:?}"
                );
                let log = String::from_utf8_lossy(&all[0].stderr);
                for told in ["RANK and WORLD_SIZE has started 2 ranks", "Unix sockets"] {
                    assert!(log.contains(told), "{told}: {log}");
                }
            }
        }
    };
    dumped("threads", 1);
    dumped("processes", 2);
    let of = |name: &str| names(&folder.path().join(name));
    assert!(of("threads").len() > 3);
    assert_eq!(of("processes"), of("threads"));
    for name in of("threads") {
        let read = |kind: &str| file(folder.path(), &format!("{kind}/{name}"));
        assert!(read("threads") == read("processes"), "{name}");
    }
    let trace: Value = serde_json::from_slice(&file(folder.path(), "two.json")).unwrap();
    assert!(
        trace["traceEvents"]
            .as_array()
            .is_some_and(|events| events.len() > 10)
    );
}

#[test]
fn a_prompt_file() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "a red circle\n{\"prompt\": \"a star\", \"height\": 32}\n{\"prompt\": \"x\", \"height\": 0}\na ring\n";
    fs::write(folder.path().join("prompts"), lines).unwrap();
    for name in ["threads", "processes"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let size = [
        "--width",
        "64",
        "--height",
        "64",
        "--num-inference-steps",
        "1",
    ];
    let words = |output: &'static str| {
        let all = [
            "generate",
            "--prompt-file",
            "prompts",
            "--ring-degree",
            "2",
            "--json",
            "--output",
        ];
        [&all[..], &[output], &size].concat()
    };
    let threads = run(folder.path(), words("threads/a.png"));
    let processes = run_on(2, folder.path(), &words("processes/a.png"));
    for outcome in [&threads, &processes] {
        assert_eq!(outcome.code, Some(1), "one line is bad: {outcome:?}");
        assert!(outcome.stderr.contains("prompts:3: "), "{outcome:?}");
        assert_eq!(outcome.stdout.lines().count(), 5, "{outcome:?}");
    }
    let files = names(&folder.path().join("threads"));
    assert_eq!(files.len(), 3);
    for name in &files {
        let read = |kind: &str| file(folder.path(), &format!("{kind}/{name}"));
        assert!(read("threads") == read("processes"), "{name}");
    }
    // Only rank 0 knows what exists.
    fs::remove_file(folder.path().join("processes/a-00002.png")).unwrap();
    let again = [&words("processes/a.png")[..], &["--skip-existing"]].concat();
    let again = run_on(2, folder.path(), &again);
    let skipped = again
        .stdout
        .lines()
        .filter(|line| line.contains("skipped\":true"));
    assert_eq!(skipped.count(), 2, "{again:?}");
    assert_eq!(names(&folder.path().join("processes")), files);
    let data = [
        "generate",
        "--prompt-file",
        "prompts",
        "--data-parallel-degree",
        "2",
    ];
    let refused = run_on(2, folder.path(), &data);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains("--data-parallel-degree"),
        "{refused:?}"
    );
}

#[test]
fn a_replay() {
    let folder = tempfile::tempdir().unwrap();
    let words = small(PROMPT, &["--ulysses-degree", "2", "--output", "a.png"]);
    run(folder.path(), words).succeeded();
    let replay = run_on(2, folder.path(), &["replay", "a.png", "--output", "b.png"]).succeeded();
    assert!(replay.stdout.contains("identical"), "{replay:?}");
    assert!(file(folder.path(), "a.png") == file(folder.path(), "b.png"));
    let refused = run_on(3, folder.path(), &["replay", "a.png"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("ulysses 2"), "{refused:?}");
}

#[test]
fn what_needs_one_process_is_done_by_rank_0() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        &["plan", "--ulysses-degree", "2"][..],
        &["info", "demo"],
        &["devices"],
        &["completions", "bash"],
        &["man", "generate"],
    ] {
        let alone = run(folder.path(), words).succeeded();
        let told = run_on(2, folder.path(), words).succeeded();
        assert_eq!(told.stdout.lines().count(), alone.stdout.lines().count());
        assert_eq!(told.stdout.lines().next(), alone.stdout.lines().next());
    }
    let failed = Job::new(2).start(folder.path(), &["download", "demo"]);
    let codes: Vec<_> = outcomes(failed).iter().map(|one| one.code).collect();
    assert_eq!(codes, [Some(2), Some(0)]);
    // It meets nobody.
    let job = Job::new(2);
    let plan = |rank| {
        let mut plan = job.command(rank, folder.path(), ["plan", "--ulysses-degree", "2"]);
        plan.env_remove("MASTER_PORT")
            .env_remove("LOCAL_WORLD_SIZE");
        plan.spawn().unwrap()
    };
    let all = outcomes(vec![plan(0), plan(1)]);
    assert!(all.iter().all(|one| one.code == Some(0)), "{all:?}");
    assert!(!all[0].stdout.is_empty() && all[1].stdout.is_empty());
}
