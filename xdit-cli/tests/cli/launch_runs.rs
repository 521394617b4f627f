//! `launch` of this program: signals, no orphans, and `doctor` on several ranks.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::launch::{runs, signal, wait_until};
use crate::program::{command, outcome};

/// The processes that this one has started.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let parent = format!("\nPPid:\t{pid}\n");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status"));
        status.is_ok_and(|text| text.contains(&parent))
    })
    .collect()
}

/// `launch` of a run of two processes that takes minutes, with both processes at work.
fn long_run(folder: &Path) -> (Child, Vec<u32>) {
    let words =
        "launch --nproc 2 -- generate --prompt a --num-inference-steps 20000 --ulysses-degree 2";
    let mut child = command()
        .args(words.split_whitespace())
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.as_mut().unwrap());
    let at_work = |line: std::io::Result<String>| line.unwrap().starts_with("denoise: ");
    assert!(stderr.lines().any(at_work), "no step");
    let ranks = children(child.id());
    assert_eq!(ranks.len(), 2);
    (child, ranks)
}

#[test]
fn interrupted_it_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let (child, ranks) = long_run(folder.path());
    signal("-INT", child.id());
    let told = outcome(child.wait_with_output());
    assert_eq!(told.code, Some(130), "{told:?}");
    assert!(
        told.stderr.contains("error: interrupted at step "),
        "{told:?}"
    );
    assert!(!ranks.iter().any(|pid| runs(*pid)));
}

/// A signal often comes twice, as from `timeout`, which tells its child and then its group.
#[test]
fn terminated_twice_at_once_it_ends_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (child, ranks) = long_run(folder.path());
    signal("-TERM", child.id());
    signal("-TERM", child.id());
    let told = outcome(child.wait_with_output());
    assert_eq!(told.code, Some(143), "{told:?}");
    assert!(
        told.stderr.starts_with("error: terminated") && !told.stderr.contains("killed"),
        "{told:?}"
    );
    assert!(!ranks.iter().any(|pid| runs(*pid)));
}

/// The ranks come together, and rank 0 alone tells how fast they are.
#[test]
fn doctor_measures_the_links_of_ranks() {
    let launch = |flags: &[&str]| {
        let mut launch = command();
        launch
            .env("XDIT_RENDEZVOUS_PORT", "1")
            .args(["launch", "--nproc", "3", "--", "doctor", "--device", "cpu"])
            .args(flags);
        outcome(launch.output()).succeeded()
    };
    let told = launch(&[]);
    assert_eq!(told.stderr, "");
    let lines: Vec<&str> = told.stdout.lines().collect();
    assert!(lines.len() <= 24, "{}", told.stdout);
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{}",
        told.stdout
    );
    let head = lines
        .iter()
        .position(|line| line.starts_with("messages between 3 ranks on 1 host"));
    let table = &lines[head.unwrap() + 1..];
    assert!(table[0].contains("on one host") && table[0].contains("all to all"));
    assert!(!table[0].contains("between hosts"), "{}", told.stdout);
    assert_eq!(table.len(), 5, "{}", told.stdout);
    let json = launch(&["--json"]).json();
    assert_eq!(json["checks"]["launch"]["data"]["world_size"], 3);
    assert_eq!(
        json["checks"]["launch"]["data"]["launcher"],
        "xdit-cli launch"
    );
    let links = json["links"]["send_recv"].as_array().unwrap();
    assert_eq!(links.len(), 3);
    let all_to_all = &json["links"]["all_to_all"];
    for times in links.iter().chain([all_to_all]) {
        let times = times["seconds"].as_array().unwrap();
        assert_eq!(
            times.len(),
            json["links"]["sizes"].as_array().unwrap().len()
        );
        assert!(
            times.iter().all(|time| time.as_f64().unwrap() > 0.0),
            "{json}"
        );
    }
}

#[test]
fn doctor_says_what_is_wrong_with_a_launch() {
    for json in [false, true] {
        let mut program = command();
        program.env("RANK", "1").arg("doctor");
        if json {
            program.arg("--json");
        }
        let told = outcome(program.output());
        assert_eq!(told.code, Some(2), "{told:?}");
        let launch = match json {
            true => told.json()["checks"]["launch"]["found"].to_string(),
            false => told.stdout,
        };
        assert!(launch.contains("WORLD_SIZE"), "{launch}");
    }
}

#[test]
fn killed_it_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, ranks) = long_run(folder.path());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("an end of the ranks", || {
        !ranks.iter().any(|pid| runs(*pid))
    });
    assert_eq!(crate::program::names(folder.path()), [""; 0]);
}
