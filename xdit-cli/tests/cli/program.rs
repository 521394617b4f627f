//! Runs the binary.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program with an environment that no machine's settings reach: two threads, no hub, no GPU. `vgpu::Gpu` gives it virtual
/// ones.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdit-cli"));
    command
        .env_clear()
        .env("RAYON_NUM_THREADS", "2")
        .env("HF_HUB_OFFLINE", "1")
        .env("CUDA_VISIBLE_DEVICES", "")
        .env("HF_HOME", "/nonexistent");
    command
}

/// Runs the program with these words in this folder.
pub(crate) fn run<S: AsRef<OsStr>>(folder: &Path, words: impl IntoIterator<Item = S>) -> Outcome {
    outcome(command().args(words).current_dir(folder).output())
}

pub(crate) fn outcome(output: std::io::Result<Output>) -> Outcome {
    let output = output.expect("the binary was built by cargo and runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Outcome {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

impl Outcome {
    /// The same, if the run succeeded.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Standard output as JSON: one object and nothing else.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// The words of a small run of the demo, which takes a fraction of a second.
pub(crate) fn small<'a>(prompt: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let size = [
        "--height",
        "64",
        "--width",
        "64",
        "--num-inference-steps",
        "2",
    ];
    ["generate", "--prompt", prompt]
        .iter()
        .chain(&size)
        .chain(more)
        .copied()
        .collect()
}

/// The names in a folder, hidden ones too, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder of the test");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}

/// The demo pipeline of this repository.
pub(crate) fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../xdit-models/demo/flux")
}
