//! `xdit-cli completions`: scripts with which shells complete commands, flags, values and files.

use std::path::Path;
use std::process::Command;

use crate::program::run;

const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

fn script(shell: &str) -> String {
    let outcome = run(Path::new("."), ["completions", shell]).succeeded();
    assert_eq!(outcome.stderr, "");
    outcome.stdout
}

#[test]
fn every_shell_completes_commands_and_flags() {
    for shell in SHELLS {
        let script = script(shell);
        for word in [
            "generate",
            "plan",
            "replay",
            "info",
            "download",
            "devices",
            "doctor",
            "launch",
            "completions",
            "man",
            "num-inference-steps",
            "pipefusion-parallel-degree",
            "output-dir",
        ] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
}

#[test]
fn values_and_files_complete() {
    for shell in ["bash", "zsh", "fish"] {
        let script = script(shell);
        for value in ["bf16", "latent", "memory", "folded", "cpu", "DDIMScheduler"] {
            assert!(script.contains(value), "{shell}: no {value}");
        }
    }
    let zsh = script("zsh");
    let of = |flag: &str| {
        let mut lines = zsh
            .lines()
            .filter(|line| line.contains(&format!("--{flag}=")));
        lines
            .next()
            .unwrap_or_else(|| panic!("no --{flag}"))
            .to_owned()
    };
    for flag in ["download-dir", "dump", "model"] {
        assert!(of(flag).contains("_files -/"), "{}", of(flag));
    }
    for flag in ["prompt-file", "trace", "output"] {
        let line = of(flag);
        assert!(
            line.contains("_files") && !line.contains("_files -/"),
            "{line}"
        );
    }
}

/// What bash offers for the last of `words`.
fn offered(words: &[&str]) -> Vec<String> {
    let program = r#"source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        complete=($(complete -p xdit-cli)); for ((i = 0; i < ${#complete[@]}; i++)); do
        [[ ${complete[i]} == -F ]] && function=${complete[i + 1]}; done
        $function xdit-cli "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"; printf '%s\n' "${COMPREPLY[@]}""#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("xdit-cli.bash");
    std::fs::write(&file, script("bash")).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", program, "bash"])
        .arg(&file)
        .args(words);
    let output = bash.output().expect("bash runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
#[cfg(unix)]
fn bash_completes_by_the_script() {
    assert_eq!(offered(&["xdit-cli", "gen"]), ["generate"]);
    assert_eq!(
        offered(&["xdit-cli", "generate", "--num-inf"]),
        ["--num-inference-steps"]
    );
    assert_eq!(offered(&["xdit-cli", "generate", "--dtype", "b"]), ["bf16"]);
    assert_eq!(offered(&["xdit-cli", "completions", "z"]), ["zsh"]);
}

#[test]
fn a_shell_that_is_none_is_refused() {
    let outcome = run(Path::new("."), ["completions", "dos"]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("'dos'") && outcome.stderr.contains("powershell"),
        "{outcome:?}"
    );
}
