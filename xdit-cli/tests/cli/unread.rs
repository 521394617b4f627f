//! Signals while no process reads the output of the program: a full pipe, a stopped terminal.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{PipeReader, PipeWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::program::{command, names};

/// A pipe that is full. The reader must be kept: without one a write fails instead of waiting.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let (count, mut filling) = (written.clone(), writer.try_clone().unwrap());
    // It waits in its last write until the reader is gone.
    std::thread::spawn(move || {
        while filling.write_all(b"x").is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut before = usize::MAX;
    while before != written.load(Ordering::Relaxed) || before == 0 {
        before = written.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(100));
    }
    (reader, writer)
}

/// The state and the processor time of each thread of a process; empty when it is gone.
fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let fields = |stat: String| {
        let after = stat.rsplit(')').next()?.to_owned();
        let fields: Vec<&str> = after.split_whitespace().collect();
        Some([*fields.first()?, fields.get(11)?, fields.get(12)?].join(" "))
    };
    stats.filter_map(fields).collect()
}

/// Waits until no thread of the process runs or has run for half a second.
fn wait_until_blocked(pid: u32) {
    let began = Instant::now();
    let (mut before, mut quiet) = (Vec::new(), 0);
    while quiet < 10 {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "it is never blocked"
        );
        std::thread::sleep(Duration::from_millis(50));
        let now = threads(pid);
        assert!(!now.is_empty(), "the run is over already");
        let sleeps = now.iter().all(|thread| thread.starts_with('S'));
        quiet = if sleeps && now == before {
            quiet + 1
        } else {
            0
        };
        before = now;
    }
}

fn kill(signal: &str, pid: u32) {
    let killed = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
}

/// The exit code of a process that must end by itself now.
fn code_within(child: &mut Child, limit: Duration) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if began.elapsed() > limit {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Which of its outputs nobody reads.
#[derive(Clone, Copy, Debug)]
enum Unread {
    Stdout,
    Stderr,
}

/// Runs the program until it waits for a reader, and ends it by a signal. Returns the names of the files that are left.
fn ended(unread: Unread, words: &[&str], signal: &str, code: i32) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prompts.txt"), "a\nb\n").unwrap();
    let (reader, writer) = full_pipe();
    let mut run = command();
    run.args(words)
        .current_dir(folder.path())
        .stdin(Stdio::null());
    match unread {
        Unread::Stdout => run.stdout(writer).stderr(Stdio::null()),
        Unread::Stderr => run.stderr(writer).stdout(Stdio::null()),
    };
    let mut child = run.spawn().unwrap();
    wait_until_blocked(child.id());
    kill(signal, child.id());
    let found = code_within(&mut child, Duration::from_secs(10));
    assert_eq!(found, Some(code), "{unread:?} {words:?}");
    drop(reader);
    names(folder.path())
        .into_iter()
        .filter(|name| name != "prompts.txt")
        .collect()
}

const SMALL: [&str; 9] = [
    "generate",
    "--height",
    "64",
    "--width",
    "64",
    "--num-inference-steps",
    "2",
    "--output",
    "a.png",
];

fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SMALL.iter().copied().chain(more.iter().copied()).collect()
}

#[test]
fn log_lines() {
    // The trace is begun before the first line of the log, and whole whenever the run ends.
    let words = small(&["--prompt", "a", "-vv", "--trace", "trace.json"]);
    assert_eq!(ended(Unread::Stderr, &words, "-TERM", 143), ["trace.json"]);
    // A failure's line, too.
    let words = small(&["--prompt", "a", "--model", "nowhere"]);
    assert_eq!(ended(Unread::Stderr, &words, "-INT", 130), [""; 0]);
    let words = small(&["--prompt-file", "prompts.txt", "-v"]);
    assert_eq!(ended(Unread::Stderr, &words, "-HUP", 129), [""; 0]);
}

#[test]
fn results() {
    let words = small(&["--prompt", "a", "--json"]);
    assert_eq!(ended(Unread::Stdout, &words, "-TERM", 143), ["a.png"]);
    assert_eq!(ended(Unread::Stdout, &["plan"], "-INT", 130), [""; 0]);
    // The line of the first picture is not read: the second is not drawn.
    let words = small(&["--prompt-file", "prompts.txt", "--trace", "t"]);
    assert_eq!(
        ended(Unread::Stdout, &words, "-INT", 130),
        ["a-00001.png", "t"]
    );
}

