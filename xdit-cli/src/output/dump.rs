//! `--dump DIR`: every stage of a run as safetensors, under diffusers' names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xdit_kernels::Tensor;
use xdit_models::{Error, Result};

use crate::output::partial::{Existing, PartialFile, Partials};
use crate::output::tensor_file::{self, Entry, EntryData};
use crate::report::failure::Failure;
use crate::report::failure::system_reason;

/// The longest name of a stage.
const LONGEST_NAME: usize = 64;

/// A folder of stages: `NAME.safetensors` holds one tensor with the name NAME.
#[derive(Debug)]
pub(crate) struct Dump {
    folder: PathBuf,
    partials: Partials,
    /// An error that could not be reported yet.
    failed: Option<Error>,
}

impl Dump {
    /// Opens the folder, and creates it if it is missing. Refuses a folder with `.safetensors` files, so that steps of two runs
    /// never mix.
    ///
    /// # Errors
    /// [`Failure::Output`] if the folder cannot be created or written, or contains such files.
    pub(crate) fn create(folder: &Path, partials: &Partials) -> std::result::Result<Self, Failure> {
        let failed = |e: io::Error| Failure::output(folder, system_reason(&e));
        partials.make_folder(folder)?;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if Path::new(&name)
                .extension()
                .is_some_and(|e| e == "safetensors")
            {
                let reason = "holds .safetensors files already; --dump needs a folder without";
                return Err(Failure::output(folder, reason));
            }
        }
        // The longest possible name of a stage.
        let name = format!("{}.safetensors", "x".repeat(LONGEST_NAME));
        PartialFile::create(&folder.join(name), partials)?;
        Ok(Self {
            folder: folder.to_owned(),
            partials: partials.clone(),
            failed: None,
        })
    }

    /// Writes a tensor.
    ///
    /// # Errors
    /// [`Error::Io`] if this tensor, or earlier token ids, could not be written.
    pub(crate) fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.write(name, EntryData::Tensor(tensor)),
        }
    }

    /// Writes token ids. The next [`Dump::tensor`] returns a failure.
    pub(crate) fn ids(&mut self, name: &str, ids: &[Vec<u32>]) {
        if let Err(error) = self.write(name, EntryData::Ids(ids)) {
            self.failed.get_or_insert(error);
        }
    }

    fn write(&self, name: &str, data: EntryData<'_>) -> Result<()> {
        let path = self
            .folder
            .join(format!("{}.safetensors", name.replace(['/', '\\'], ".")));
        let error = |reason: String| Error::Io {
            path: path.clone(),
            source: io::Error::other(reason),
        };
        let failed = |failure: Failure| {
            error(match failure {
                Failure::Output { reason, .. } => reason,
                other => other.to_string(),
            })
        };
        let mut partial = PartialFile::create(&path, &self.partials).map_err(failed)?;
        let mut file = io::BufWriter::new(partial.file());
        tensor_file::write(&mut file, &[Entry { name, data }], &[])
            .and_then(|()| io::Write::flush(&mut file))
            .map_err(|e| error(system_reason(&e)))?;
        drop(file);
        partial.commit(Existing::Replace).map(drop).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdit_kernels::Device;

    #[test]
    fn a_file_for_each_name() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("new/dump");
        let mut dump = Dump::create(&place, &Partials::default()).unwrap();
        dump.ids("input_ids", &[vec![1, 2]]);
        dump.tensor(
            "step/latents",
            &Tensor::from_slice(&[1f32], [1], &Device::cpu()).unwrap(),
        )
        .unwrap();
        let mut names: Vec<_> = fs::read_dir(&place)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["input_ids.safetensors", "step.latents.safetensors"]);

        let again = Dump::create(&place, &Partials::default()).unwrap_err();
        assert!(again.to_string().contains("already"), "{again}");
        names
            .iter()
            .for_each(|name| fs::remove_file(place.join(name)).unwrap());
        fs::write(place.join("notes.txt"), b"").unwrap();
        Dump::create(&place, &Partials::default()).unwrap();
    }

    #[test]
    fn lost_ids_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("dump");
        let mut dump = Dump::create(&place, &Partials::default()).unwrap();
        fs::remove_dir(&place).unwrap();
        dump.ids("input_ids", &[vec![1]]);
        let error = dump
            .tensor(
                "x",
                &Tensor::from_slice(&[1f32], [1], &Device::cpu()).unwrap(),
            )
            .unwrap_err();
        assert!(
            error.to_string().contains("input_ids.safetensors"),
            "{error}"
        );
        fs::write(&place, b"").unwrap();
        assert_eq!(
            Dump::create(&place, &Partials::default())
                .unwrap_err()
                .exit_code(),
            1
        );
    }
}
