//! `xdit-cli generate` over ranks.

use std::fs;

use crate::generate::pixels;
use crate::program::{run, small};

const PROMPT: &str = "a red circle on a blue background";

#[test]
fn ranks_draw_the_picture_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |name: &str, more: &[&str]| {
        let words = small(PROMPT, &[&["--output", name, "--json"], more].concat());
        let json = run(folder.path(), words).succeeded().json();
        (pixels(&folder.path().join(name)).2, json)
    };
    let (whole, json) = draw("whole.png", &[]);
    assert_eq!(json["ranks"]["communication"], serde_json::json!([]));
    for (name, more) in [
        (
            "usp.png",
            &["--ulysses-degree", "2", "--ring_degree", "2"][..],
        ),
        ("alone.png", &["--ring-degree", "3", "--no-parallel-vae"]),
    ] {
        let (shared, json) = draw(name, more);
        // f32 sums in another order: a difference of 2e-5 can only tip a rounding.
        let levels = whole.iter().zip(&shared).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(levels <= Some(1), "{name}: {levels:?} levels");
        let sent = json["ranks"]["communication"].as_array().unwrap();
        assert!(
            sent.iter().any(|entry| {
                entry["axis"] == "ring" && entry["bytes"].as_u64() > Some(0) && entry["rank"] == 1
            }),
            "{json}"
        );
        // A replay takes the ranks from the record, so that every byte is the same.
        let replay = run(folder.path(), ["replay", name]).succeeded();
        assert!(replay.stdout.contains("identical"), "{}", replay.stdout);
    }
}

#[test]
fn replicas_write_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let words = |more: &[&'static str]| {
        let all = ["--num-images-per-prompt", "3", "--no-metadata"];
        small(PROMPT, &[&all, more].concat())
    };
    run(folder.path(), words(&["--output", "one/"])).succeeded();
    let two = ["--output", "two/", "--data-parallel-degree", "2"];
    run(folder.path(), words(&two)).succeeded();
    for index in 0..3 {
        let file = |at: &str| {
            fs::read(
                folder
                    .path()
                    .join(at)
                    .join(format!("xdit-42_{index:03}.png")),
            )
        };
        assert!(
            file("one").unwrap() == file("two").unwrap(),
            "image {index}"
        );
    }
}

#[test]
fn a_trace_shows_what_ranks_say_to_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let words = small(PROMPT, &["--ulysses-degree", "2", "--trace", "trace.json"]);
    run(folder.path(), words).succeeded();
    let trace = fs::read(folder.path().join("trace.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_slice(&trace).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    assert!(
        events.iter().any(|event| {
            event["name"] == "collective"
                && event["args"]["op"] == "all_to_all"
                && event["args"]["axis"] == "ulysses"
                && event["args"]["bytes"].as_u64() > Some(0)
        }),
        "no all_to_all in the trace"
    );
}

#[test]
fn plans_that_cannot_be_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    for (more, told) in [
        (
            &["--ulysses-degree", "0"][..],
            "--ulysses-degree 0: must be at least 1",
        ),
        (&["--ring-degree", "100000"], "at most 1024 ranks"),
        (&["--data-parallel-degree", "-1"], "--data-parallel-degree"),
        (&["--rank-timeout", "0"], "--rank-timeout"),
    ] {
        let outcome = run(folder.path(), small(PROMPT, more));
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(told), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
    let shown = run(
        folder.path(),
        small(PROMPT, &["--data-parallel-degree", "2", "--dump", "d"]),
    );
    assert_eq!(shown.code, Some(2));
    assert!(
        shown.stderr.contains("--data-parallel-degree 2"),
        "{shown:?}"
    );
}

#[test]
fn low_memory_changes_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    for (name, more) in [("a.png", &[][..]), ("b.png", &["--low-memory"])] {
        let words = small(
            PROMPT,
            &[&["--no-metadata", "--output", name], more].concat(),
        );
        run(folder.path(), words).succeeded();
    }
    let file = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(file("a.png") == file("b.png"));
}

#[test]
fn tiles_are_near_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |name: &str, more: &[&str]| {
        let words =
            "generate --prompt circle --height 320 --width 272 --num-inference-steps 2 --output";
        let words = words.split_whitespace().chain([name]);
        run(folder.path(), words.chain(more.iter().copied())).succeeded();
        pixels(&folder.path().join(name)).2
    };
    let (whole, tiled) = (draw("whole.png", &[]), draw("tiled.png", &["--vae-tiling"]));
    assert!(whole != tiled, "320 rows are more than a tile of 256");
    let squares: f64 = whole
        .iter()
        .zip(&tiled)
        .map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2))
        .sum();
    // Tiles lack each other's statistics: a tenth of the range is the same picture with other shades.
    let deviation = (squares / whole.len() as f64).sqrt();
    assert!(deviation <= 25.5, "{deviation:.1} of 255");
    let replay = run(folder.path(), ["replay", "tiled.png"]).succeeded();
    assert!(replay.stdout.contains("identical"), "{replay:?}");
    // Row bands are exact, and win over tiles.
    let bands = draw("bands.png", &["--vae-tiling", "--ulysses-degree", "2"]);
    let levels = whole.iter().zip(&bands).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(levels <= Some(1), "{levels:?} levels");
}

#[test]
fn an_order_of_axes_is_shown_and_recorded_and_changes_no_pixel() {
    let folder = tempfile::tempdir().unwrap();
    let ranks = ["--ulysses-degree", "2", "--ring-degree", "2"];
    let turned = ["--mesh-order", "data,cfg,pipe,ulysses,ring"];
    let draw = |name: &str, order: &[&str]| {
        let words = [&["--output", name, "--json"], &ranks[..], order].concat();
        let json = run(folder.path(), small(PROMPT, &words)).succeeded().json();
        let order = json["ranks"]["mesh_order"].as_str().unwrap().to_owned();
        (pixels(&folder.path().join(name)).2, order)
    };
    let (usual, order) = draw("usual.png", &[]);
    assert_eq!(order, "data,cfg,pipe,ring,ulysses");
    let (same, order) = draw("turned.png", &turned);
    assert_eq!(order, turned[1]);
    assert!(same == usual);
    let replay = run(folder.path(), ["replay", "turned.png", "--json"]).succeeded();
    assert_eq!(replay.json()["ranks"]["mesh_order"], turned[1]);
    let words = [&["plan", "--prompt", "a"], &ranks[..], &turned].concat();
    let plan = run(folder.path(), words).succeeded().stdout;
    assert!(plan.contains("\n4 ranks: ulysses 2 × ring 2\n"), "{plan}");
    assert!(plan.contains("\nrank  ulysses  ring  "), "{plan}");
}
