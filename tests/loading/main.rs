//! What needs no kernel: noise, schedules, token ids and the files of a pipeline, compared with the goldens.

mod noise;
mod schedulers;
mod tokens;

use std::path::{Path, PathBuf};

/// The file `name` under `tests/golden/`.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
}

/// Its bytes.
fn golden_bytes(name: &str) -> Vec<u8> {
    let path = golden(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
