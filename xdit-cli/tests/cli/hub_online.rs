//! A hub that answers, refuses or is unreachable, and the effect on the cache.
#![cfg(all(feature = "hub", unix))]

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::fake_hub::FakeHub;
use crate::program::{command, outcome, small};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NEXT: &str = "89abcdef0123456789abcdef0123456789abcdef";
const ID: &str = "organisation/shapes";

fn warnings(stderr: &str) -> usize {
    stderr
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("warning"))
        .count()
}

fn repository(home: &Path) -> std::path::PathBuf {
    home.join("hub/models--organisation--shapes")
}

#[test]
fn a_whole_cache_draws_whatever_the_hub_answers() {
    let home = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(COMMIT, "");
    let run =
        |hub: &FakeHub, words: &[&str]| outcome(hub.command(home.path()).args(words).output());
    run(&hub, &["download", ID]).succeeded();
    let first = run(&hub, &["info", ID]).succeeded();
    assert_eq!(warnings(&first.stderr), 0, "{first:?}");
    for status in [401, 403, 404, 503] {
        hub.answer(status);
        let found = run(&hub, &["info", ID]).succeeded();
        assert_eq!(found.stdout, first.stdout);
        assert_eq!(warnings(&found.stderr), 1, "{status}: {found:?}");
        assert!(found.stderr.contains(&status.to_string()), "{found:?}");
        let never = run(&hub, &["info", "organisation/never"]);
        let code = if status == 503 { 1 } else { 3 };
        assert_eq!(never.code, Some(code), "{never:?}");
        let way_out = "has no copy; try again later, or give a folder that has the model";
        assert_eq!(never.stderr.contains(way_out), status == 503, "{never:?}");
    }
    hub.answer(403);
    let words = small("a red circle", &["--model", ID, "--output", "a.png"]);
    let drawn = run(&hub, &words).succeeded();
    assert_eq!(warnings(&drawn.stderr), 1, "{drawn:?}");
    for address in [
        "http://127.0.0.1:9",
        "http://no-such-host.invalid",
        &format!("https://{}", hub.address),
    ] {
        let mut command = hub.command(home.path());
        let found = outcome(
            command
                .env("HF_ENDPOINT", address)
                .args(["info", ID])
                .output(),
        );
        assert_eq!(warnings(&found.succeeded().stderr), 1, "{address}");
    }
}

#[test]
fn a_plan_does_not_cost_the_copy_that_works() {
    let home = tempfile::tempdir().unwrap();
    let run =
        |hub: &FakeHub, words: &[&str]| outcome(hub.command(home.path()).args(words).output());
    run(&FakeHub::start(COMMIT, ""), &["download", ID]).succeeded();
    let main = repository(home.path()).join("refs/main");
    let newer = FakeHub::start(NEXT, "\n");
    run(&newer, &["plan", "--model", ID]).succeeded();
    assert_eq!(fs::read_to_string(&main).unwrap(), COMMIT);
    let offline = |words: &[&str]| {
        let mut command = newer.command(home.path());
        outcome(command.env("HF_HUB_OFFLINE", "1").args(words).output())
    };
    let words = small(
        "a red circle",
        &["--model", ID, "--output", "a.png", "--json"],
    );
    let drawn = offline(&words).succeeded();
    assert_eq!(drawn.json()["model"]["revision"], COMMIT);
    assert_eq!(warnings(&drawn.stderr), 0, "{drawn:?}");
    // As another tool may leave it.
    fs::write(&main, NEXT).unwrap();
    let drawn = offline(&words).succeeded();
    assert_eq!(drawn.json()["model"]["revision"], COMMIT);
    assert_eq!(warnings(&drawn.stderr), 1, "{drawn:?}");
    // Half a model: which, what lacks, and the command that completes it.
    let half = offline(&["info", ID, "--revision", NEXT]);
    assert_eq!(half.code, Some(3), "{half:?}");
    assert_eq!(half.stderr.lines().count(), 1, "{half:?}");
    let command = format!("HF_HUB_OFFLINE=0 xdit-cli download {ID} --revision {NEXT}");
    for part in [ID, NEXT, "incomplete", "lacks", ".safetensors", &command] {
        assert!(half.stderr.contains(part), "{part}: {half:?}");
    }
    run(&newer, &["download", ID, "--revision", NEXT]).succeeded();
    offline(&["info", ID, "--revision", NEXT]).succeeded();
}

