//! Ranks that are processes, of which some are lost: `--on-rank-loss replan` under `launch`.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;

use serde_json::Value;

use crate::generate::pixels;
use crate::job::run_on;
use crate::launch::{LIMIT, runs, signal};
use crate::program::{Outcome, command, names, outcome, run};
use crate::tracer::{Mark, Tracer, ranks, trace};

const STEPS: usize = 6;
const REPLAN: [&str; 2] = ["--on-rank-loss", "replan"];

/// The words of a run of six steps.
fn drawing<'a>(plan: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let words =
        "generate --prompt circle --height 64 --width 64 --num-inference-steps 6 --threads 1";
    words
        .split(' ')
        .chain(plan.iter().copied())
        .chain(more.iter().copied())
        .collect()
}

/// The pixels of a run on threads that loses nobody.
fn whole(folder: &Path, plan: &[&str]) -> Vec<u8> {
    run(folder, drawing(plan, &["--output", "whole.png"])).succeeded();
    pixels(&folder.join("whole.png")).2
}

/// By how much a value of the image is off at most.
fn most_off(file: &Path, whole: &[u8]) -> u8 {
    let image = pixels(file).2;
    assert_eq!(image.len(), whole.len());
    let off = image.iter().zip(whole).map(|(a, b)| a.abs_diff(*b));
    off.max().unwrap()
}

fn mean_off(image: &[u8], exact: &[u8]) -> f64 {
    assert_eq!(image.len(), exact.len());
    let off = image
        .iter()
        .zip(exact)
        .map(|(a, b)| u64::from(a.abs_diff(*b)));
    off.sum::<u64>() as f64 / exact.len() as f64
}

