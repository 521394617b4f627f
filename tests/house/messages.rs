//! Rule 5: what users are told is written for people. No message shows the form that Rust has for debugging.

use std::path::Path;

use crate::{read, root, walk};

/// Files that format values for debugging, and why that is no message.
const EXCEPTIONS: [(&str, &str); 3] = [
    (
        "xdit-cli/src/report/logging.rs",
        "tracing hands over the fields of log lines in this form",
    ),
    (
        "xdit-cli/src/report/trace.rs",
        "tracing hands over the fields of spans in this form",
    ),
    (
        "xdit-models/src/pipeline/family.rs",
        "a text that two plans are compared by, and that nobody reads",
    ),
];

/// The numbers of the lines of `code`, which has no tests, that format something for debugging.
fn debug_prints(code: &str) -> Vec<usize> {
    let lines = code.lines().enumerate();
    let found = lines.filter(|(_, line)| {
        let is_comment = line.trim_start().starts_with("//");
        // In a macro of tracing, `?x` and `x = ?y` are the same as `{:?}`.
        let in_log =
            line.contains("tracing::") && [", ?", "(?", "= ?"].iter().any(|it| line.contains(it));
        !is_comment && (line.contains(":?}") || line.contains(":#?}") || in_log)
    });
    found.map(|(index, _)| index + 1).collect()
}

/// The code of a file before its inline tests.
fn without_tests(text: &str) -> &str {
    let start = text
        .match_indices("#[cfg(test)]\n")
        .find(|(at, attribute)| {
            let rest = &text[at + attribute.len()..];
            rest.lines()
                .next()
                .is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
        });
    start.map_or(text, |(at, _)| &text[..at])
}

fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests")
        || file
            .file_stem()
            .is_some_and(|name| name.to_string_lossy().ends_with("tests"))
}

#[test]
fn no_message_is_printed_for_debugging() {
    let (mut found, mut excepted) = (Vec::new(), Vec::new());
    for name in ["xdit-cli/src", "xdit-models/src"] {
        let mut files = Vec::new();
        walk(&root().join(name), &mut files);
        for file in files.iter().filter(|file| !is_test(file)) {
            let shown = file
                .strip_prefix(root())
                .unwrap_or(file)
                .display()
                .to_string();
            let lines = debug_prints(without_tests(&read(file)));
            match EXCEPTIONS.iter().find(|(file, _)| *file == shown) {
                Some((exception, _)) if !lines.is_empty() => excepted.push(*exception),
                _ => found.extend(lines.iter().map(|line| format!("{shown}:{line}"))),
            }
        }
    }
    assert!(
        found.is_empty(),
        "write values for people, with Display, quote::list or quote::counted: {found:#?}"
    );
    excepted.sort_unstable();
    assert_eq!(
        excepted,
        EXCEPTIONS.map(|(file, _)| file),
        "an exception that is not needed"
    );
}

#[test]
fn debug_prints_are_found() {
    let code = "let a = 1;\nformat!(\"{a:?}\");\n// {a:?}\ntracing::info!(a = ?a, \"b\");\nprintln!(\"{:#?}\", a);\nf(x?);\n";
    assert_eq!(debug_prints(code), [2, 4, 5]);
    let text = "format!(\"a\");\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\nmod tests {\n    format!(\"{a:?}\");\n}\n";
    assert_eq!(debug_prints(without_tests(text)), Vec::<usize>::new());
    assert!(without_tests(text).contains("mod tests;\nb"));
}
