//! What the processes of a job compare before they begin: the program, and what it will do.

use std::fs;

use serde_json::Value;
use sha2::{Digest, Sha256};
use xdit_models::quote;

use crate::run::digest;

/// Characters of a plan, and of a text in it, that a message shows.
const SHOWN: [usize; 2] = [160, 40];
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

/// What the processes will do, as a text that is equal where that is: what a user would look at, and a digest of the whole.
pub(super) fn plan(what: &Value) -> String {
    let digest = Sha256::digest(what.to_string().as_bytes());
    let digits = digest::hex(&digest[..DIGITS / 2]);
    let shown = shown(what.get("request").unwrap_or(what)).to_string();
    format!("{} (digest {digits})", cut(&quote::line(&shown), SHOWN[0]))
}

/// The value without what is not set, and with short texts.
fn shown(value: &Value) -> Value {
    let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| is_set(value));
            fields
                .map(|(name, value)| (name.clone(), shown(value)))
                .collect()
        }
        Value::Array(items) => items.iter().map(shown).collect(),
        Value::String(text) => Value::String(cut(text, SHOWN[1])),
        other => other.clone(),
    }
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
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
        for text in [
            plan(&json!("😀".repeat(600))),
            plan(&json!("\u{1}".repeat(600))),
            one,
        ] {
            assert!(text.len() <= 1024, "{} bytes", text.len());
        }
        let short = plan(&json!({"prompt": ["a cat"]}));
        assert!(
            short.starts_with(r#"{"prompt":["a cat"]} (digest "#),
            "{short}"
        );
    }

    #[test]
    fn the_build_has_a_digest() {
        assert!(build().starts_with(concat!(env!("CARGO_PKG_VERSION"), " (")));
        assert_eq!(build(), build());
    }
}
