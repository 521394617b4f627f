//! Messages stay one short line.

use super::*;

#[test]
fn messages_are_one_short_line() {
    let error = Error::invalid("prompt", "a\nb".repeat(1_000_000), "shorter");
    let message = error.to_string();
    assert!(
        message.len() < 200 && !message.contains('\n'),
        "long or broken message: {message}"
    );
    assert_eq!(error.category(), ErrorCategory::InvalidRequest);
}

#[test]
fn what_files_hold_is_escaped_and_cut() {
    let hostile = "\u{1b}[31m\n\u{202e}".repeat(50_000);
    let text = || hostile.clone();
    let (file, reason) = (text(), text());
    let errors = [
        Error::BadConfig {
            file: text(),
            field: text(),
            expected: text(),
            found: text(),
        },
        Error::BadTensor {
            file: text(),
            tensor: text(),
            expected: text(),
            found: text(),
        },
        Error::Unsupported {
            file: text(),
            field: text(),
            found: text(),
            supported: text(),
        },
        Error::ModelNotFound {
            model: text(),
            reason: text(),
        },
        Error::Hub {
            what: text(),
            reason: text(),
        },
        Error::Io {
            path: text().into(),
            source: std::io::ErrorKind::NotFound.into(),
        },
        Error::BadFile { file, reason },
    ];
    for error in errors {
        let message = error.to_string();
        assert!(quote::is_line(&message), "{message:?}");
    }
}
