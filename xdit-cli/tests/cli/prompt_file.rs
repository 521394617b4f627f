//! `xdit-cli generate --prompt-file`.

use std::fs;

use crate::generate::pixels;
use crate::program::{names, run};

const LINES: &str = r#"a red circle on a blue background

{"prompt": "a green star", "seed": 7, "height": 32, "width": 48}
{"prompt": "a", "heigth": 32}
{"prompt": "a blue square", "num_images_per_prompt": 2}
"#;

const BASE: [&str; 9] = [
    "generate",
    "--prompt-file",
    "prompts.jsonl",
    "--height",
    "64",
    "--width",
    "64",
    "--num-inference-steps",
    "2",
];

#[test]
fn one_bad_line_does_not_keep_the_others() {
    for replicas in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("prompts.jsonl"), LINES).unwrap();
        let more = [
            "--output",
            "out/",
            "--json",
            "--data-parallel-degree",
            replicas,
        ];
        let outcome = run(folder.path(), BASE.iter().chain(&more));
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(
            outcome.stderr.contains("prompts.jsonl:4: ") && outcome.stderr.contains("heigth"),
            "{outcome:?}"
        );
        let out = folder.path().join("out");
        assert_eq!(
            names(&out),
            [
                "xdit-42-00001.png",
                "xdit-42-00003.png",
                "xdit-42-00005_0.png",
                "xdit-42-00005_1.png"
            ]
        );
        let told: Vec<serde_json::Value> = outcome
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let mut lines: Vec<_> = told.iter().filter_map(|t| t["line"].as_u64()).collect();
        lines.sort_unstable();
        assert_eq!(lines, [1, 3, 4, 5]);
        let last = told.last().unwrap();
        assert_eq!((&last["files"], &last["failed"]), (&4.into(), &1.into()));
        // Its own seed and size, and the picture that its record says.
        let (width, height, _) = pixels(&out.join("xdit-42-00003.png"));
        assert_eq!((width, height), (48, 32));
        let replay = run(&out, ["replay", "xdit-42-00003.png"]).succeeded();
        assert!(replay.stdout.contains("identical"), "{replay:?}");
    }
}

#[test]
fn a_named_file_lends_its_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prompts.jsonl"), "a\nb\n").unwrap();
    let outcome = run(folder.path(), BASE.iter().chain(&["--output", "set.png"])).succeeded();
    assert!(
        outcome.stdout.contains("set-00001.png: a\n") && outcome.stdout.contains("2 files, 0"),
        "{outcome:?}"
    );
    assert_eq!(
        names(folder.path()),
        ["prompts.jsonl", "set-00001.png", "set-00002.png"]
    );
}

#[test]
fn files_that_hold_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(folder.path(), BASE);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("prompts.jsonl"), "{outcome:?}");
    fs::write(folder.path().join("prompts.jsonl"), "\n").unwrap();
    assert_eq!(run(folder.path(), BASE).code, Some(2));
    let both = run(folder.path(), BASE.iter().chain(&["--prompt", "a"]));
    assert_eq!(both.code, Some(2), "{both:?}");
}
