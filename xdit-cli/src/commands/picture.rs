//! `xdit-cli info IMAGE`: how a PNG was made, by its record.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use xdit_models::quote;

use crate::output::recorded::Recorded;
use crate::report::console;
use crate::report::failure::{Failure, shown};
use crate::run::session::Session;

/// Whether `path` has the name of a picture.
pub(crate) fn has_the_name(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("png"))
}

/// Whether `path` is a picture: by its name, or by its first bytes.
pub(crate) fn is_one(path: &Path) -> bool {
    const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
    let begins = || {
        let mut start = [0; 8];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
        read.is_ok() && start == SIGNATURE
    };
    path.is_file() && (has_the_name(path) || begins())
}

/// Prints what the picture in `path` records.
///
/// # Errors
/// [`Failure::NoRecord`] for a file that records nothing.
pub(crate) fn run(path: &Path, session: &Session) -> Result<u8, Failure> {
    let recorded = Recorded::open(path)?;
    let record = &recorded.record;
    let told = |error: serde_json::Error| Failure::no_record(path, error);
    let value = serde_json::to_value(record).map_err(told)?;
    if session.report.json {
        let object = json!({
            "file": path,
            "width": recorded.width,
            "height": recorded.height,
            "record": value,
        });
        console::print_json(&object)?;
        return Ok(0);
    }
    let mut text = format!(
        "{}: {}×{}, image {} of {}\n",
        shown(path),
        recorded.width,
        recorded.height,
        record.image + 1,
        record.images
    );
    for part in ["model", "request", "parallel"] {
        let fields = value.get(part).and_then(Value::as_object);
        for (name, value) in fields.into_iter().flatten() {
            let name = match part {
                "model" => quote::shorten(&format!("model.{name}")),
                _ => quote::shorten(name),
            };
            writeln!(text, "  {name}: {}", plain(value)).ok();
        }
    }
    for name in ["dtype", "device", "tier", "version"] {
        writeln!(text, "  {name}: {}", plain(&value[name])).ok();
    }
    writeln!(text, "draw it again: xdit-cli replay {}", shown(path)).ok();
    console::print(&text)?;
    Ok(0)
}

/// A value as people write it: a text without quotes, a list of one as its entry.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => quote::line(text),
        Value::Array(list) if list.len() == 1 => plain(&list[0]),
        other => quote::line(&other.to_string()),
    }
}
