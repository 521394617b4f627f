//! A copy of a pipeline in which one file at a time is damaged.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::json::{Tree, bounded};
use super::{Rng, wire};

/// A copied pipeline.
#[derive(Debug)]
pub struct Copy {
    folder: PathBuf,
    /// The paths of the files and their contents, whole.
    files: Vec<(PathBuf, Vec<u8>)>,
    /// The JSON files among them.
    trees: Vec<Tree>,
}

impl Copy {
    /// Of the pipeline in `from`, in the folder `folder`. `attacked` tells which files are damaged.
    ///
    /// # Panics
    /// When files cannot be read or written, or none is attacked.
    #[must_use]
    pub fn new(from: &Path, folder: &Path, attacked: impl Fn(&Path) -> bool) -> Self {
        let mut files = Vec::new();
        let mut open = vec![from.to_path_buf()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).expect("a folder of the pipeline") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let name = path.strip_prefix(from).expect("inside").to_path_buf();
                let to = folder.join(&name);
                fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
                let content = fs::read(&path).expect("a file of the pipeline");
                fs::write(&to, &content).expect("a copied file");
                if attacked(&name) {
                    files.push((name, content));
                }
            }
        }
        files.sort();
        assert!(!files.is_empty(), "{}: nothing to attack", from.display());
        let json = files.iter().filter_map(|(_, content)| tree(content));
        Self {
            folder: folder.to_path_buf(),
            trees: json.collect(),
            files,
        }
    }

    /// Runs `call` while one file is damaged; the file's name comes before its error.
    ///
    /// # Errors
    /// Those of `call`.
    ///
    /// # Panics
    /// When files cannot be written.
    pub fn damaged(
        &self,
        rng: &mut Rng,
        call: impl FnOnce(&mut Rng) -> Result<(), String>,
    ) -> Result<(), String> {
        let (name, content) = rng.pick(&self.files);
        let damaged = damage(name, content, &self.trees, rng);
        let path = self.folder.join(name);
        fs::write(&path, damaged).expect("a damaged file");
        let outcome = call(rng).map_err(|error| format!("{}: {error}", name.display()));
        fs::write(&path, content).expect("the file as it was");
        outcome
    }
}

/// The file `name` damaged by its structure: what its name says, or JSON where it is. `others` are the trees of other files.
#[must_use]
pub fn damage(name: &Path, content: &[u8], others: &[Tree], rng: &mut Rng) -> Vec<u8> {
    if let Some(mut tree) = tree(content) {
        for _ in 0..=rng.below(3) {
            tree.damage(rng, others);
        }
        return tree.text().into_bytes();
    }
    match name.extension().and_then(|ext| ext.to_str()) {
        Some("model") => wire::protobuf(content, rng),
        Some("safetensors") => wire::safetensors(content, rng),
        _ => lines(content, rng),
    }
}

fn tree(content: &[u8]) -> Option<Tree> {
    let json: Value = serde_json::from_slice(content).ok()?;
    Some(Tree::from(&json))
}

/// A text whose lines are dropped, doubled, joined or exchanged.
fn lines(content: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = content
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    let i = rng.below(lines.len());
    match rng.below(6) {
        0 => drop(lines.remove(i)),
        1 => {
            let line = lines[i].clone();
            let times = bounded(*rng.pick(&[1, 1_000, 1_000_001]), line.len());
            lines.splice(i..i, std::iter::repeat_n(line, times));
        }
        2 => lines[i] = vec![b'x'; *rng.pick(&[0, 1_025, 1_000_000])],
        3 => lines[i].extend_from_slice(b" \xff a b"),
        4 => {
            let j = rng.below(lines.len());
            lines.swap(i, j);
        }
        _ => lines.truncate(i),
    }
    lines.join(&b'\n')
}
