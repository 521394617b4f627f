//! A digest that distinguishes pipelines without reading 30 GB.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};
use xdit_models::{Error, MODEL_INDEX, ModelSource, Result};

/// Pieces of a file that are read.
const PIECES: u64 = 64;
/// Bytes of a piece. A file of at most `PIECES · PIECE` bytes is read whole.
const PIECE: u64 = 4096;

/// SHA-256, in hex, over the names and sizes of a pipeline's files and 64 evenly spaced pieces of 4 KiB of each. Other weights
/// of the same shapes have another digest. A change between the pieces is not detected.
///
/// It covers `model_index.json` and the components' configurations, weights and tokenizers.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn of(source: &ModelSource) -> Result<String> {
    let mut hash = Sha256::new();
    for path in source.list()?.iter().filter(|path| counts(path)) {
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        match source.path() {
            Some(folder) => {
                let file = folder.join(path);
                add_file(&mut hash, &file).map_err(|source| Error::Io {
                    path: file.clone(),
                    source,
                })?;
            }
            None => add_bytes(&mut hash, &source.read(path, usize::MAX)?),
        }
    }
    Ok(hex(&hash.finalize()))
}

/// The same of one file.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn of_file(path: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    add_file(&mut hash, path)?;
    Ok(hex(&hash.finalize()))
}

/// The bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn counts(path: &str) -> bool {
    let extension = path.rsplit('.').next().unwrap_or("");
    path == MODEL_INDEX
        || (path.contains('/') && ["json", "model", "safetensors", "txt"].contains(&extension))
}

/// Returns the starts of the pieces of a file of `length` bytes.
fn starts(length: u64) -> impl Iterator<Item = u64> {
    let whole = length <= PIECES * PIECE;
    let count = if whole {
        length.div_ceil(PIECE)
    } else {
        PIECES
    };
    let last = length.saturating_sub(PIECE);
    (0..count).map(move |piece| match whole {
        true => piece * PIECE,
        // u128: the product of a file's length and 63 may pass 64 bits only for sizes no disk has, but costs nothing.
        false => (u128::from(last) * u128::from(piece) / u128::from(PIECES - 1)) as u64,
    })
}

fn add_file(hash: &mut Sha256, path: &Path) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    hash.update(length.to_le_bytes());
    let mut piece = [0; PIECE as usize];
    for start in starts(length) {
        let wanted = PIECE.min(length - start) as usize;
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut piece[..wanted])?;
        hash.update(&piece[..wanted]);
    }
    Ok(())
}

fn add_bytes(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    for start in starts(bytes.len() as u64) {
        let start = start as usize;
        hash.update(&bytes[start..bytes.len().min(start + PIECE as usize)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(weights: &[u8]) -> Vec<(String, Vec<u8>)> {
        vec![
            (MODEL_INDEX.into(), b"{}".to_vec()),
            ("vae/config.json".into(), b"{\"a\": 1}".to_vec()),
            ("vae/model.safetensors".into(), weights.to_vec()),
        ]
    }

    #[test]
    fn a_folder_and_memory_agree() {
        for length in [0, 1, 4096, 262_144, 262_145, 1_000_003] {
            let weights: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("vae")).unwrap();
            for (name, bytes) in pipeline(&weights) {
                std::fs::write(folder.path().join(name), bytes).unwrap();
            }
            std::fs::write(folder.path().join("README.md"), b"not counted").unwrap();
            let disk = of(&ModelSource::folder(folder.path()).unwrap()).unwrap();
            assert_eq!(
                disk,
                of(&ModelSource::memory(pipeline(&weights))).unwrap(),
                "{length} bytes"
            );
            assert_eq!(disk.len(), 64);
        }
    }

    #[test]
    fn weights_configs_and_names_count() {
        let digest = |files: Vec<(String, Vec<u8>)>| of(&ModelSource::memory(files)).unwrap();
        let weights = vec![7; 1_000_000];
        let plain = digest(pipeline(&weights));
        let mut trained: Vec<u8> = weights.clone();
        trained.iter_mut().step_by(2).for_each(|byte| *byte += 1);
        assert_ne!(plain, digest(pipeline(&trained)));
        assert_ne!(plain, digest(pipeline(&weights[1..])));
        let mut config = pipeline(&weights);
        config[1].1[6] = b'2';
        assert_ne!(plain, digest(config));
        let mut renamed = pipeline(&weights);
        renamed[2].0 = "vae/model2.safetensors".into();
        assert_ne!(plain, digest(renamed));
    }
}