#[test]
fn no_secret_is_shown() {
    let home = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(COMMIT, "");
    let address = format!("http://me:hunter2@{}", hub.address);
    for (status, verbose) in [(200, "-vv"), (200, "-vvv"), (403, "-vvv"), (404, "-vv")] {
        hub.answer(status);
        for id in [ID, "organisation/never"] {
            let mut command = hub.command(home.path());
            let command = command
                .env("HF_ENDPOINT", &address)
                .env("HF_TOKEN", "hf_secret");
            let run = outcome(command.args(["plan", "--model", id, verbose]).output());
            let text = run.stdout + &run.stderr;
            // The password, the same in base64, and the token.
            for secret in ["hunter2", "bWU6", "hf_secret"] {
                assert!(!text.contains(secret), "{text}");
            }
            assert!(
                text.contains("127.0.0.1"),
                "nothing of the hub is told: {text}"
            );
        }
    }
}

#[test]
fn variables_are_named_and_huge_numbers_mean_long() {
    let home = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(COMMIT, "");
    let run = |name: &str, value: &str| {
        let mut command = hub.command(home.path());
        outcome(
            command
                .env(name, value)
                .args(["plan", "--model", ID])
                .output(),
        )
    };
    for name in ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"] {
        for huge in [
            "9223372036854775807",
            "18446744073709551615",
            "99999999999999999999999999",
        ] {
            run(name, huge).succeeded();
        }
        run(name, "").succeeded();
        for odd in ["-1", "NaN", "0", "ten"] {
            let refused = run(name, odd);
            assert_eq!(refused.code, Some(2), "{refused:?}");
            assert!(
                refused.stderr.contains(name) && refused.stderr.lines().count() == 1,
                "{refused:?}"
            );
        }
    }
    for (name, bad) in [
        ("HF_ENDPOINT", "127.0.0.1"),
        ("HF_ENDPOINT", "http://x\ny"),
        ("HF_TOKEN", "a\nb"),
    ] {
        let refused = run(name, bad);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(
            refused.stderr.contains(name) && refused.stderr.lines().count() == 1,
            "{refused:?}"
        );
    }
    let never = command()
        .args(["plan", "--model", ID, "--revision", "../../x"])
        .output();
    let refused = outcome(never);
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
fn what_is_broken_off_is_taken_up_again() {
    let home = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(COMMIT, "");
    hub.slow(true);
    let mut child = hub.command(home.path());
    let child = child
        .args(["download", ID])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = child.spawn().unwrap();
    let parts = || -> Vec<u64> {
        let blobs = fs::read_dir(repository(home.path()).join("blobs"));
        let blobs = blobs.into_iter().flatten().flatten();
        blobs
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "part"))
            .map(|entry| entry.metadata().map_or(0, |metadata| metadata.len()))
            .collect()
    };
    let began = Instant::now();
    while parts().iter().all(|bytes| *bytes < 200_000) {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "nothing large arrives"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!parts().is_empty());
    hub.slow(false);
    outcome(hub.command(home.path()).args(["download", ID]).output()).succeeded();
    assert!(hub.furthest() >= 200_000, "it all came again");
    assert!(parts().is_empty());
}

#[test]
fn what_is_not_text_is_named_too() {
    use std::os::unix::ffi::OsStrExt;
    let home = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(COMMIT, "");
    let odd = std::ffi::OsStr::from_bytes(b"http://x\xff");
    for name in ["HF_ENDPOINT", "HF_TOKEN", "HF_HUB_ETAG_TIMEOUT", "HF_HOME"] {
        let mut command = hub.command(home.path());
        let refused = outcome(
            command
                .env(name, odd)
                .args(["plan", "--model", ID])
                .output(),
        );
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(name), "{refused:?}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn a_local_index_does_not_lead_out_of_its_folder() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    fs::create_dir(&folder).unwrap();
    fs::write(outer.path().join("config.json"), "{}").unwrap();
    let model = folder.to_str().unwrap();
    for name in ["..", "../../x", "/tmp", ""] {
        let index = serde_json::json!({"_class_name": "FluxPipeline", name: ["diffusers", "AutoencoderKL"]});
        fs::write(folder.join("model_index.json"), index.to_string()).unwrap();
        let refused = outcome(command().args(["info", model]).output());
        assert_eq!(refused.code, Some(4), "{name}: {refused:?}");
        assert!(
            refused
                .stderr
                .contains("may not leave the pipeline's folder"),
            "{refused:?}"
        );
    }
}
