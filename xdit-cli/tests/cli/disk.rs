//! Full disks, files that may not grow, folders that disappear: exit code 1, one line, no file left behind.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bad_input::refused;
use crate::program::{Outcome, command, names, outcome, small};

/// Runs the program from a shell that has first done what `before` says.
fn after(before: &str, folder: &Path, words: &[&str]) -> Outcome {
    let program = command();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{before} exec \"$0\" \"$@\"")])
        .arg(program.get_program())
        .args(words)
        .env_clear()
        .env("RAYON_NUM_THREADS", "2")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir(folder);
    outcome(shell.output())
}

/// RLIMIT_FSIZE: its signal kills whoever does not expect it. A shell counts in blocks of 512 or 1024 bytes.
#[test]
fn files_that_may_not_grow() {
    for more in [
        &["--output", "a.png"][..],
        &["--output", "a.safetensors", "--output-type", "latent"],
        &["--output", "a.safetensors", "--output-type", "float"],
        &["--output", "a.png", "--dump", "dump"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let outcome = after("ulimit -f 1;", folder.path(), &small("a", more));
        refused(&outcome, 1, "ile too large");
        let left = names(folder.path());
        // What is small enough of a dump is whole, and stays.
        for name in left {
            assert_eq!(name, "dump", "{more:?}");
            for name in names(&folder.path().join(name)) {
                let bytes = fs::read(folder.path().join("dump").join(&name)).unwrap();
                assert!(
                    safetensors::SafeTensors::deserialize(&bytes).is_ok(),
                    "{name}"
                );
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let words = small("a", &["--output", "a.png", "--trace", "t.json", "--quiet"]);
    refused(
        &after("ulimit -f 64;", folder.path(), &words),
        1,
        "t.json: cannot be written: file too large",
    );
    assert_eq!(names(folder.path()), ["a.png"]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prompts.txt"), "a\nb\n").unwrap();
    let mut words = small("a", &["--output", "a.png"]);
    words.splice(1..3, ["--prompt-file", "prompts.txt"]);
    let ended = after("ulimit -f 1;", folder.path(), &words);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.ends_with("file too large\n"), "{ended:?}");
    let totals = "0 files, 0 lines failed, 2 lines not drawn, total ";
    assert!(ended.stdout.starts_with(totals), "{ended:?}");
    assert_eq!(names(folder.path()), ["prompts.txt"]);
}

#[test]
fn a_result_that_does_not_fit_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = after(
        "ulimit -f 1; exec >out;",
        folder.path(),
        &["plan", "--json"],
    );
    refused(&outcome, 1, "standard output");
}

#[test]
fn full_disks() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |size: &str| {
        format!("mkdir -p full && mount -t tmpfs -o size={size} none full && cd full &&")
    };
    let mounted = Command::new("unshare")
        .args(["-rm", "sh", "-c", &format!("{} true", mount("4k"))])
        .current_dir(folder.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("left out: nothing can be mounted here");
        return;
    }
    let program = command();
    let run = |size: &str, words: &[&str]| {
        // The names are listed while the disk is there.
        let line = format!(
            "{} {{ \"$0\" \"$@\"; code=$?; ls -A >../left; exit $code; }}",
            mount(size)
        );
        let mut shell = Command::new("unshare");
        shell
            .args(["-rm", "sh", "-c", &line])
            .arg(program.get_program())
            .args(words)
            .env("RAYON_NUM_THREADS", "2")
            .current_dir(folder.path());
        let outcome = outcome(shell.output());
        (
            outcome,
            fs::read_to_string(folder.path().join("left")).unwrap(),
        )
    };
    for more in [
        &["--output", "a.png"][..],
        &["--output", "a.safetensors", "--output-type", "float"],
    ] {
        let (outcome, left) = run("4k", &small("a", more));
        refused(&outcome, 1, "no space left");
        assert_eq!(left, "", "{more:?}");
    }
    // Room for the picture, not for the trace: whatever is freed later, a trace with a hole gets no name.
    let words = small(
        "a",
        &["--output", "../a.png", "--trace", "t.json", "--quiet"],
    );
    let (outcome, left) = run("16k", &words);
    refused(&outcome, 1, "t.json: cannot be written: no space left");
    assert_eq!(left, "");
}

#[test]
fn a_folder_that_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut words = small("a", &["--output", "out/", "--quiet"]);
    words.splice(1..3, ["--prompt-file", "-"]);
    let mut run = command();
    run.args(words)
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = run.spawn().unwrap();
    // More blank lines than a pipe holds: once they are written, the program reads, and the folder was looked at.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&[b'\n'; 200_000]).unwrap();
    fs::remove_dir(folder.path().join("out")).unwrap();
    stdin.write_all(b"a circle\n").unwrap();
    drop(stdin);
    refused(
        &outcome(child.wait_with_output()),
        1,
        "there is no folder out",
    );
    assert_eq!(names(folder.path()), [""; 0]);
}
