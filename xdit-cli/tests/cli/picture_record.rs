//! What a PNG says about its run.

use std::fs;
use std::io::BufReader;
use std::path::Path;

use serde_json::Value;

/// The text under `key`.
pub(crate) fn text(file: &Path, key: &str) -> String {
    let decoder = png::Decoder::new(BufReader::new(fs::File::open(file).unwrap()));
    let reader = decoder.read_info().unwrap();
    let chunks = &reader.info().uncompressed_latin1_text;
    let found = chunks.iter().find(|chunk| chunk.keyword == key);
    found.expect("a text under this key").text.clone()
}

/// The record of the run.
pub(crate) fn record(file: &Path) -> Value {
    serde_json::from_str(&text(file, "xdit")).unwrap()
}
