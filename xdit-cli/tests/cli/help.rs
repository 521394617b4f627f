//! Compares the texts of `--help` with snapshots, so that every change is a visible diff.

use std::path::{Path, PathBuf};

use crate::program::run;

#[test]
fn is_as_recorded() {
    let cases: [(&str, &[&str]); 6] = [
        ("help-download.txt", &["download", "--help"]),
        ("help.txt", &["--help"]),
        ("help-generate.txt", &["generate", "--help"]),
        ("help-info.txt", &["info", "--help"]),
        ("help-plan.txt", &["plan", "--help"]),
        ("help-replay.txt", &["replay", "--help"]),
    ];
    for (file, words) in cases {
        let help = run(Path::new("."), words).succeeded();
        assert_eq!(help.stderr, "");
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/cli/snapshots")
            .join(file);
        let recorded = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            help.stdout == recorded,
            "xdit-cli {} has changed. If it was meant to:\n  cargo run -p xdit-cli -- {} > xdit-cli/tests/cli/snapshots/{file}\n\
             now:\n{}",
            words.join(" "),
            words.join(" "),
            help.stdout
        );
    }
}

#[test]
fn tells_every_exit_code() {
    let help = run(Path::new("."), ["--help"]).succeeded().stdout;
    for code in [
        "0", "1", "2", "3", "4", "5", "6", "101", "129", "130", "143",
    ] {
        let told = help.split_whitespace().any(|word| word == code);
        assert!(told, "exit code {code} is not in --help");
    }
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for code in [
        "| 0 |", "| 1 |", "| 2 |", "| 3 |", "| 4 |", "| 5 |", "| 6 |", "| 101 |", "| 130 |",
        "| 143 |", "| 129 |",
    ] {
        assert!(
            readme.contains(code),
            "exit code {code} is not in the README"
        );
    }
}

#[test]
fn version() {
    let outcome = run(Path::new("."), ["--version"]).succeeded();
    assert_eq!(
        outcome.stdout,
        concat!("xdit-cli ", env!("CARGO_PKG_VERSION"), "\n")
    );
}