/// `launch` of so many ranks, whose first tells each step.
fn launch(folder: &Path, flags: &[&str], words: &[&str]) -> Child {
    command()
        .arg("launch")
        .args(flags)
        .arg("--")
        .args(words)
        .args(REPLAN)
        .arg("-vv")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What comes of it. If it does not end in time, it is killed and the test fails.
fn ended(child: Child) -> Outcome {
    let pid = child.id();
    let (say, left) = mpsc::channel();
    std::thread::spawn(move || say.send(child.wait_with_output()).ok());
    let Ok(output) = left.recv_timeout(LIMIT) else {
        signal("-KILL", pid);
        panic!("launch does not end within {LIMIT:?}");
    };
    outcome(output)
}

/// When the first rank begins its step of this index: it has just told that it finished the one before, or that it draws.
fn mark(step: usize) -> String {
    match step {
        0 => " generate ".to_owned(),
        step => format!("step step={step} of={STEPS}"),
    }
}

/// What comes of a run that loses the rank `lost` by this signal at the beginning of each of these steps.
fn losing(
    folder: &Path,
    (flags, count): (&[&str], usize),
    words: &[&str],
    faults: &[(usize, usize, &'static str)],
) -> (Outcome, Vec<u32>) {
    let child = launch(folder, flags, words);
    let pids = ranks(child.id(), count);
    // The first that is left tells the steps.
    let (mut speaker, mut marks) = (0, BTreeMap::<usize, Vec<Mark>>::new());
    for (lost, step, how) in faults {
        let (pid, how) = (pids[*lost], *how);
        let act: Mark = (mark(*step), Box::new(move || signal(how, pid)));
        marks.entry(speaker).or_default().push(act);
        speaker += usize::from(*lost == speaker);
    }
    let tracers = trace(&pids, marks);
    let outcome = ended(child);
    let happened = tracers.iter().all(Tracer::happened);
    assert!(happened, "{faults:?}: {outcome:?}");
    for pid in &pids {
        assert!(!runs(*pid), "{pid} is left: {outcome:?}");
    }
    (outcome, pids)
}

fn parts(report: &Value) -> Vec<Value> {
    report["ranks"]["parts"].as_array().unwrap().clone()
}

/// Each step of a run loses a rank: the first, which prints and writes, and another one.
fn every_step(plan: &[&str], nproc: &str) {
    let folder = tempfile::tempdir().unwrap();
    let whole = whole(folder.path(), plan);
    let count = nproc.parse().unwrap();
    for step in 0..STEPS {
        for lost in [0, count - 1] {
            let words = drawing(plan, &["--json", "--output", "a.png"]);
            let flags = ["--nproc", nproc];
            let (outcome, _) = losing(
                folder.path(),
                (&flags, count),
                &words,
                &[(lost, step, "-KILL")],
            );
            let report = outcome.succeeded().json();
            let text = format!("{plan:?}, rank {lost} at {step}");
            assert_eq!(pixels(&folder.path().join("a.png")).2, whole, "{text}");
            fs::remove_file(folder.path().join("a.png")).unwrap();
            let lost_ranks = report["ranks"]["lost"].as_array().unwrap();
            let name = lost_ranks[0]["rank"].as_str().unwrap();
            assert!(
                name.starts_with(&format!("rank {lost} (host ")),
                "{text}: {name}"
            );
            // One that is lost before the first step begins belongs to no part.
            let parts = parts(&report);
            assert!(parts.len() == 2 || step == 0, "{text}: {}", report["ranks"]);
            // What the lost rank had sent of the last step may not have arrived; or it may have done its part of the next one.
            let last = parts.last().unwrap();
            let finished = last["first_step"].as_u64().unwrap() as usize;
            assert!(
                finished.abs_diff(step) <= 2 && finished <= step + 1,
                "{text}: {finished}"
            );
            let when = match finished {
                STEPS => format!("after step {STEPS} of {STEPS}: "),
                finished => format!("at step {} of {STEPS}: ", finished + 1),
            };
            let warnings = report["warnings"].to_string();
            assert!(
                warnings.contains(&format!(" was lost {when}")),
                "{text}: {warnings}"
            );
            assert!(
                warnings.contains("continuing with 1 rank"),
                "{text}: {warnings}"
            );
        }
    }
}

#[test]
fn a_rank_is_lost_at_every_step() {
    every_step(&["--ulysses-degree", "2"], "2");
}

#[test]
fn a_stage_is_lost_at_every_step() {
    every_step(
        &[
            "--pipefusion-parallel-degree",
            "2",
            "--num-pipeline-patch",
            "1",
        ],
        "2",
    );
}

/// Three of four ranks are lost one after another: each time the one that speaks.
#[test]
fn the_last_rank_finishes_alone() {
    let folder = tempfile::tempdir().unwrap();
    let plan = ["--ulysses-degree", "2", "--ring-degree", "2"];
    let whole = whole(folder.path(), &plan);
    let words = drawing(&plan, &["--output", "-"]);
    let faults = [(0, 1, "-KILL"), (1, 3, "-TERM"), (2, 5, "-KILL")];
    let mut child = launch(folder.path(), &["--nproc", "4"], &words);
    let pids = ranks(child.id(), 4);
    let marks = faults.map(|(rank, step, how)| {
        let pid = pids[rank];
        let act: Mark = (mark(step), Box::new(move || signal(how, pid)));
        (rank, vec![act])
    });
    let tracers = trace(&pids, marks);
    let mut image = Vec::new();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        stdout.read_to_end(&mut image).unwrap();
        image
    });
    let left = ended(child).succeeded();
    assert!(tracers.iter().all(Tracer::happened), "{left:?}");
    // The one that is left writes the image, and nothing else, to standard output.
    fs::write(folder.path().join("a.png"), reader.join().unwrap()).unwrap();
    // Sums around the ring have another order on each plan.
    assert!(most_off(&folder.path().join("a.png"), &whole) <= 1);
    let warnings: Vec<&str> = left
        .stderr
        .lines()
        .filter(|line| line.starts_with("warning: rank "))
        .collect();
    let told = [
        ("rank 0 (host ", "continuing with 3 ranks: "),
        ("rank 1 (host ", "continuing with 2 ranks: "),
        ("rank 2 (host ", "continuing with 1 rank"),
        // By a signal or, if the others have told it first, by `launch`.
        ("rank 0 was ", "the others have finished without it"),
        ("rank 1 ", "the others have finished without it"),
        ("rank 2 was ", "the others have finished without it"),
    ];
    assert_eq!(warnings.len(), told.len(), "{left:?}");
    for (line, (begin, end)) in warnings.iter().zip(told) {
        let line = line.strip_prefix("warning: ").unwrap();
        assert!(line.starts_with(begin) && line.contains(end), "{line}");
    }
    assert_eq!(names(folder.path()), ["a.png", "whole.png"]);
}

/// Nobody but the other ranks notices that a process is stopped.
#[test]
fn a_stopped_rank_is_lost_and_killed() {
    let folder = tempfile::tempdir().unwrap();
    let plan = ["--ulysses-degree", "3"];
    let whole = whole(folder.path(), &plan);
    for lost in [0, 1] {
        let words = drawing(&plan, &["--json", "--output", "a.png"]);
        let flags = (&["--nproc", "3"][..], 3);
        let (outcome, _) = losing(folder.path(), flags, &words, &[(lost, 2, "-STOP")]);
        let outcome = outcome.succeeded();
        let told = format!("warning: rank {lost} was lost and killed: no sign of life for ");
        assert!(outcome.stderr.contains(&told), "{outcome:?}");
        let report = outcome.json();
        assert_eq!(parts(&report).len(), 2);
        let processes = report["processes"].as_array().unwrap();
        let ranks = processes
            .iter()
            .map(|process| process["rank"].as_u64().unwrap() as usize);
        let left: Vec<usize> = (0..3).filter(|rank| *rank != lost).collect();
        assert_eq!(ranks.collect::<Vec<_>>(), left);
        assert_eq!(pixels(&folder.path().join("a.png")).2, whole);
    }
}

/// On hosts that a program in place of ssh reaches: this one, by two addresses.
#[test]
fn ranks_of_other_hosts_are_lost() {
    let folder = tempfile::tempdir().unwrap();
    let plan = ["--ulysses-degree", "2"];
    let whole = whole(folder.path(), &plan);
    let ssh = format!("{} -v", crate::launch::fake_ssh(folder.path()));
    // Both are this host, in forms that do not say so.
    let flags = ["--hosts", "0.0.0.0,127.1", "--nproc", "1", "--ssh", &ssh];
    for (lost, how) in [(0, "-KILL"), (1, "-STOP")] {
        let words = drawing(&plan, &["--json", "--output", "a.png"]);
        let (outcome, _) = losing(folder.path(), (&flags, 2), &words, &[(lost, 3, how)]);
        let outcome = outcome.succeeded();
        let host = ["0.0.0.0", "127.1"][lost];
        let told = format!("warning: rank {lost} (host {host}) was ");
        assert!(outcome.stderr.contains(&told), "{outcome:?}");
        assert!(!outcome.stderr.contains("to launch: "), "{outcome:?}");
        assert_eq!(parts(&outcome.json()).len(), 2);
        assert_eq!(pixels(&folder.path().join("a.png")).2, whole);
    }
    let log = fs::read_to_string(folder.path().join("ssh.log")).unwrap();
    assert!(log.contains(" 127.1 kill -KILL "), "{log}");
}

/// Each replica knows the steps of its own images.
#[test]
fn a_replica_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let plan = [
        "--data-parallel-degree",
        "2",
        "--num-images-per-prompt",
        "2",
    ];
    run(folder.path(), drawing(&plan, &["--output", "whole.png"])).succeeded();
    let words = drawing(&plan, &["--json", "--output", "a.png"]);
    let flags = (&["--nproc", "2"][..], 2);
    let (outcome, _) = losing(folder.path(), flags, &words, &[(1, 3, "-KILL")]);
    let report = outcome.succeeded().json();
    for image in ["_000.png", "_001.png"] {
        let [whole, now] =
            ["whole", "a"].map(|name| pixels(&folder.path().join(format!("{name}{image}"))).2);
        assert!(whole == now, "{image}");
    }
    // Nobody is left who knows the images of the lost replica.
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains(" was lost at step 1 of 6: "),
        "{warnings}"
    );
    assert_eq!(parts(&report)[1]["first_step"], 0);
}

