//! SIGINT, SIGTERM and SIGHUP in the middle of a run.
#![cfg(unix)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{command, names};

fn interrupt(signal: &str, code: i32, more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    // Many steps: it cannot be over before the signal comes.
    let words = [
        "generate",
        "--prompt",
        "a",
        "--num-inference-steps",
        "1000",
        "--trace",
        "trace.json",
        "--dump",
        "dump",
    ];
    let mut child = command()
        .args(words)
        .args(more)
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let latents = folder.path().join("dump");
    let began = Instant::now();
    while !latents.is_dir() || names(&latents).len() < 3 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "the run does not begin"
        );
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run is over already"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    let killed = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(code));
    assert_eq!(
        names(folder.path()),
        ["dump", "trace.json"],
        "only whole files stay"
    );
    for name in names(&latents) {
        let bytes = std::fs::read(latents.join(&name)).unwrap();
        assert!(
            safetensors::SafeTensors::deserialize(&bytes).is_ok(),
            "{name} is not whole"
        );
    }
    let trace = std::fs::read(folder.path().join("trace.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_slice(&trace).unwrap();
    assert!(trace["traceEvents"].as_array().unwrap().len() > 1);
}

#[test]
fn interrupted() {
    interrupt("-INT", 130, &[]);
}

#[test]
fn terminated() {
    interrupt("-TERM", 143, &[]);
}

#[cfg(target_os = "linux")]
#[test]
fn hung_up() {
    // Under `nohup` a child would ignore it too; a signal that is handled here is a child's to begin with.
    let handled = std::sync::Arc::default();
    signal_hook::flag::register(signal_hook::consts::SIGHUP, handled).unwrap();
    interrupt("-HUP", 129, &[]);
}

#[test]
fn interrupted_on_several_ranks() {
    interrupt("-INT", 130, &["--ulysses-degree", "2", "--ring-degree=2"]);
}

/// A run that is waited for, and what it has told.
struct Running {
    child: std::process::Child,
    folder: tempfile::TempDir,
}

impl Running {
    fn start(words: &str, lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("lines"), lines).unwrap();
        std::fs::create_dir(folder.path().join("out")).unwrap();
        let child = command()
            .args(words.split_whitespace())
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    /// Waits until there is such a file, and so many in its folder.
    fn wait_for(&mut self, folder: &str, name: &str, count: usize) {
        let folder = self.folder.path().join(folder);
        let began = Instant::now();
        let there = || folder.join(name).exists() && names(&folder).len() >= count;
        while !there() {
            assert!(began.elapsed() < Duration::from_secs(120), "no {name}");
            assert!(self.child.try_wait().unwrap().is_none(), "over already");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn ended_by(self, signal: &str) -> crate::program::Outcome {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args([signal, &pid]).status();
        assert!(killed.unwrap().success());
        crate::program::outcome(self.child.wait_with_output())
    }
}

/// The step in `WHAT at step N of TOTAL`.
fn step(message: &str, what: &str, total: usize) -> usize {
    let words: Vec<&str> = message.split(' ').collect();
    let [head @ .., "at", "step", step, "of", of] = &words[..] else {
        panic!("{message}");
    };
    assert_eq!(
        (head.join(" ").as_str(), *of),
        (what, total.to_string().as_str())
    );
    step.parse().unwrap()
}

#[test]
fn says_at_which_step() {
    let words = "generate --prompt a --num-inference-steps 1000 --dump dump --json";
    let mut run = Running::start(words, "");
    run.wait_for("dump", "step.2.latents.safetensors", 1);
    let told = run.ended_by("-INT");
    let error = told.json()["error"].clone();
    assert_eq!(error["exit_code"], 130);
    let message = error["message"].as_str().unwrap();
    assert!(step(message, "interrupted", 1000) > 1, "{message}");
    let last = told.stderr.lines().last().unwrap();
    assert_eq!(last, format!("error: {message}"), "{told:?}");
}

#[test]
fn a_prompt_file_ends_with_its_totals() {
    let lines = "{\"prompt\": \"a\", \"num_inference_steps\": 1}\n{\"seed\": 1}\n\
                 {\"prompt\": \"a\", \"num_inference_steps\": 1000}\na\n";
    let words = "generate --prompt-file lines --num-inference-steps 2 --output out/a.png";
    for json in [false, true] {
        let flags = if json { " --json" } else { "" };
        let words = words.to_owned() + flags;
        let mut run = Running::start(&words, lines);
        run.wait_for("out", "a-00001.png", 1);
        let told = run.ended_by("-TERM");
        assert_eq!(told.code, Some(143));
        let last = told.stdout.lines().last().unwrap();
        let stderr = told.stderr.lines().last().unwrap();
        let message = stderr.strip_prefix("error: ").unwrap();
        step(message, "terminated", 1003);
        match json {
            false => assert!(
                last.starts_with("1 file, 1 line failed, 2 lines not drawn, total "),
                "{told:?}"
            ),
            true => {
                let last: serde_json::Value = serde_json::from_str(last).unwrap();
                for (name, count) in [("files", 1), ("failed", 1), ("lines", 4), ("finished", 2)] {
                    assert_eq!(last[name], count, "{name}");
                }
                assert_eq!(last["error"]["message"], message);
                assert_eq!(last["error"]["exit_code"], 143);
            }
        }
    }
}

/// Where standard error is no terminal, lines tell how far a long run is.
#[test]
fn a_log_tells_how_far_a_long_run_is() {
    use std::io::{BufRead, BufReader};
    let words = "generate --prompt a --num-inference-steps 5000";
    let mut run = Running::start(words, "");
    let quiet = Running::start(&format!("{words} --quiet"), "");
    let mut stderr = BufReader::new(run.child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let line = line.trim_end();
    assert!(
        line.starts_with("denoise: ") && line.contains(" of 5000, 0:"),
        "{line}"
    );
    assert!(line.ends_with(" left"), "{line}");
    let told = quiet.ended_by("-INT");
    assert_eq!(told.stderr.lines().count(), 1, "{told:?}");
    run.ended_by("-INT");
}
