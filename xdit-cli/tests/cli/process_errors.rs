//! `xdit-cli` over ranks that are processes: what happens if one of them is wrong, missing or gone.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::job::{Job, outcomes, run_on};
use crate::program::{Outcome, demo, names, small};

const PROMPT: &str = "a red circle on a blue background";

#[track_caller]
fn one_line(outcome: &Outcome, code: i32, told: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    for part in told {
        assert!(outcome.stderr.contains(part), "{part}: {outcome:?}");
    }
    let errors = outcome
        .stderr
        .lines()
        .filter(|line| line.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{outcome:?}");
}

#[test]
fn degrees_that_do_not_fit_are_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "--ulysses-degree",
        "3",
        "--output",
        "new/a.png",
        "--trace",
        "t.json",
    ];
    let outcome = run_on(4, folder.path(), &small(PROMPT, &flags));
    let told =
        "RANK and WORLD_SIZE has started 4 ranks: data 1 × cfg 1 × pipe 1 × ring 1 × ulysses 3 = 3";
    one_line(
        &outcome,
        2,
        &[told, "the nearest plan for 4 ranks is", "ulysses 4"],
    );
    // No degrees at all are no guess.
    one_line(
        &run_on(2, folder.path(), &small(PROMPT, &[])),
        2,
        &["ulysses 2"],
    );
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_place_that_rank_0_cannot_write_ends_all_before_the_model_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--ulysses-degree", "2", "--output", "no/such/a.png"];
    let outcome = run_on(2, folder.path(), &small(PROMPT, &flags));
    one_line(&outcome, 1, &["no/such/a.png: cannot be written"]);
}

#[test]
fn a_rank_with_another_request_ends_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let job = Job::new(2);
    let words = |seed: &'static str| small(PROMPT, &["--ulysses-degree", "2", "--seed", seed]);
    let start = |rank, seed| {
        job.command(rank, folder.path(), words(seed))
            .spawn()
            .unwrap()
    };
    let all = outcomes(vec![start(0, "1"), start(1, "2")]);
    one_line(
        &all[0],
        6,
        &[
            "refuses rank 1",
            "its plan is",
            "\"seed\":[2]",
            "\"seed\":[1]",
        ],
    );
    assert_eq!((all[1].code, all[1].stderr.as_str()), (Some(6), ""));
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_stranger_is_turned_away_and_a_missing_rank_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let job = Job::new(3);
    let words = small(PROMPT, &["--ulysses-degree", "3", "--rank-timeout", "2"]);
    let command = |rank| job.command(rank, folder.path(), &words);
    let stranger = command(2).env("XDIT_JOB_SECRET", "of another job").spawn();
    let all = [command(0).spawn(), command(1).spawn(), stranger];
    let all = outcomes(all.into_iter().map(|child| child.unwrap()).collect());
    one_line(
        &all[0],
        6,
        &[
            "rank 2 has not come within 2.0 s, of 3 ranks",
            "another job secret",
        ],
    );
    assert_eq!((all[1].code, all[1].stderr.as_str()), (Some(6), ""));
    // Rank 0 does not speak for it.
    one_line(
        &all[2],
        6,
        &["error: rank 2: rank 0 (", "another job secret"],
    );
    assert!(!all[2].stderr.contains("of another job\n"), "{all:?}");
}

/// Before it has seen another rank.
#[test]
fn a_rank_that_fails_alone_is_told_by_rank_0_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let job = Job::new(3);
    let words = small(PROMPT, &["--ulysses-degree", "3", "--rank-timeout", "3600"]);
    let command = |rank| job.command(rank, folder.path(), &words);
    let broken = command(2).env("XDIT_CONTROL", "/no/such/pipe").spawn();
    let all = [command(0).spawn(), command(1).spawn(), broken];
    let all = outcomes(all.into_iter().map(|child| child.unwrap()).collect());
    one_line(
        &all[0],
        6,
        &["error: rank 2 (", "XDIT_CONTROL=/no/such/pipe: "],
    );
    assert_eq!((all[1].code, all[1].stderr.as_str()), (Some(6), ""));
    assert_eq!((all[2].code, all[2].stderr.as_str()), (Some(2), ""));
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_busy_port_names_what_chooses_another() {
    let folder = tempfile::tempdir().unwrap();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    let job = Job::new(2);
    for flag in [&[][..], &["--rendezvous-port", &port]] {
        let words = small(PROMPT, &[&["--ulysses-degree", "2"], flag].concat());
        let mut command = job.command(0, folder.path(), &words);
        if flag.is_empty() {
            command.env("MASTER_PORT", &port);
        }
        let all = outcomes(vec![command.spawn().unwrap()]);
        let listens = format!("rank 0 cannot listen on port {port}");
        one_line(&all[0], 6, &[&listens, "MASTER_PORT", "--rendezvous-port"]);
    }
}

