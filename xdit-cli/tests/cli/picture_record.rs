//! The record of a run in its PNG.

use std::fs;
use std::io::BufReader;
use std::path::Path;

use serde_json::Value;

/// The text under `key`.
pub(crate) fn text(file: &Path, key: &str) -> String {
    let decoder = png::Decoder::new(BufReader::new(fs::File::open(file).unwrap()));
    let reader = decoder.read_info().unwrap();
    let info = reader.info();
    let mut latin = info.uncompressed_latin1_text.iter();
    if let Some(chunk) = latin.find(|chunk| chunk.keyword == key) {
        return chunk.text.clone();
    }
    // What latin-1 cannot hold, such as Chinese.
    let found = info.utf8_text.iter().find(|chunk| chunk.keyword == key);
    found.expect("a text under this key").get_text().unwrap()
}

/// The record of the run.
pub(crate) fn record(file: &Path) -> Value {
    serde_json::from_str(&text(file, "xdit")).unwrap()
}
