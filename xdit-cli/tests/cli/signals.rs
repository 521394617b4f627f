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
