//! Ranks and processes that stop in the middle of a run.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{Outcome, command, outcome, run, small};

/// A run of so many steps on two ranks that may do nothing for a second.
fn begun(steps: &str, folder: &Path, more: &[&str]) -> Child {
    let words = [
        "generate",
        "--prompt",
        "a",
        "--height=64",
        "--width=64",
        "--ulysses-degree=2",
        "--rank-timeout=1",
        "--output=image.png",
        "--num-inference-steps",
        steps,
    ];
    let mut child = command();
    child.args(words).args(more).current_dir(folder);
    child
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The thread of this name, when it is there.
fn thread(child: &mut Child, name: &str) -> i32 {
    let tasks = format!("/proc/{}/task", child.id());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run is over already"
        );
        for task in fs::read_dir(&tasks).into_iter().flatten().flatten() {
            let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if comm.trim_end() == name {
                return task.file_name().to_string_lossy().parse().unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("there is no thread {name}");
}

/// Stops a thread of a child for as long as this thread lives.
fn stop(tid: i32) {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: neither request reads or writes memory of this process.
    let done = unsafe {
        [
            libc::ptrace(libc::PTRACE_SEIZE, tid, none, none),
            libc::ptrace(libc::PTRACE_INTERRUPT, tid, none, none),
        ]
    };
    assert_eq!(done, [0, 0], "{}", std::io::Error::last_os_error());
    let seen = reap(tid, 0);
    assert_eq!(seen, tid, "{}", std::io::Error::last_os_error());
}

/// Takes note of a stopped thread's change: the process of one that has ended waits for that.
fn reap(tid: i32, more: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is writable and lives longer than the call.
    unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | more) }
}

/// What comes of a run of which this thread stops for ever, and after how long.
fn without(name: &str, steps: &str, folder: &Path, more: &[&str]) -> (Outcome, Duration) {
    let mut child = begun(steps, folder, more);
    let tid = thread(&mut child, name);
    // It is at work: the run is of some seconds.
    std::thread::sleep(Duration::from_millis(100));
    stop(tid);
    let stopped = Instant::now();
    let left = std::thread::spawn(move || child.wait_with_output());
    while !left.is_finished() {
        reap(tid, libc::WNOHANG);
        let limit = Duration::from_secs(60);
        assert!(stopped.elapsed() < limit, "it hangs without {name}");
        std::thread::sleep(Duration::from_millis(5));
    }
    (outcome(left.join().unwrap()), stopped.elapsed())
}

#[test]
fn a_rank_that_stops_for_ever_ends_the_run() {
    // Of those that ranks compute with; and a rank's own thread, which is missed when its work is done.
    for (name, steps) in [
        ("rank 1.0", "1000"),
        ("rank 0.0", "1000"),
        ("rank 1", "100"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (outcome, took) = without(name, steps, folder.path(), &[]);
        assert_eq!(outcome.code, Some(6), "{name}: {outcome:?}");
        let message = outcome.stderr.lines().last().unwrap_or_default();
        let rank = &name[..6];
        for part in [rank, "no progress", "--rank-timeout"] {
            assert!(message.contains(part), "{name}: {outcome:?}");
        }
        // One second of the deadline, two of grace; the rest is for a busy machine.
        assert!(
            steps == "100" || took < Duration::from_secs(10),
            "{name}: {took:?}"
        );
    }
}

#[test]
fn a_run_that_replans_is_finished_by_the_other_rank() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--on-rank-loss=replan", "--json"];
    let (outcome, _) = without("rank 1.0", "300", folder.path(), &more);
    let report: serde_json::Value = serde_json::from_str(&outcome.succeeded().stdout).unwrap();
    let [first, second] = &report["ranks"]["parts"].as_array().unwrap()[..] else {
        panic!("{}", report["ranks"]);
    };
    assert_eq!(
        (&first["degrees"]["ulysses"], &first["first_step"]),
        (&2.into(), &0.into())
    );
    assert_eq!(first["lost"]["rank"], "rank 1 (ulysses 1)");
    let reason = first["lost"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("no progress for "), "{reason}");
    let step = second["first_step"].as_u64().unwrap();
    assert_eq!(
        (&second["degrees"]["ulysses"], &second["lost"]),
        (&1.into(), &().into())
    );
    let warning = format!(
        "rank 1 (ulysses 1) was lost at step {} of 300: {reason}; continuing with 1 rank",
        step + 1
    );
    let warnings = report["warnings"].as_array().unwrap();
    assert!(warnings.contains(&warning.clone().into()), "{warnings:?}");
    // The record follows both plans, so that the image is drawn again to the bit.
    let again = run(folder.path(), ["replay", "image.png", "--json"]).succeeded();
    let again: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(again["identical"], true);
    let parts = again["ranks"]["parts"].as_array().unwrap();
    assert_eq!((parts.len(), &parts[1]["first_step"]), (2, &step.into()));
}

#[test]
fn a_process_that_was_stopped_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = begun("200", folder.path(), &[]);
    thread(&mut child, "rank 1.0");
    let tell = |signal: &str| {
        let sent = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    };
    for _ in 0..2 {
        tell("-STOP");
        std::thread::sleep(Duration::from_millis(2500));
        tell("-CONT");
        std::thread::sleep(Duration::from_millis(200));
    }
    outcome(child.wait_with_output()).succeeded();
    assert!(folder.path().join("image.png").is_file());
}

#[test]
fn threads_that_the_system_refuses_are_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(folder.path(), open).unwrap();
    let program = command();
    // Root has as many as it likes, so that it becomes nobody first; where that is not possible there is nothing to see.
    let become_nobody = "setpriv --reuid=65533 --clear-groups";
    let script = format!(
        "if [ \"$(id -u)\" = 0 ]; then nobody='{become_nobody}'; $nobody test -x \"$1\" || exit 99; fi; \
         exec prlimit --nproc=6 $nobody \"$@\""
    );
    let limited = |more: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "sh"]).arg(program.get_program());
        shell.args(small("a", more)).env_clear();
        for (key, value) in program.get_envs() {
            shell.env(key, value.unwrap_or_default());
        }
        outcome(
            shell
                .env("PATH", "/usr/bin:/bin")
                .current_dir(folder.path())
                .output(),
        )
    };
    for more in [&["--threads", "64"][..], &["--data-parallel-degree", "64"]] {
        let outcome = limited(more);
        if outcome.code == Some(99) {
            println!("left out: this machine does not limit processes");
            return;
        }
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        for part in [
            "no thread for",
            "ulimit -u",
            "Resource temporarily unavailable",
        ] {
            assert!(outcome.stderr.contains(part), "{outcome:?}");
        }
        assert!(!outcome.stderr.contains("--threads"), "{outcome:?}");
    }
}