#[cfg(feature = "hub")]
#[test]
fn a_hub_that_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let hub = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", hub.local_addr().unwrap());
    let mut run = command();
    run.args(["info", "organisation/name", "--trace", "t"])
        .env("HF_HUB_OFFLINE", "0")
        .env("HF_HOME", folder.path().join("cache"))
        .env("HF_ENDPOINT", address)
        .env("HF_HUB_ETAG_TIMEOUT", "100")
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = run.spawn().unwrap();
    let (_asked, _) = hub.accept().unwrap();
    kill("-TERM", child.id());
    let code = code_within(&mut child, Duration::from_secs(10));
    assert_eq!(code, Some(143));
    let left = names(folder.path());
    assert!(
        left.iter()
            .all(|name| ["cache", "t"].contains(&name.as_str())),
        "{left:?}"
    );
}

/// `script` gives the program a terminal and stops reading it once its own output is not read: as after Ctrl-S.
#[test]
fn bars_on_a_terminal() {
    if Command::new("script").arg("--version").output().is_err() {
        println!("left out: this machine has no script(1)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = command().get_program().to_owned();
    let line = format!(
        "'{}' generate --prompt a --num-inference-steps 1000 --trace t & echo $! > pid.part; mv pid.part pid; wait $!; \
         echo $? > code",
        Path::new(&program).display()
    );
    let (reader, writer) = full_pipe();
    let mut script = Command::new("script")
        .args(["-q", "-c", &line, "/dev/null"])
        .env("TERM", "xterm")
        .env("RAYON_NUM_THREADS", "2")
        .env("SHELL", "/bin/sh")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = |name: &str| {
        let began = Instant::now();
        loop {
            match fs::read_to_string(folder.path().join(name)) {
                Ok(text) if !text.trim().is_empty() => return text.trim().to_owned(),
                _ => assert!(began.elapsed() < Duration::from_secs(60), "no {name}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let pid = file("pid").parse().unwrap();
    wait_until_blocked(pid);
    kill("-TERM", pid);
    assert_eq!(file("code"), "143");
    script.kill().unwrap();
    script.wait().unwrap();
    drop(reader);
    let mut left = names(folder.path());
    left.retain(|name| !["code", "pid"].contains(&name.as_str()));
    assert_eq!(left, ["t"]);
}

/// Nobody has standard error open any more: what is told there is lost, and the picture is drawn.
#[test]
fn standard_error_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let words = small(&["--prompt", "a", "-vvv"]);
    let mut run = command();
    run.args(words)
        .current_dir(folder.path())
        .stdout(Stdio::null());
    assert_eq!(run.stderr(writer).status().unwrap().code(), Some(0));
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(run.stderr(full).status().unwrap().code(), Some(0));
    assert_eq!(names(folder.path()), ["a.png"]);
}

/// From the first instant on: what a signal meets is either no trace or a whole one.
#[test]
fn a_trace_that_has_just_begun() {
    for delay in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let mut run = command();
        run.args(["info", "--trace", "t"])
            .current_dir(folder.path());
        let mut child = run
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(delay * 250));
        kill("-TERM", child.id());
        child.wait().unwrap();
        match names(folder.path()).as_slice() {
            [] => {}
            [one] if one == "t" => {
                let trace = fs::read(folder.path().join("t")).unwrap();
                serde_json::from_slice::<serde_json::Value>(&trace).unwrap();
            }
            left => panic!("after {delay}: {left:?}"),
        }
    }
}

/// Signals that have no exit code here end the process too, and leave nothing.
#[test]
fn other_signals() {
    for signal in ["-QUIT", "-USR1", "-XCPU", "-ALRM"] {
        let folder = tempfile::tempdir().unwrap();
        let (reader, writer) = full_pipe();
        let mut run = command();
        run.args(small(&["--prompt", "a", "-vv", "--dump", "dump"]));
        run.current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(writer);
        let mut child = run.spawn().unwrap();
        wait_until_blocked(child.id());
        kill(signal, child.id());
        assert_eq!(
            code_within(&mut child, Duration::from_secs(10)),
            None,
            "{signal}"
        );
        drop(reader);
        let left: Vec<_> = names(folder.path())
            .into_iter()
            .filter(|n| !n.starts_with("core"))
            .collect();
        assert_eq!(left, [""; 0], "{signal}");
    }
}