#[test]
fn variables_that_cannot_be_are_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let job = Job::new(2);
    let mut half = job.command(0, folder.path(), small(PROMPT, &[]));
    half.env_remove("WORLD_SIZE");
    let all = outcomes(vec![half.spawn().unwrap()]);
    one_line(
        &all[0],
        2,
        &["RANK=0 is set, but WORLD_SIZE is not", "XDIT_LAUNCH=0"],
    );
    // The way out that it names.
    let mut alone = job.command(1, folder.path(), small(PROMPT, &["--output", "a.png"]));
    let all = outcomes(vec![alone.env("XDIT_LAUNCH", "0").spawn().unwrap()]);
    assert_eq!(all[0].code, Some(0), "{all:?}");
    assert_eq!(names(folder.path()), ["a.png"]);
}

/// Ranks that draw until they are ended. Their standard error is in files.
fn long(folder: &Path, ranks: usize, plan: &[&'static str]) -> Vec<Child> {
    let prompt = match plan.contains(&"--prompt-file") {
        true => &[][..],
        false => &["--prompt", "a"],
    };
    let words = [
        "--num-inference-steps",
        "4000",
        "-v",
        "--output",
        "out/a.png",
    ];
    let words = [&["generate"], prompt, &words, plan].concat();
    fs::create_dir(folder.join("out")).unwrap();
    let job = Job::new(ranks);
    let start = |rank| {
        let errors = File::create(folder.join(format!("errors.{rank}"))).unwrap();
        let mut command = job.command(rank, folder, &words);
        command.stderr(errors).spawn().unwrap()
    };
    let children = (0..ranks).map(start).collect();
    let began = Instant::now();
    // Rank 0 logs that it reads the weights, and draws soon.
    while !errors_of(folder, 0).contains("load model") {
        assert!(began.elapsed() < PATIENCE, "{}", errors_of(folder, 0));
        std::thread::sleep(Duration::from_millis(10));
    }
    children
}

fn errors_of(folder: &Path, rank: usize) -> String {
    fs::read_to_string(folder.join(format!("errors.{rank}"))).unwrap()
}

/// Longer than a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills a rank, and returns the exit codes of the others and the last lines of all.
fn kill(folder: &Path, mut children: Vec<Child>, lost: usize) -> Vec<(Option<i32>, String)> {
    children[lost].kill().unwrap();
    let killed = Instant::now();
    let ended = children.iter_mut().enumerate().map(|(rank, child)| {
        let code = child.wait().unwrap().code();
        assert!(killed.elapsed() < PATIENCE, "rank {rank}");
        let errors = errors_of(folder, rank);
        (code, errors.lines().last().unwrap_or_default().to_owned())
    });
    let ended = ended.collect();
    assert!(names(&folder.join("out")).is_empty(), "no part of a file");
    ended
}

#[test]
fn a_rank_that_is_killed_is_named_by_rank_0() {
    let folder = tempfile::tempdir().unwrap();
    let children = long(folder.path(), 3, &["--ring-degree", "3"]);
    let ended = kill(folder.path(), children, 2);
    assert_eq!([ended[0].0, ended[1].0], [Some(6); 2]);
    let told = "is lost: its process has ended, or its connection is broken";
    assert!(
        ended[0].1.starts_with("error: rank 2 (") && ended[0].1.ends_with(told),
        "{ended:?}"
    );
    assert_eq!(ended[1].1, "");
}

#[test]
fn a_signal_of_the_launcher_after_a_loss_does_not_hide_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut children = long(folder.path(), 3, &["--ring-degree", "3"]);
    let term = |child: &Child| {
        let pid = child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
    };
    // As mpirun does.
    children[2].kill().unwrap();
    children.iter().take(2).for_each(term);
    let code = children[0].wait().unwrap().code();
    let errors = errors_of(folder.path(), 0);
    let last = errors.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("error: rank 2 (") && last.contains("is lost"),
        "{errors}"
    );
    assert_eq!(code, Some(6));
    for child in &mut children {
        child.wait().unwrap();
    }
    // Without a loss, the signal is what is told.
    let folder = tempfile::tempdir().unwrap();
    let mut children = long(folder.path(), 2, &["--ring-degree", "2"]);
    children.iter().for_each(term);
    assert_eq!(children[0].wait().unwrap().code(), Some(143));
    assert!(errors_of(folder.path(), 0).contains("error: terminated"));
    children[1].wait().unwrap();
}

