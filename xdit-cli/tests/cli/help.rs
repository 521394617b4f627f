//! `-h` is one screen, `--help` is whole. Their texts are compared with snapshots, so that every change is a visible diff.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::program::run;

/// The commands, and the program itself.
const COMMANDS: [&str; 11] = [
    "",
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

/// The lines of one screen.
const SCREEN: usize = 40;
/// The columns of a terminal.
const COLUMNS: usize = 80;

fn help(command: &str, flag: &str) -> String {
    let words = [command, flag].into_iter().filter(|word| !word.is_empty());
    let help = run(Path::new("."), words).succeeded();
    assert_eq!(help.stderr, "");
    help.stdout
}

/// The flags of a help text by their long names, each with the headings above it.
fn flags(help: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut heading = "";
    for line in help.lines() {
        if !line.starts_with(' ') && !line.is_empty() {
            heading = line.strip_suffix(':').unwrap_or("");
        }
        let entry = line.trim_start();
        let entry = entry.get(..4).map_or(entry, |start| match start {
            short if short.starts_with('-') && short.ends_with(", ") => &entry[4..],
            _ => entry,
        });
        let indent = line.len() - line.trim_start().len();
        if let Some(name) = entry
            .strip_prefix("--")
            .filter(|_| [2, 6].contains(&indent))
        {
            let name = name.split([' ', '.']).next().unwrap_or_default();
            found
                .entry(name.to_owned())
                .or_default()
                .push(heading.to_owned());
        }
    }
    found
}

#[test]
fn is_as_recorded() {
    for command in COMMANDS {
        for flag in ["-h", "--help"] {
            let file = format!(
                "help{}{command}{flag}.txt",
                if command.is_empty() { "" } else { "-" }
            );
            let file = file.replace("--help", "");
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("tests/cli/snapshots")
                .join(&file);
            let recorded = std::fs::read_to_string(&path).unwrap_or_default();
            let help = help(command, flag);
            assert!(
                help == recorded,
                "xdit-cli {command} {flag} has changed. If it was meant to:\n  \
                 cargo run -p xdit-cli -- {command} {flag} > xdit-cli/tests/cli/snapshots/{file}\nnow:\n{help}"
            );
        }
    }
}

#[test]
fn fits_the_terminal() {
    for command in COMMANDS {
        let short = help(command, "-h");
        let lines = short.lines().count();
        assert!(lines <= SCREEN, "xdit-cli {command} -h has {lines} lines");
        for text in [short, help(command, "--help")] {
            for line in text.lines() {
                assert!(
                    line.chars().count() <= COLUMNS,
                    "xdit-cli {command}: {line}"
                );
            }
        }
    }
}

#[test]
fn the_short_one_is_a_part_of_the_whole_one_and_points_at_it() {
    for command in COMMANDS {
        let (short, whole) = (help(command, "-h"), help(command, "--help"));
        let (of_short, of_whole) = (flags(&short), flags(&whole));
        assert!(!of_short.is_empty(), "{short}");
        for (flag, headings) in &of_short {
            assert_eq!(
                of_whole.get(flag),
                Some(headings),
                "xdit-cli {command}: --{flag}"
            );
        }
        if of_short.len() < of_whole.len() {
            let end = short.trim_end().rsplit("\n\n").next().unwrap_or_default();
            assert!(end.contains("--help"), "{short}");
        }
    }
}

#[test]
fn every_flag_is_under_one_heading_grouped_by_model() {
    for command in ["generate", "plan"] {
        let whole = help(command, "--help");
        for (flag, headings) in flags(&whole) {
            assert_eq!(
                headings.len(),
                1,
                "xdit-cli {command}: --{flag} under {headings:?}"
            );
            assert_ne!(headings[0], "Options");
            assert_ne!(headings[0], "");
        }
        let headings = [
            "Model:",
            "Image:",
            "Flux, Stable Diffusion 3 and 3.5:",
            "Flux:",
            "Stable Diffusion 3 and 3.5:",
            "HunyuanDiT:",
            "Ranks:",
            "Compute:",
            "Output:",
            "Reporting:",
        ];
        let expected: Vec<&str> = headings
            .into_iter()
            .filter(|it| command == "generate" || *it != "Output:")
            .collect();
        let found: Vec<&str> = whole
            .lines()
            .filter(|line| headings.contains(line))
            .collect();
        assert_eq!(found, expected, "xdit-cli {command}");
    }
    let flags = flags(&help("generate", "--help"));
    for (flag, heading) in [
        ("prompt", "Image"),
        ("sigmas", "Flux, Stable Diffusion 3 and 3.5"),
        ("true-cfg-scale", "Flux"),
        ("no-t5", "Stable Diffusion 3 and 3.5"),
        ("scheduler", "HunyuanDiT"),
        ("max-drift", "Ranks"),
        ("dump", "Output"),
    ] {
        assert_eq!(flags[flag], [heading], "--{flag}");
    }
}

#[test]
fn tells_every_exit_code() {
    let help = help("", "--help");
    for code in [
        "0", "1", "2", "3", "4", "5", "6", "101", "129", "130", "143",
    ] {
        let told = help.split_whitespace().any(|word| word == code);
        assert!(told, "exit code {code} is not in --help");
    }
    let (_, codes) = help.split_once("Exit codes:\n").unwrap();
    for line in codes.lines().take_while(|line| !line.is_empty()) {
        let code = line.split_whitespace().next().unwrap();
        assert!(code.parse::<u8>().is_ok(), "wrapped: {line}");
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
