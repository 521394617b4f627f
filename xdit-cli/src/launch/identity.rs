//! What the processes of a job compare before they begin: the program, and what it will do.

use std::fs;

use serde_json::Value;
use sha2::{Digest, Sha256};
use xdit_models::quote;

use crate::run::digest;

/// Characters of a plan that a message shows.
const SHOWN: usize = 300;
/// Digits of a digest.
const DIGITS: usize = 12;

/// The name of this host.
pub(super) fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "this host".to_owned(),
        name => name.to_owned(),
    }
}

/// The number of the process that has started this one.
pub(super) fn parent() -> u32 {
    #[cfg(unix)]
    return std::os::unix::process::parent_id();
    #[cfg(not(unix))]
    0
}

/// The version and the file of this program, in short.
pub(super) fn build() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let digest = std::env::current_exe().and_then(|path| digest::of_file(&path));
    match digest {
        Ok(digest) => format!("{version} ({})", &digest[..DIGITS]),
        Err(_) => version.to_owned(),
    }
}

/// What the processes will do, as a text that is equal where that is: its beginning, and a digest of the whole.
pub(super) fn plan(what: &Value) -> String {
    let text = what.to_string();
    let digest = Sha256::digest(text.as_bytes());
    let digits = digest.iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}"));
    let shown: String = text.chars().take(SHOWN).collect();
    let shown = match shown.len() < text.len() {
        true => shown + "…",
        false => shown,
    };
    // Characters of a prompt have up to four bytes, and escapes more.
    let mut text = format!("{} (digest {})", quote::line(&shown), digits.collect::<String>());
    while text.len() > 1000 {
        text.remove(0);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plans_differ_where_what_is_done_differs() {
        let long = "a ".repeat(400);
        let [one, two] = [0, 1].map(|seed| plan(&json!({"prompt": [&long], "seed": seed})));
        assert_ne!(one, two);
        assert_eq!(one, plan(&json!({"prompt": [&long], "seed": 0})));
        for text in [plan(&json!("😀".repeat(600))), plan(&json!("\u{1}".repeat(600))), one] {
            assert!(text.len() <= 1024, "{} bytes", text.len());
        }
        let short = plan(&json!({"prompt": ["a cat"]}));
        assert!(short.starts_with(r#"{"prompt":["a cat"]} (digest "#), "{short}");
    }

    #[test]
    fn the_build_has_a_digest() {
        assert!(build().starts_with(concat!(env!("CARGO_PKG_VERSION"), " (")));
        assert_eq!(build(), build());
    }
}
