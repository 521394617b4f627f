//! Bad input: one line that names the file or flag, a documented exit code, no panic, no file left behind.

use std::fs;

use crate::broken_model::{BROKEN_MODELS, copy};
use crate::hostile::plain;
use crate::program::{Outcome, names, run, small};

/// Checks what every failure has in common.
#[track_caller]
pub(crate) fn refused(outcome: &Outcome, code: i32, word: &str) {
    let lines: Vec<&str> = outcome
        .stderr
        .lines()
        .filter(|line| !line.starts_with("warning: "))
        .collect();
    assert_eq!(lines.len(), 1, "one line, expecting {word:?}: {outcome:?}");
    assert!(lines[0].starts_with("error: "), "{outcome:?}");
    assert!(lines[0].contains(word), "{word:?} is not said: {outcome:?}");
    assert!(lines[0].len() < 600, "{} bytes of message", lines[0].len());
    plain(outcome);
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert_eq!(outcome.stdout, "", "{word}");
}

/// As [`refused`], for a prompt file, which ends with its totals.
#[track_caller]
pub(crate) fn refused_with_totals(outcome: Outcome, code: i32, word: &str) {
    assert!(outcome.stdout.starts_with("0 files, "), "{outcome:?}");
    let stdout = String::new();
    refused(&Outcome { stdout, ..outcome }, code, word);
}

#[test]
fn broken_models() {
    for (row, (file, damage, word)) in BROKEN_MODELS.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        copy(&model);
        damage.apply(&model.join(file));
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        let outcome = run(
            &out,
            small(
                "a red circle",
                &["--model", "../model", "--output", "a.png"],
            ),
        );
        println!("{row}: {}", outcome.stderr.trim_end());
        refused(&outcome, 4, word);
        assert_eq!(names(&out), [""; 0], "row {row}, {word}");
    }
}

#[test]
fn the_copy_itself_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    copy(&folder.path().join("model"));
    run(
        folder.path(),
        small("a red circle", &["--model", "model", "--output", "a.png"]),
    )
    .succeeded();
}

#[test]
fn models_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    let cases = [
        ("no/such/folder", "no/such/folder"),
        ("./nowhere", "./nowhere"),
        ("nowhere", "nowhere"),
        ("file", "file"),
        ("organisation/name", "organisation/name"),
    ];
    for (model, word) in cases {
        refused(
            &run(folder.path(), small("a", &["--model", model])),
            3,
            word,
        );
        refused(&run(folder.path(), ["info", model]), 3, word);
    }
    assert_eq!(names(folder.path()), ["file"]);
}

