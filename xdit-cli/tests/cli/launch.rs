//! `launch` of scripts, which fail in ways in which this program does not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{Outcome, command, outcome};

/// No test waits longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A folder with a program for each rank to run: a shell script.
struct Script {
    folder: tempfile::TempDir,
    file: PathBuf,
}

impl Script {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = executable(folder.path(), "rank", text);
        Self { folder, file }
    }

    /// `launch` of the script, with these flags.
    fn launch(&self, flags: &[&str]) -> Command {
        let mut launch = command();
        launch
            .env("PATH", std::env::var_os("PATH").unwrap())
            .current_dir(self.folder.path())
            .args(["launch", "--program"])
            .arg(&self.file)
            .args(flags)
            .args(["--", "doctor", "--json"]);
        launch
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn wait_for(&self, name: &str) {
        wait_until(name, || self.folder.path().join(name).exists());
    }
}

fn executable(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).unwrap();
    file
}

#[track_caller]
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn variables(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .collect()
}

pub(crate) fn signal(name: &str, pid: u32) {
    let killed = Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(killed.unwrap().success(), "kill {name} {pid}");
}

/// Whether a process runs. One that has ended and was not waited for does not.
pub(crate) fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|text| !text.contains("\nState:\tZ"))
}

const TELL: &str = r#"
    for name in XDIT_LAUNCH RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT XDIT_JOB_SECRET \
        XDIT_RESTART XDIT_CONTROL
    do eval "echo $name=\$$name"; done > "told.$RANK"
    echo "$*" > "words.$RANK"
"#;

#[test]
fn each_process_knows_its_place() {
    let script = Script::new(&format!("{TELL} [ $RANK = 0 ] && cat || ! read line"));
    let mut launch = script.launch(&["--nproc", "3"]);
    let input = script.folder.path().join("input");
    fs::write(&input, "the input of rank 0\n").unwrap();
    let launch = launch.stdin(fs::File::open(input).unwrap());
    let told = outcome(launch.output()).succeeded();
    assert_eq!(
        (told.stdout.as_str(), told.stderr.as_str()),
        ("the input of rank 0\n", "")
    );
    let all: Vec<String> = (0..3)
        .map(|rank| script.read(&format!("told.{rank}")))
        .collect();
    let all: Vec<_> = all.iter().map(|text| variables(text)).collect();
    for (rank, own) in all.iter().enumerate() {
        for (name, value) in [
            ("XDIT_LAUNCH", "1"),
            ("RANK", &rank.to_string()),
            ("WORLD_SIZE", "3"),
            ("LOCAL_RANK", &rank.to_string()),
            ("LOCAL_WORLD_SIZE", "3"),
            ("MASTER_ADDR", "127.0.0.1"),
            ("MASTER_PORT", all[0]["MASTER_PORT"]),
            ("XDIT_JOB_SECRET", all[0]["XDIT_JOB_SECRET"]),
            ("XDIT_RESTART", "0"),
        ] {
            assert_eq!(own[name], value, "{name} of rank {rank}");
        }
        assert!(own["XDIT_CONTROL"].starts_with("/dev/fd/"), "{own:?}");
        assert_eq!(script.read(&format!("words.{rank}")), "doctor --json\n");
    }
    assert_eq!(all[0]["XDIT_JOB_SECRET"].len(), 64);
    assert!(all[0]["MASTER_PORT"].parse::<u16>().unwrap() > 1023);
    let again = script
        .launch(&["--nproc", "1", "--rendezvous-port", "7"])
        .output();
    outcome(again).succeeded();
    let again = script.read("told.0");
    let again = variables(&again);
    assert_ne!(again["XDIT_JOB_SECRET"], all[0]["XDIT_JOB_SECRET"]);
    assert_eq!(again["MASTER_PORT"], "7");
}

/// A program in place of ssh. It writes down what it was told, and runs it on this host.
pub(crate) fn fake_ssh(folder: &Path) -> String {
    let text = r#"
        [ "$1" = -v ] || exit 9
        echo "$*" >> ssh.log
        [ "$2" != unreachable ] || { echo 'ssh: no route' >&2; exit 255; }
        exec sh -c "$3""#;
    executable(folder, "ssh", text).display().to_string()
}