/// With patches that run one after another, the first steps run whole again: more steps are exact than in a run that loses nobody, so
/// the image is not further from the exact one.
#[test]
fn a_stage_is_lost_while_patches_run() {
    let folder = tempfile::tempdir().unwrap();
    let plan = [
        "--pipefusion-parallel-degree",
        "2",
        "--num-pipeline-patch",
        "2",
    ];
    let whole = whole(folder.path(), &plan);
    let words = drawing(&plan, &["--output", "a.png"]);
    let flags = (&["--nproc", "2"][..], 2);
    let (outcome, _) = losing(folder.path(), flags, &words, &[(0, 4, "-KILL")]);
    outcome.succeeded();
    let image = pixels(&folder.path().join("a.png")).2;
    let exact = self::whole(folder.path(), &[]);
    let (off, whole_off) = (mean_off(&image, &exact), mean_off(&whole, &exact));
    assert!(
        off <= whole_off,
        "mean {off} with a loss, {whole_off} without"
    );
}

#[test]
fn what_cannot_go_on_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prompts"), "a\n").unwrap();
    let small = |more: &[&'static str]| {
        let words = [
            "generate",
            "--ulysses-degree",
            "2",
            "--on-rank-loss",
            "replan",
        ];
        [&words, more].concat()
    };
    let one_line = |outcome: Outcome, told: &str| {
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        assert!(outcome.stderr.contains(told), "{told}: {outcome:?}");
    };
    for (more, told) in [
        (&["--prompt-file", "prompts"][..], "--prompt-file"),
        (&["-p", "a", "--dump", "d"], "--dump: rank 0 alone"),
        (&["-p", "a", "--trace", "t.json"], "--trace: rank 0 alone"),
    ] {
        let mut launch = command();
        launch.args(["launch", "--"]).args(small(more));
        one_line(outcome(launch.current_dir(folder.path()).output()), told);
    }
    // Another launcher.
    let words = small(&["-p", "a"]);
    one_line(
        run_on(2, folder.path(), &words),
        "start them with xdit-cli launch",
    );
    assert_eq!(names(folder.path()), ["prompts"]);
}

/// It is not lost: another one would fail in the same way.
#[test]
fn a_rank_that_fails_by_itself_ends_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let words = drawing(&["--ulysses-degree", "2"], &["--output", "no/such/a.png"]);
    let child = launch(folder.path(), &["--nproc", "2"], &words);
    let outcome = ended(child);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.stderr.contains("no/such/a.png: cannot be written"),
        "{outcome:?}"
    );
}
