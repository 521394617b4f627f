//! The files of a run: names, numbers, and checks that they can be written.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::args::output::OutputFormat;
use crate::output::partial::{Existing, PartialFile, Partials, replaceable};
use crate::output::places::Places;
use crate::report::failure::{Failure, shown};

/// The number of names that are tried if the program chooses the name.
const MOST_NAMES: usize = 100_000;
/// The source of the names.
const FLAG: &str = "--output";
/// What stands for standard output.
const STDOUT: &str = "-";

/// The names of the files of a run.
#[derive(Debug)]
pub(crate) struct OutputPlan {
    folder: PathBuf,
    stem: String,
    extension: &'static str,
    files: usize,
    /// Whether the user chose the name, so that an existing file of that name is replaced.
    named: bool,
    /// Whether the one file goes to standard output.
    is_stdout: bool,
    partials: Partials,
    places: Places,
}

impl OutputPlan {
    /// Chooses the files of `images` images. Creates a folder whose name ends with a `/`.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a name with a wrong extension, [`Failure::Output`] for a place that takes no file.
    /// [`OutputPlan::check`] checks the names of the files.
    pub(crate) fn new(
        output: Option<&Path>,
        kind: OutputFormat,
        images: usize,
        seed: i128,
        partials: &Partials,
        places: &Places,
    ) -> Result<Self, Failure> {
        let output = output.unwrap_or(Path::new(""));
        let is_stdout = output == Path::new(STDOUT);
        if is_stdout && kind == OutputFormat::Png && images > 1 {
            return Err(Failure::usage(format!(
                "--output -: standard output takes 1 image, and this run draws {images}"
            )));
        }
        if is_stdout && std::io::stdout().is_terminal() {
            return Err(Failure::usage(
                "--output -: standard output is a terminal; redirect it to a file or a program",
            ));
        }
        if output.exists() && !output.is_dir() && !output.is_file() {
            return Err(Failure::output(output, "is not a regular file"));
        }
        let names_folder =
            output.as_os_str().is_empty() || output.is_dir() || ends_in_separator(output);
        let (folder, stem) = if names_folder {
            (output.to_owned(), stem_of_seed(seed))
        } else {
            let folder = output.parent().unwrap_or(Path::new("")).to_owned();
            (folder, stem_of(output, kind)?)
        };
        let plan = Self {
            folder,
            stem,
            extension: match kind {
                OutputFormat::Png => "png",
                OutputFormat::Latent | OutputFormat::Float => "safetensors",
            },
            files: if kind == OutputFormat::Png { images } else { 1 },
            named: !names_folder,
            is_stdout,
            partials: partials.clone(),
            places: places.clone(),
        };
        if names_folder && !is_stdout {
            partials.make_folder(&plan.folder)?;
        }
        Ok(plan)
    }

    /// The same place for the images of line `number` of a prompt file, whose first seed is `seed`: the number is part of every
    /// name, and so is the seed unless the user chose the name.
    pub(crate) fn for_line(
        &self,
        (number, seed): (usize, i128),
        images: usize,
        kind: OutputFormat,
    ) -> Self {
        let stem = match self.named {
            true => self.stem.clone(),
            false => stem_of_seed(seed),
        };
        Self {
            folder: self.folder.clone(),
            stem: format!("{stem}-{number:05}"),
            extension: self.extension,
            files: if kind == OutputFormat::Png { images } else { 1 },
            named: self.named,
            is_stdout: false,
            partials: self.partials.clone(),
            places: self.places.clone(),
        }
    }