#[test]
fn other_hosts_through_ssh() {
    let script = Script::new(&format!("{TELL} echo from $RANK; exit $RANK"));
    let ssh = format!("{} -v", fake_ssh(script.folder.path()));
    let flags = ["--hosts", "me@one,two", "--nproc", "2", "--ssh", &ssh];
    let told = outcome(script.launch(&flags).output());
    let log = script.read("ssh.log");
    assert_eq!(log.lines().count(), 4, "{log}");
    let mut seen: Vec<&str> = told.stdout.lines().collect();
    seen.sort_unstable();
    assert_eq!(seen, ["from 0", "from 1", "from 2", "from 3"], "{told:?}");
    assert!([1, 2, 3].map(Some).contains(&told.code), "{told:?}");
    for rank in 0..4_usize {
        let told = script.read(&format!("told.{rank}"));
        let told = variables(&told);
        assert_eq!(told["LOCAL_RANK"], (rank % 2).to_string());
        assert_eq!((told["WORLD_SIZE"], told["LOCAL_WORLD_SIZE"]), ("4", "2"));
        assert_eq!(
            (told["MASTER_ADDR"], told["XDIT_CONTROL"]),
            ("one", "stdin")
        );
        let secret = told["XDIT_JOB_SECRET"];
        assert_eq!(secret.len(), 64);
        assert!(!log.contains(secret), "{log}");
        let port: u16 = told["MASTER_PORT"].parse().unwrap();
        assert!((20_000..32_000).contains(&port), "{port}");
    }
    assert!(!log.contains("doctor") && !log.contains("RANK"), "{log}");
    let name = |line: &str| line.split(' ').nth(1).unwrap().to_owned();
    let mut hosts: Vec<String> = log.lines().map(name).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["me@one", "me@one", "two", "two"]);

    let mut launch = script.launch(&["--hosts", "unreachable", "--nproc", "1"]);
    let told = outcome(launch.env("XDIT_SSH", &ssh).output());
    assert_eq!(told.code, Some(1), "{told:?}");
    let (own, ours) = told.stderr.split_once('\n').unwrap();
    assert_eq!(own, "ssh: no route");
    assert!(
        ours.starts_with("error: rank 0 (host unreachable): ssh ended"),
        "{ours}"
    );
    assert_eq!(told.json()["error"]["exit_code"], 1);
}

#[test]
fn a_signal_reaches_processes_behind_ssh() {
    let script = Script::new("touch began.$RANK; read order; echo $order > heard.$RANK; exit 3");
    let ssh = format!("{} -v", fake_ssh(script.folder.path()));
    let mut launch = script.launch(&["--hosts", "a", "--nproc", "2", "--ssh", &ssh]);
    let child = launch
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    script.wait_for("began.0");
    script.wait_for("began.1");
    signal("-TERM", child.id());
    let told = outcome(child.wait_with_output());
    assert_eq!((told.code, told.stderr.as_str()), (Some(143), ""));
    for rank in 0..2 {
        assert_eq!(script.read(&format!("heard.{rank}")), "signal 15\n");
    }
}

/// It has no reason to run any longer, but it is no failure.
#[test]
fn a_rank_that_stays_when_rank_0_is_done_is_told_to_end() {
    let script = Script::new(
        "[ $RANK = 0 ] && exit 0; read order <$XDIT_CONTROL; echo $order > heard; exit 0",
    );
    let told = outcome(script.launch(&["--nproc", "2"]).output());
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
    assert_eq!(script.read("heard"), "signal 15\n");
    // Nor is it one that rank 0 is no longer there.
    let script = Script::new("[ $RANK = 0 ] && exit 0; sleep 0.3; exit 6");
    let told = outcome(script.launch(&["--nproc", "2"]).output());
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
}

#[test]
fn the_first_failure_is_the_exit_code() {
    // Rank 0 says that it lost another rank, before rank 1 fails by itself.
    let script = Script::new(
        "case $RANK in 0) exit 6;; 1) sleep 0.3; exit 4;; 2) sleep 4; exit 5;; *) exit 0;; esac",
    );
    let told = outcome(script.launch(&["--nproc", "4"]).output());
    assert_eq!((told.code, told.stderr.as_str()), (Some(4), ""), "{told:?}");
    assert_eq!(told.stdout, "");
    let script = Script::new("[ $RANK = 1 ] && kill -9 $$; exit 6");
    let told = outcome(script.launch(&["--nproc", "2"]).output());
    assert_eq!(told.code, Some(137), "{told:?}");
    assert_eq!(
        told.stderr,
        "error: rank 1 was killed by signal 9 (SIGKILL)\n"
    );
    // Rank 0 has answered.
    assert_eq!(told.stdout, "");
    let script = Script::new("kill -9 $$");
    let told = outcome(script.launch(&["--nproc", "1"]).output());
    let error = told.json()["error"].clone();
    assert_eq!(error["message"], "rank 0 was killed by signal 9 (SIGKILL)");
    assert_eq!((told.code, &error["exit_code"]), (Some(137), &137.into()));
}

