//! `doctor` on machines with and without what it looks for.

use std::path::Path;
use std::process::Command;

use crate::program::{command, outcome};

const SCREEN: usize = 24;
const COLUMNS: usize = 80;

/// The lines of a check: the first begins with its state.
fn check<'a>(text: &'a str, what: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) != Some(&what)
    });
    let first = lines.next().into_iter();
    let rest = lines.take_while(|line| line.starts_with(' '));
    first.chain(rest).collect()
}

#[test]
fn is_a_screenful_with_a_cure_for_all_that_is_missing() {
    let told = outcome(command().env("PATH", "/nonexistent").arg("doctor").output()).succeeded();
    assert_eq!(told.stderr, "");
    let lines: Vec<&str> = told.stdout.lines().collect();
    assert!(lines.len() <= SCREEN, "{}", told.stdout);
    for line in &lines {
        assert!(line.chars().count() <= COLUMNS, "{line}");
    }
    assert!(lines[0].starts_with(concat!("xdit-cli ", env!("CARGO_PKG_VERSION"), " on ")));
    for what in [
        "processor",
        "memory",
        "models",
        "GPU",
        "NCCL",
        "MPI",
        "launchers",
    ] {
        let check = check(&told.stdout, what);
        assert!(!check.is_empty(), "no {what}: {}", told.stdout);
        let has_cure = check.iter().any(|line| line.trim_start().starts_with("> "));
        assert_eq!(has_cure, check[0].starts_with("lacks "), "{check:?}");
    }
    assert!(check(&told.stdout, "GPU")[0].starts_with("lacks "));
    let launchers = check(&told.stdout, "launchers").join(" ");
    assert!(launchers.contains("not in PATH: mpirun"), "{launchers}");
}

#[test]
fn programs_libraries_and_the_disk_are_found() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["mpirun", "torchrun", "libnccl.so.2"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    std::fs::create_dir_all(folder.path().join("hub/models--a--b")).unwrap();
    let path = folder.path().to_str().unwrap();
    let mut program = command();
    program
        .env("PATH", path)
        .env("XDIT_CUDA_LIB_DIR", path)
        .env("HF_HOME", path);
    let told = outcome(program.args(["doctor", "--json"]).output()).succeeded();
    let json = told.json();
    let checks = &json["checks"];
    let found = |what: &str, name: &str| checks[what]["data"][name].clone();
    assert_eq!(found("NCCL", "library"), format!("{path}/libnccl.so.2"));
    assert_eq!(found("launchers", "torchrun"), format!("{path}/torchrun"));
    assert!(found("launchers", "srun").is_null());
    assert!(Path::new(found("MPI", "mpirun").as_str().unwrap()).ends_with("mpirun"));
    assert_eq!(found("models", "models"), 1);
    assert_eq!(found("models", "offline"), true);
    assert!(found("processor", "cores").as_u64().unwrap() >= 1);
    let tiers = found("processor", "tiers");
    assert!(
        tiers
            .as_array()
            .unwrap()
            .contains(&found("processor", "tier"))
    );
    #[cfg(target_os = "linux")]
    {
        assert!(found("models", "free").as_u64().unwrap() > 0);
        assert!(found("memory", "total").as_u64() >= found("memory", "available").as_u64());
        assert!(found("memory", "available_to_process").as_u64().unwrap() > 0);
    }
}

#[test]
fn settings_that_no_run_accepts_are_exit_code_2() {
    for json in [false, true] {
        let mut program = command();
        program.env("HF_HUB_ETAG_TIMEOUT", "soon").arg("doctor");
        if json {
            program.arg("--json");
        }
        let told = outcome(program.output());
        assert_eq!(told.code, Some(2), "{told:?}");
        match json {
            true => assert_eq!(told.json()["checks"]["models"]["state"], "wrong"),
            false => {
                let check = check(&told.stdout, "models").join(" ");
                assert!(check.starts_with("wrong ") && check.contains("HF_HUB_ETAG_TIMEOUT=soon"));
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn limits_of_the_process_are_told() {
    let limited = Command::new("sh")
        .args(["-c", "ulimit -v 1500000 && exec \"$0\" doctor --json"])
        .arg(env!("CARGO_BIN_EXE_xdit-cli"))
        .env("CUDA_VISIBLE_DEVICES", "")
        .output();
    let told = outcome(limited).succeeded().json();
    let memory = &told["checks"]["memory"];
    let room = memory["data"]["available_to_process"].as_u64().unwrap();
    assert!(room < 1_500_000 << 10, "{memory}");
    assert!(
        memory["found"].as_str().unwrap().contains("limits leave"),
        "{memory}"
    );
}

#[cfg(all(feature = "cuda", target_os = "linux"))]
#[test]
fn gpus_are_found() {
    use vgpu::{Gpu, Schedule};
    let gpu = Gpu {
        devices: 2,
        capability: 90,
        ..Gpu::new(Schedule::Lazy)
    };
    let mut program = command();
    let program = gpu.attach(program.arg("doctor")).unwrap();
    let told = outcome(program.output()).succeeded();
    let check = check(&told.stdout, "GPU").join(" ");
    assert!(check.starts_with("ok "), "{}", told.stdout);
    assert!(
        check.contains("cuda:0") && check.contains("capability 9.0"),
        "{check}"
    );
}
