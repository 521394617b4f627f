//! Shell scripts that CI does not run whole.

use crate::{files_with, read, root};
use std::process::Command;

#[test]
fn bash_reads_every_script() {
    for file in files_with(&["sh"]) {
        let run = Command::new("bash").arg("-n").arg(&file).output();
        let run = run.expect("bash");
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{}: {said}", file.display());
    }
}

/// The lines of a list of the script, without comments.
fn list<'a>(script: &'a str, name: &str) -> Vec<&'a str> {
    let (_, rest) = script.split_once(&format!("\n{name}=(\n")).expect("a list");
    let (inside, _) = rest.split_once("\n)").expect("its end");
    inside.lines().map(str::trim).collect()
}

#[test]
fn the_folder_for_a_gpu_machine_has_what_its_script_runs() {
    let build = read(&root().join("ci/gpu.sh"));
    let files = [list(&build, "files"), list(&build, "goldens")].concat();
    assert!(files.len() >= 5, "{files:?}");
    for file in &files {
        assert!(root().join(file).exists(), "ci/gpu.sh copies {file}");
    }
    let run = read(&root().join("tests/gpu-bench/run.sh"));
    let mut programs = 0;
    for (at, _) in run.match_indices("bin/") {
        let name = run[at + 4..].split(|c: char| !c.is_alphanumeric() && c != '-');
        let name = name.into_iter().next().expect("a first part");
        // A mention in a path of another machine is none of ours.
        if run[..at].ends_with('/') {
            continue;
        }
        programs += 1;
        let added = build.contains(&format!(" {name}\n")) && build.contains("add ");
        assert!(added, "run.sh runs {name}, which ci/gpu.sh does not add");
    }
    assert!(programs >= 5, "{programs} programs");
    for needed in ["bench_torch.py", "golden"] {
        let copied = files.iter().any(|file| file.contains(needed));
        assert!(run.contains(needed) && copied, "{needed}");
    }
}