/// One fails. One of the others ends when it is told to, and one does not even then.
#[test]
fn nobody_outlives_a_failure() {
    let script = Script::new(
        r#"echo $$ > pid.$RANK; trap '' TERM
        case $RANK in
            0) exit 4;;
            1) read order < $XDIT_CONTROL; echo $order > heard;;
            *) while :; do sleep 1; done;;
        esac"#,
    );
    let told = outcome(script.launch(&["--nproc", "3"]).output());
    assert_eq!(told.code, Some(4), "{told:?}");
    assert_eq!(script.read("heard"), "signal 15\n");
    let stubborn = "error: rank 2: did not end when told to, and was killed\n";
    assert_eq!(told.stderr, stubborn);
    for rank in 0..3 {
        let pid = script.read(&format!("pid.{rank}")).trim().parse().unwrap();
        assert!(!runs(pid), "rank {rank}");
    }
}

fn refused(words: &[&str]) -> Outcome {
    let told = outcome(command().args(words).output());
    assert_eq!(told.code, Some(2), "{words:?}: {told:?}");
    assert_eq!(told.stderr.lines().count(), 1, "{told:?}");
    told
}

#[test]
fn what_cannot_be_launched_starts_nothing() {
    let help = outcome(command().args(["launch", "--", "generate", "-h"]).output()).succeeded();
    assert!(help.stdout.contains("xdit-cli generate"), "{help:?}");
    for (words, said) in [
        (&["--nproc", "2"][..], "required"),
        (&["--nproc", "2", "generate", "-p", "a"], "after --"),
        (&["--nproc", "2", "--ulysses-degree", "2"], "after --"),
        (&["--", "doctor"], "--nproc"),
        (&["--", "generate", "-p", "a"], "--nproc"),
        (&["--nproc", "0", "--", "doctor"], "--nproc 0"),
        (&["--nproc", "5000", "--", "doctor"], "4096"),
        (
            &["--nproc", "2", "--", "info"],
            "launch starts generate, replay and doctor",
        ),
        (
            &[
                "--nproc", "2", "--", "launch", "--nproc", "2", "--", "doctor",
            ],
            "launch starts",
        ),
        (&["--nproc", "2", "--", "generate", "--step", "2"], "--step"),
        (
            &["--hosts", "localhost,b", "--nproc", "2", "--", "doctor"],
            "cannot reach this one at localhost",
        ),
        (
            &["--hosts", "a", "--nproc", "1", "--ssh", " ", "--", "doctor"],
            "--ssh",
        ),
        (
            &["--hosts", "a,a", "--nproc", "2", "--", "doctor"],
            "occurs twice",
        ),
        (
            &["--hosts=-x", "--nproc", "2", "--", "doctor"],
            "names of hosts",
        ),
        (
            &[
                "--hosts",
                "a,b",
                "--",
                "generate",
                "-p",
                "a",
                "--ring-degree",
                "3",
            ],
            "do not share",
        ),
        (
            &[
                "--hosts", "a", "--nproc", "1", "--ssh", "/no/ssh", "--", "doctor",
            ],
            "--ssh /no/ssh",
        ),
        (
            &["--nproc", "1", "--program", "/no/program", "--", "doctor"],
            "--program /no/program",
        ),
        (
            &[
                "--hosts",
                "a",
                "--nproc",
                "1",
                "--",
                "generate",
                "--prompt-file",
                "-",
            ],
            "--prompt-file -",
        ),
    ] {
        let words: Vec<&str> = std::iter::once("launch")
            .chain(words.iter().copied())
            .collect();
        let told = refused(&words);
        assert!(told.stderr.contains(said), "{words:?}: {}", told.stderr);
    }
    let told = refused(&["launch", "--", "generate", "-p", "a", "--json"]);
    assert_eq!(told.json()["error"]["exit_code"], 2);
}
