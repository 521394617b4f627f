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
                "xdit-42-00005_000.png",
                "xdit-42-00005_001.png",
                "xdit-7-00003.png"
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
        let (width, height, _) = pixels(&out.join("xdit-7-00003.png"));
        assert_eq!((width, height), (48, 32));
        let replay = run(&out, ["replay", "xdit-7-00003.png"]).succeeded();
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

/// Without a line to draw no model is looked for, and a model that cannot be read ends in the totals.
#[test]
fn a_model_is_read_for_lines_that_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prompts.jsonl"), "a\n").unwrap();
    let more = ["--output", "out/", "--skip-existing", "--json"];
    let base = BASE.iter().chain(&more);
    run(folder.path(), base.clone()).succeeded();
    let nowhere = ["--model", "no-such-folder"];
    let skipped = run(folder.path(), base.clone().chain(&nowhere)).succeeded();
    assert!(skipped.stdout.contains("\"skipped\":1"), "{skipped:?}");
    fs::write(folder.path().join("prompts.jsonl"), "a\nb\n").unwrap();
    let failed = run(folder.path(), base.chain(&nowhere));
    assert_eq!(failed.code, Some(3), "{failed:?}");
    let last = failed.stdout.lines().last().unwrap();
    let totals: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!((&totals["lines"], &totals["files"]), (&2.into(), &0.into()));
    assert_eq!(totals["error"]["exit_code"], 3);
}

#[test]
fn seeds_are_counted_and_files_that_exist_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "# shapes\na\n{\"prompt\": \"b\", \"num-inference-steps\": 1}\n{\"prompt\": \"c\", \"seed\": 7}\n[\"d\"]\n";
    fs::write(folder.path().join("prompts.jsonl"), lines).unwrap();
    let more = [
        "--output",
        "out/",
        "--seed",
        "5",
        "--increment-seed",
        "--skip-existing",
        "--json",
    ];
    let draw = || run(folder.path(), BASE.iter().chain(&more));
    let first = draw();
    assert_eq!(first.code, Some(1), "{first:?}");
    assert!(
        first.stderr.contains("prompts.jsonl:5: is a JSON array"),
        "{first:?}"
    );
    let out = folder.path().join("out");
    let expected = ["xdit-5-00002.png", "xdit-6-00003.png", "xdit-7-00004.png"];
    assert_eq!(names(&out), expected);
    let steps =
        crate::picture_record::record(&out.join(expected[1]))["request"]["num_inference_steps"]
            .clone();
    assert_eq!(steps, 1);
    fs::remove_file(out.join(expected[1])).unwrap();
    let again = draw();
    let told: Vec<serde_json::Value> = again
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let skipped: Vec<_> = told
        .iter()
        .filter(|it| it["skipped"] == true)
        .map(|it| it["line"].clone())
        .collect();
    assert_eq!(skipped, [2, 4]);
    let last = told.last().unwrap();
    assert_eq!(
        (&last["files"], &last["skipped"], &last["failed"]),
        (&1.into(), &2.into(), &1.into())
    );
    assert_eq!(names(&out), expected);
    let alone = run(
        folder.path(),
        ["generate", "--prompt", "a", "--skip-existing"],
    );
    assert_eq!(alone.code, Some(2), "{alone:?}");
}

/// No line has the name without its number.
#[test]
fn only_the_names_of_lines_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("lines"), "a red circle\n").unwrap();
    std::fs::create_dir(folder.path().join("set_000.png")).unwrap();
    let call = "generate --prompt-file lines --output set.png -n 2 --height 64 --width 64 --num-inference-steps 1";
    run(folder.path(), call.split_whitespace()).succeeded();
    assert!(folder.path().join("set-00001_001.png").is_file());
    std::fs::remove_file(folder.path().join("set-00001_000.png")).unwrap();
    std::fs::create_dir(folder.path().join("set-00001_000.png")).unwrap();
    let refused = run(folder.path(), call.split_whitespace());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("set-00001_000.png: cannot be written: is a folder"),
        "{refused:?}"
    );
}