#[test]
fn flags() {
    let long = "word ".repeat((64 << 10) / 5 + 1);
    let cases: &[(&[&str], &str)] = &[
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--no_such_flag", "3"], "--no_such_flag"),
        (&["--widht", "64"], "--width"),
        (&["--dtype", "f8"], "--dtype"),
        (&["--dtype", ""], "--dtype"),
        (&["--device", "gpu"], "--device"),
        (&["--device", "cuda:4000000"], "--device cuda:4000000: "),
        (&["--threads", "0"], "--threads"),
        (&["--threads", "many"], "--threads"),
        (&["--seed", "1.5"], "--seed"),
        (&["--seed", "18446744073709551616"], "--seed"),
        (&["--seed", "1", "2"], "--seed"),
        (&["--guidance-scale", "inf"], "--guidance-scale"),
        (&["--output-type", "jpeg"], "--output-type"),
        (&["--output", "a.jpg"], "a.png"),
        (&["--model", ""], "--model"),
        (&["--revision", "main"], "--revision"),
        (&["--prompt-2", "a", "b"], "--prompt-2"),
        (&["--negative-prompt", "a", "b"], "--negative-prompt"),
        (&["--num-images-per-prompt", "0"], "--num-images-per-prompt"),
        (&["--max-sequence-length", "0"], "--max-sequence-length"),
        (
            &["--max-sequence-length", "1000000"],
            "--max-sequence-length",
        ),
        (&["--prompt", &long], "--prompt"),
        (&["--prompt-2", &long], "65536"),
        (&["--negative-prompt", &long], "--negative-prompt"),
        (&["--negative-prompt-2", &long], "--negative-prompt-2"),
        (&["stray"], "stray"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (flags, word) in cases {
        let words = ["generate", "--prompt", "a", "--num-inference-steps=1"];
        // `--prompt` takes all that follows: the stray word comes before it.
        let words = match flags {
            ["stray"] => vec!["generate", "stray", "--prompt", "a"],
            _ => words.iter().chain(*flags).copied().collect(),
        };
        refused(&run(folder.path(), words), 2, word);
    }
    for (words, word) in [
        (vec![], "generate"),
        (vec!["generate"], "--prompt"),
        (vec!["generate", "--prompt"], "--prompt"),
        (vec!["paint"], "paint"),
        (vec!["replay"], "IMAGE"),
    ] {
        refused(&run(folder.path(), words), 2, word);
    }
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn sizes() {
    let folder = tempfile::tempdir().unwrap();
    let size = |height: &'static str, width: &'static str| {
        let words = [
            "generate",
            "--prompt",
            "a",
            "--num-inference-steps",
            "1",
            "--height",
            height,
            "--width",
            width,
        ];
        run(folder.path(), words)
    };
    refused(&size("0", "64"), 2, "--height");
    refused(&size("64", "0"), 2, "--width");
    refused(&size("-16", "64"), 2, "--height");
    refused(&size("64", "-1.5"), 2, "--width");
    refused(&size("1000000", "1000000"), 2, "--height");
    refused(&size("32768", "32768"), 5, "out of memory");
    refused(&size("18446744073709551615", "64"), 2, "--height");
    refused(&size("64", "1000000000000000"), 2, "--width");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn places_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(folder.path().join("file"), b"").unwrap();
    fs::create_dir(folder.path().join("folder.png")).unwrap();
    // The model does not exist: that the output is named shows that it is checked before the model.
    let generate = |flag: &str, place: &str, more: &[&str]| {
        let words = [
            "generate",
            "--prompt",
            "a",
            "b",
            "--model",
            "/no/such/model",
            flag,
            place,
        ];
        run(folder.path(), words.iter().chain(more))
    };
    for place in [
        path("no/such/a.png"),
        path("file/a.png"),
        path("file/"),
        "/proc/a.png".into(),
        "/dev/null".into(),
    ] {
        refused(
            &generate("--output", &place, &[]),
            1,
            place.trim_end_matches("a.png"),
        );
    }
    fs::create_dir(folder.path().join("x_001.png")).unwrap();
    refused(&generate("--output", &path("x.png"), &[]), 1, "x_001.png");
    refused(&generate("--dump", &path("file"), &[]), 1, "file");
    refused(
        &generate("--trace", &path("no/such/trace.json"), &[]),
        1,
        "trace.json",
    );
    assert_eq!(names(folder.path()), ["file", "folder.png", "x_001.png"]);
}

/// Sizes that the model cannot draw are found in its configurations: the weights here cannot be read.
#[test]
fn refused_before_weights_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&model);
    for weights in ["transformer", "vae"] {
        let file = format!("{weights}/diffusion_pytorch_model.safetensors");
        fs::write(model.join(file), b"no weights").unwrap();
    }
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["--height", "8"], 2, "--height"),
        (&["--width", "15"], 2, "--width"),
        (&["--height", "0"], 2, "--height"),
        (&["--width", "1000000"], 2, "--width"),
        (
            &["--num-inference-steps", "1000000"],
            2,
            "--num-inference-steps",
        ),
        (
            &["--max-sequence-length", "513"],
            2,
            "--max-sequence-length",
        ),
        (
            &["--height", "32768", "--width", "32768"],
            5,
            "out of memory",
        ),
    ];
    let generate = |more: &[&str]| {
        let words = ["generate", "--prompt", "a", "--model", "../model"];
        run(&out, words.iter().chain(more))
    };
    for (flags, code, word) in cases {
        refused(&generate(flags), code, word);
    }
    refused(&generate(&["--height", "64"]), 4, "transformer");
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn odd_prompts_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = [
        "--negative-prompt",
        "",
        "--true-cfg-scale",
        "2",
        "--output",
        "not.png",
    ];
    run(folder.path(), small("a", &nothing)).succeeded();
    // Just below the limit.
    let long = "wörd ❤ ".repeat(6_500);
    let mut words = small(&long, &["--output", "long.png"]);
    words.insert(2, &long);
    let outcome = run(folder.path(), words).succeeded();
    assert!(
        outcome.stderr.contains("warning: "),
        "nothing is said about what was cut: {outcome:?}"
    );
    assert!(
        outcome.stderr.lines().all(|line| line.len() < 600),
        "the prompt is in the message"
    );
    assert_eq!(
        names(folder.path()),
        ["long_000.png", "long_001.png", "not.png"]
    );
}

#[cfg(unix)]
#[test]
fn words_that_are_not_utf_8() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let word = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    refused(
        &run(
            folder.path(),
            ["generate".as_ref(), "--prompt".as_ref(), word],
        ),
        2,
        "UTF-8",
    );
}

#[test]
fn failures_as_json() {
    let folder = tempfile::tempdir().unwrap();
    // The last two are found before the flags are known.
    for (word, value, code) in [
        ("--model", "./nowhere", 3),
        ("--height", "0", 2),
        ("--height", "tall", 2),
        ("--no-such-flag", "1", 2),
    ] {
        let words = ["generate", "--prompt", "a", "--json", word, value];
        let outcome = run(folder.path(), words);
        assert_eq!(outcome.code, Some(code));
        let error = &outcome.json()["error"];
        assert_eq!(error["exit_code"], code);
        assert!(outcome.stderr.contains(error["message"].as_str().unwrap()));
    }
}