    /// Writes the file of image `index` with `write`, and gives it its final name when it is complete. Returns the name.
    ///
    /// # Errors
    /// [`Failure::Output`], and the errors of `write`.
    pub(crate) fn write(
        &self,
        index: usize,
        mut write: impl FnMut(&mut dyn Write) -> Result<(), String>,
    ) -> Result<PathBuf, Failure> {
        if self.is_stdout {
            let mut bytes = Vec::new();
            write(&mut bytes).map_err(|reason| Failure::output(STDOUT, reason))?;
            let mut stdout = std::io::stdout().lock();
            let written = stdout.write_all(&bytes).and_then(|()| stdout.flush());
            return written.map(|()| STDOUT.into()).map_err(Failure::Stdout);
        }
        for attempt in 0..MOST_NAMES {
            let path = self.path(index, attempt);
            // The trace's name is not in the folder yet.
            let taken = || path.exists() || self.places.check(FLAG, &path).is_err();
            if !self.named && taken() {
                continue;
            }
            let mut partial = PartialFile::create(&path, &self.partials)?;
            write(partial.file()).map_err(|reason| Failure::output(&path, reason))?;
            let existing = if self.named {
                Existing::Replace
            } else {
                Existing::Keep
            };
            if let Some(written) = partial.commit(existing)? {
                return Ok(if self.named { path } else { written });
            }
        }
        Err(Failure::output(
            self.path(index, 0),
            "too many files of this name",
        ))
    }

    /// Whether the results go to standard output.
    pub(crate) fn is_stdout(&self) -> bool {
        self.is_stdout
    }

    /// The files, if all of them exist already.
    pub(crate) fn existing(&self) -> Option<Vec<PathBuf>> {
        let mut names = (0..self.files).map(|index| self.path(index, 0));
        let all = names.clone();
        names.all(|name| name.is_file()).then(|| all.collect())
    }

    /// Returns the name of image `index`. `attempt` counts the names that existed already.
    fn path(&self, index: usize, attempt: usize) -> PathBuf {
        let number = if self.files > 1 {
            format!("_{index:03}")
        } else {
            String::new()
        };
        let again = if attempt > 0 {
            format!("-{attempt}")
        } else {
            String::new()
        };
        self.folder
            .join(format!("{}{again}{number}.{}", self.stem, self.extension))
    }

    /// Checks that the files can be written now: tries the folder, and checks the names like [`OutputPlan::check_names`].
    ///
    /// # Errors
    /// [`Failure::Output`] if the folder cannot be written, and those of [`OutputPlan::check_names`].
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_stdout {
            return Ok(());
        }
        PartialFile::create(&self.path(0, 0), &self.partials)?;
        self.check_names()
    }

    /// Checks that the names are short enough, and are no folder and no other file of the run.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a name that is one of the places of the run, [`Failure::LongName`] for a name that is too long
    /// with its number, [`Failure::Output`] for the name of a folder.
    pub(crate) fn check_names(&self) -> Result<(), Failure> {
        let names = || (0..self.files.min(MOST_NAMES)).map(|index| self.path(index, 0));
        self.places.check_all(FLAG, names())?;
        let last = self.files.saturating_sub(1);
        if !self.named {
            // The longest that may be chosen.
            return replaceable(&self.path(last, MOST_NAMES - 1)).map(drop);
        }
        names()
            .chain([self.path(last, 0)])
            .try_for_each(|name| replaceable(&name).map(drop))
    }
}

/// The name that this program chooses.
fn stem_of_seed(seed: i128) -> String {
    format!("xdit-{seed}")
}

/// Returns the name without its extension, which must be missing or fit.
fn stem_of(output: &Path, kind: OutputFormat) -> Result<String, Failure> {
    let name = output
        .file_name()
        .ok_or_else(|| Failure::output(output, "is not the name of a file"))?
        .to_str()
        .ok_or_else(|| Failure::output(output, "the name is not UTF-8"))?;
    let Some((stem, extension)) = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()) else {
        return Ok(name.to_owned());
    };
    match extension.to_lowercase().as_str() {
        "png" | "safetensors" => Ok(stem.to_owned()),
        "jpg" | "jpeg" | "webp" | "gif" | "bmp" | "tif" | "tiff" | "avif" | "npy" | "npz"
        | "pt" => {
            let (what, ending) = match kind {
                OutputFormat::Png => ("images are", "png"),
                _ => ("tensors are", "safetensors"),
            };
            Err(Failure::usage(format!(
                "--output {}: {what} written as .{ending} only; use {stem}.{ending}",
                shown(output)
            )))
        }
        _ => Ok(name.to_owned()),
    }
}

