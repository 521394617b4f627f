//! `xdit-cli man`: man pages of the program and of its commands.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::program::{names, run};

const COMMANDS: [&str; 10] = [
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
];

fn page(command: &str) -> String {
    let words = ["man", command].into_iter().filter(|word| !word.is_empty());
    let outcome = run(Path::new("."), words).succeeded();
    assert_eq!(outcome.stderr, "");
    outcome.stdout
}

#[test]
fn a_page_has_its_sections_in_order() {
    for command in COMMANDS.iter().chain(&[""]) {
        let page = page(command);
        let sections: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix(".SH "))
            .collect();
        let begins = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"];
        assert_eq!(sections[..4], begins, "{command}");
        let ends = ["\"EXIT STATUS\"", "ENVIRONMENT", "\"SEE ALSO\""];
        assert_eq!(sections[sections.len() - 3..], ends, "{command}");
        for word in ["HF_TOKEN", "143", "OMP_NUM_THREADS"] {
            assert!(page.replace('\\', "").contains(word), "{command}: {word}");
        }
    }
    assert!(page("").contains(".SH COMMANDS"));
    // A page is the same on every day of its version.
    let title = format!(
        ".TH XDIT-CLI-PLAN 1 \"\" \"xdit-cli {}\" \"xdit-cli manual\"\n",
        env!("CARGO_PKG_VERSION")
    );
    assert!(page("plan").starts_with(&title), "{}", page("plan"));
}

#[test]
fn every_flag_of_help_is_in_the_page() {
    for command in COMMANDS {
        let help = run(Path::new("."), [command, "--help"]).succeeded().stdout;
        let page = page(command).replace("\\-", "-");
        let flags = help
            .split_whitespace()
            .filter(|word| word.starts_with("--") && word.len() > 2);
        for flag in flags {
            let name = flag.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let name = name.split(['.', '=']).next().unwrap_or_default();
            assert!(page.contains(name), "{command}: {name}");
        }
    }
}

#[test]
fn a_folder_gets_all_pages() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("share/man1");
    let words = [
        "man".into(),
        "--output-dir".into(),
        target.clone().into_os_string(),
    ];
    let outcome = run(folder.path(), words).succeeded();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    let mut expected: Vec<String> = COMMANDS
        .iter()
        .map(|name| format!("xdit-cli-{name}.1"))
        .collect();
    expected.push("xdit-cli.1".to_owned());
    expected.sort();
    assert_eq!(names(&target), expected);
    assert_eq!(
        fs::read_to_string(target.join("xdit-cli-plan.1")).unwrap(),
        page("plan")
    );
}

/// Only where groff is installed: it reports every mistake of the page.
#[test]
fn groff_has_nothing_to_warn_of() {
    if Command::new("groff").arg("--version").output().is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for command in COMMANDS.iter().chain(&[""]) {
        let file = folder.path().join("page.1");
        fs::write(&file, page(command)).unwrap();
        let mut groff = Command::new("groff");
        groff
            .args(["-ww", "-man", "-Tutf8", "-Kutf8", "-rLL=80n"])
            .arg(&file);
        let output = groff.output().expect("groff runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{command}: {said}"
        );
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let outcome = run(Path::new("."), ["man", "paint"]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome
            .stderr
            .starts_with("error: man paint: no such command; the commands are generate, "),
        "{outcome:?}"
    );
    let outcome = run(Path::new("/"), ["man", "--output-dir", "/proc/none"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.stderr.contains("/proc/none: cannot be written"),
        "{outcome:?}"
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    for (target, told) in [("file", "file"), ("file/", "file/"), ("file/man1", "file")] {
        let outcome = run(folder.path(), ["man", "--output-dir", target]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        let told = format!("error: {told}: cannot be written: is not a folder\n");
        assert_eq!(outcome.stderr, told);
    }
    // A page whose name is taken: none is written half.
    fs::create_dir_all(folder.path().join("man1/xdit-cli.1")).unwrap();
    let outcome = run(folder.path(), ["man", "--output-dir", "man1"]);
    assert!(
        outcome
            .stderr
            .contains("xdit-cli.1: cannot be written: is a folder"),
        "{outcome:?}"
    );
    assert_eq!(names(&folder.path().join("man1")), ["xdit-cli.1"]);
    let outcome = run(Path::new("."), ["man", "plan", "--output-dir", "x"]);
    assert_eq!(outcome.code, Some(2));
}