#[test]
fn a_lost_rank_0_is_named_by_all_others() {
    let folder = tempfile::tempdir().unwrap();
    let children = long(folder.path(), 3, &["--pipefusion-parallel-degree", "3"]);
    let ended = kill(folder.path(), children, 0);
    for rank in 1..3 {
        let (code, line) = &ended[rank];
        assert_eq!(*code, Some(6), "{ended:?}");
        let told = format!("error: rank {rank}: rank 0 (");
        assert!(
            line.starts_with(&told) && line.contains("is lost: "),
            "{ended:?}"
        );
    }
}

#[test]
fn a_prompt_file_tells_lost_ranks_too() {
    for (lost, others, told) in [(1, [0, 2], "error: rank 1 ("), (0, [1, 2], ": rank 0 (")] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("prompts"), "a\nb\n").unwrap();
        let plan = ["--ring-degree", "3", "--prompt-file", "prompts"];
        let children = long(folder.path(), 3, &plan);
        let ended = kill(folder.path(), children, lost);
        for rank in others {
            let (code, line) = &ended[rank];
            assert_eq!(*code, Some(6), "{ended:?}");
            let speaks = rank == 0 || lost == 0;
            assert_eq!(
                line.contains(told) && line.contains("is lost: "),
                speaks,
                "{ended:?}"
            );
        }
    }
}

#[test]
fn help_and_wrong_flags_are_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let help = run_on(2, folder.path(), &["generate", "-h"]);
    assert_eq!(help.code, Some(0), "{help:?}");
    assert!(help.stdout.starts_with("Draw images"), "{help:?}");
    let wrong = run_on(2, folder.path(), &["generate", "--no-such-flag"]);
    one_line(&wrong, 2, &["--no-such-flag"]);
}

#[test]
fn a_rank_without_its_files_is_named_and_all_end_alike() {
    let folder = tempfile::tempdir().unwrap();
    let model = |rank: usize| folder.path().join(format!("{rank}/model"));
    for rank in 0..2 {
        copy(&demo(), &model(rank));
    }
    let job = Job::new(2);
    let words = small(PROMPT, &["--ulysses-degree", "2", "--model", "./model"]);
    let run = || {
        let start = |rank: usize| {
            let folder = folder.path().join(rank.to_string());
            job.command(rank, &folder, &words).spawn().unwrap()
        };
        outcomes((0..2).map(start).collect())
    };
    let file = |name: &str| model(1).join(name);
    // Other weights than those of rank 0: the last byte differs.
    let weights = file("vae/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let all = run();
    one_line(&all[0], 4, &["error: rank 1 (", "are not those of rank 0"]);
    assert_eq!((all[1].code, all[1].stderr.as_str()), (Some(4), ""));
    fs::remove_file(file("model_index.json")).unwrap();
    let all = run();
    one_line(
        &all[0],
        all[1].code.unwrap(),
        &["error: rank 1 (", "model_index.json"],
    );
    assert_eq!(all[1].stderr, "");
    assert_eq!(names(&folder.path().join("0")), ["model"]);
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}