/// Returns whether a name is that of a folder, even if the folder does not exist.
pub(crate) fn ends_in_separator(path: &Path) -> bool {
    path.to_str()
        .is_some_and(|text| text.ends_with(std::path::is_separator))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(output: &Path, kind: OutputFormat, images: usize) -> Result<OutputPlan, Failure> {
        let (partials, places) = (Partials::default(), Places::default());
        let plan = OutputPlan::new(Some(output), kind, images, 42, &partials, &places)?;
        plan.check().map(|()| plan)
    }

    fn fill(plan: &OutputPlan, index: usize) -> String {
        let path = plan
            .write(index, |file| {
                file.write_all(b"x").map_err(|e| e.to_string())
            })
            .unwrap();
        path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn names_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(
            fill(&plan(&at("a.png"), OutputFormat::Png, 1).unwrap(), 0),
            "a.png"
        );
        assert_eq!(
            fill(&plan(&at("a"), OutputFormat::Png, 1).unwrap(), 0),
            "a.png"
        );
        assert_eq!(
            fill(&plan(&at("v1.5"), OutputFormat::Png, 1).unwrap(), 0),
            "v1.5.png"
        );
        assert_eq!(
            fill(&plan(&at(".hidden"), OutputFormat::Png, 1).unwrap(), 0),
            ".hidden.png"
        );
        let two = plan(&at("b.PNG"), OutputFormat::Png, 2).unwrap();
        assert_eq!(fill(&two, 1), "b_001.png");
        let latents = plan(&at("a.png"), OutputFormat::Latent, 3).unwrap();
        assert_eq!(fill(&latents, 0), "a.safetensors");
        let message = plan(&at("a.jpg"), OutputFormat::Png, 1)
            .unwrap_err()
            .to_string();
        assert!(message.contains("use a.png"), "{message}");
    }

    #[test]
    fn lines_have_names_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let all = plan(&folder.path().join("set.png"), OutputFormat::Png, 1).unwrap();
        let first = all.for_line((1, 42), 1, OutputFormat::Png);
        assert_eq!(fill(&first, 0), "set-00001.png");
        let tenth = all.for_line((10, 42), 2, OutputFormat::Png);
        assert_eq!(fill(&tenth, 1), "set-00010_001.png");
    }

    #[test]
    fn chosen_names_never_replace() {
        let folder = tempfile::tempdir().unwrap();
        let one = || plan(folder.path(), OutputFormat::Png, 1).unwrap();
        assert_eq!(fill(&one(), 0), "xdit-42.png");
        assert_eq!(fill(&one(), 0), "xdit-42-1.png");
        let two = plan(folder.path(), OutputFormat::Png, 2).unwrap();
        assert_eq!(fill(&two, 0), "xdit-42_000.png");
        assert_eq!(fill(&two, 0), "xdit-42-1_000.png");
    }

    #[test]
    fn given_names_replace() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.png");
        for _ in 0..2 {
            assert_eq!(
                fill(&plan(&file, OutputFormat::Png, 1).unwrap(), 0),
                "a.png"
            );
        }
    }

    #[test]
    fn new_folder_by_its_separator() {
        let folder = tempfile::tempdir().unwrap();
        let nested = PathBuf::from(format!("{}/", folder.path().join("x/y").display()));
        assert_eq!(
            fill(&plan(&nested, OutputFormat::Float, 2).unwrap(), 0),
            "xdit-42.safetensors"
        );
        assert!(folder.path().join("x/y/xdit-42.safetensors").is_file());
    }

    #[test]
    fn unwritable_places_are_refused_before_anything_runs() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no/such/a.png");
        let failure = plan(&missing, OutputFormat::Png, 1).unwrap_err();
        assert_eq!(failure.exit_code(), 1);
        assert!(
            failure.to_string().contains("there is no folder"),
            "{failure}"
        );
        std::fs::create_dir(folder.path().join("b_001.png")).unwrap();
        let failure = plan(&folder.path().join("b.png"), OutputFormat::Png, 2).unwrap_err();
        assert!(failure.to_string().contains("is a folder"), "{failure}");
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(&folder.path().join("a.png"), OutputFormat::Png, 1).unwrap();
        let failure = plan.write(0, |_| Err("disk full".into())).unwrap_err();
        assert!(
            failure
                .to_string()
                .ends_with("a.png: cannot be written: disk full")
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
