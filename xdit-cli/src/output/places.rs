//! The files that a run reads and writes besides its pictures. No written file may replace another one.
//!
//! Two names are the same place if they are equal after links, `.` and `..` are resolved, if they are two links of one file, or
//! if a new file's name differs from the other only in case, which some file systems ignore.

use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use xdit_models::ModelSource;

use crate::output::partial::folder_of;
use crate::report::failure::{Failure, shown as name_of};

/// The files and folders in flags, for comparison with each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Vec<Place>);

#[derive(Clone, Debug)]
struct Place {
    /// The flag and its value.
    shown: String,
    spot: Spot,
    what: PlaceUse,
}

#[derive(Clone, Debug)]
enum PlaceUse {
    /// A file that is read.
    Read,
    /// The folder of a pipeline, and its parts in other folders.
    Model {
        folders: HashSet<Id>,
        files: HashSet<Id>,
    },
    /// A file that is written.
    Written,
    /// A folder that `.safetensors` files are written to.
    Dump,
}

/// The target of a name: without links, as far as it existed at that time.
#[derive(Clone, Debug)]
struct Spot {
    path: PathBuf,
}

impl Places {
    /// Adds a file that is read.
    pub(crate) fn read(&mut self, flag: &str, file: &Path) {
        self.add(flag, file, PlaceUse::Read);
    }

    /// Adds the pipeline in `folder`, with all parts, also those that are links to other folders.
    pub(crate) fn model(&mut self, name: &str, folder: &Path) {
        let (mut folders, mut files) = (HashSet::new(), HashSet::new());
        folders.extend(id(folder));
        // A folder that is no pipeline is refused later.
        let listed = ModelSource::folder(folder).and_then(|source| source.list());
        for file in listed.unwrap_or_default() {
            let file = folder.join(file);
            folders.extend(id(folder_of(&file)));
            files.extend(id(&file));
        }
        self.add(name, folder, PlaceUse::Model { folders, files });
    }

    /// Adds the file of a flag that writes it.
    ///
    /// # Errors
    /// As [`Places::check`].
    pub(crate) fn write(&mut self, flag: &str, file: &Path) -> Result<(), Failure> {
        self.check(flag, file)?;
        self.add(flag, file, PlaceUse::Written);
        Ok(())
    }

    /// Adds the folder of `--dump`.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it is inside the pipeline's folder.
    pub(crate) fn dump(&mut self, flag: &str, folder: &Path) -> Result<(), Failure> {
        let shown = format!("{flag} {}", name_of(folder));
        let spot = Spot::of(folder);
        let models = self
            .0
            .iter()
            .filter(|p| matches!(p.what, PlaceUse::Model { .. }));
        for place in models {
            place.refuse(&spot, &shown)?;
        }
        self.add(flag, folder, PlaceUse::Dump);
        Ok(())
    }

    /// Checks that the new `file` replaces nothing that another flag reads or writes. [`Places::write`] calls it too.
    ///
    /// # Errors
    /// [`Failure::Usage`], which names both flags.
    pub(crate) fn check(&self, flag: &str, file: &Path) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let shown = format!("{flag} {}", name_of(file));
        let spot = Spot::of(file);
        self.0
            .iter()
            .try_for_each(|place| place.refuse(&spot, &shown))
    }

    /// Like [`Places::check`], for many files of one folder. After the first file it checks only those that exist or have the
    /// name of a place, because there may be a million.
    ///
    /// # Errors
    /// [`Failure::Usage`], which names both flags.
    pub(crate) fn check_all(
        &self,
        flag: &str,
        files: impl Iterator<Item = PathBuf>,
    ) -> Result<(), Failure> {
        let names: HashSet<_> = self
            .0
            .iter()
            .filter_map(|p| folded_name(&p.spot.path))
            .collect();
        for (index, file) in files.enumerate() {
            let named = || folded_name(&file).is_some_and(|name| names.contains(&name));
            if index == 0 || fs::symlink_metadata(&file).is_ok() || named() {
                self.check(flag, &file)?;
            }
        }
        Ok(())
    }

    /// As [`Places::check`] for everything that was added with [`Places::write`] and [`Places::dump`], against the
    /// pipeline `name` in `folder`, which has become known since.
    ///
    /// # Errors
    /// [`Failure::Usage`], which names both flags.
    pub(crate) fn add_model(&mut self, name: &str, folder: &Path) -> Result<(), Failure> {
        let before = self.0.len();
        self.model(name, folder);
        let (others, model) = self.0.split_at(before);
        let written = others
            .iter()
            .filter(|p| matches!(p.what, PlaceUse::Written | PlaceUse::Dump));
        for place in written {
            model
                .iter()
                .try_for_each(|model| model.refuse(&place.spot, &place.shown))?;
        }
        Ok(())
    }

    fn add(&mut self, flag: &str, path: &Path, what: PlaceUse) {
        self.0.push(Place {
            shown: format!("{flag} {}", name_of(path)),
            spot: Spot::of(path),
            what,
        });
    }
}

impl Place {
    /// Refuses the file `new` of a flag if it is this place.
    fn refuse(&self, new: &Spot, shown: &str) -> Result<(), Failure> {
        let other = &self.shown;
        let reason = match &self.what {
            PlaceUse::Read if new.is(&self.spot) => {
                format!("is the file of {other}, which is read")
            }
            PlaceUse::Written if new.is(&self.spot) => format!("is also the file of {other}"),
            PlaceUse::Written | PlaceUse::Dump if new.is(&self.spot) || new.holds(&self.spot) => {
                format!("is a folder of {other}")
            }
            PlaceUse::Written if self.spot.holds(new) => {
                format!("lies in what is the file of {other}")
            }
            PlaceUse::Dump if self.spot.dumps(new) => {
                format!("is a .safetensors file in the folder of {other}, which writes such files")
            }
            PlaceUse::Model { folders, files } => {
                let inside = new
                    .path
                    .ancestors()
                    .filter_map(id)
                    .any(|id| folders.contains(&id));
                match id(&new.path).is_some_and(|id| files.contains(&id)) {
                    _ if inside => format!("lies in the folder of {other}"),
                    true => format!("is a file of {other}"),
                    false => return Ok(()),
                }
            }
            _ => return Ok(()),
        };
        Err(Failure::usage(format!(
            "{shown}: {reason}; name another place"
        )))
    }
}

impl Spot {
    fn of(path: &Path) -> Self {
        Self { path: real(path) }
    }

    fn is(&self, other: &Self) -> bool {
        match (id(&self.path), id(&other.path)) {
            (Some(a), Some(b)) => a == b,
            // Where one name is taken and the other is not, case is told apart.
            (None, None) => {
                let folder = |spot: &Self| Self::of(folder_of(&spot.path));
                self.path == other.path
                    || folded_name(&self.path).is_some_and(|name| {
                        folded_name(&other.path) == Some(name) && folder(self).is(&folder(other))
                    })
            }
            _ => false,
        }
    }

    /// Returns whether `other` is inside it.
    fn holds(&self, other: &Self) -> bool {
        other.path != self.path && other.path.starts_with(&self.path)
    }

    /// Returns whether `file` is one that `--dump` with this folder may write.
    fn dumps(&self, file: &Self) -> bool {
        let tensors = file
            .path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("safetensors"));
        let folder = Self::of(folder_of(&file.path));
        tensors && folder.is(self)
    }
}

/// Returns the name of a file in file systems that ignore case.
fn folded_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().to_lowercase())
}

/// `path` without links, `.` and `..`; what does not exist of it is taken as it reads.
fn real(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (path.parent(), path.components().next_back()) {
        (Some(_), Some(Component::Normal(name))) => real(folder_of(path)).join(name),
        (Some(parent), Some(Component::ParentDir)) => {
            let mut real = real(parent);
            real.pop();
            real
        }
        _ => path.to_owned(),
    }
}

/// Returns the identity of a file or folder.
#[cfg(unix)]
type Id = (u64, u64);

#[cfg(unix)]
fn id(path: &Path) -> Option<Id> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Elsewhere the path without links.
#[cfg(not(unix))]
type Id = PathBuf;

#[cfg(not(unix))]
fn id(path: &Path) -> Option<Id> {
    fs::canonicalize(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `--output FILE` is told beside these.
    fn told(places: &Places, file: &Path) -> String {
        match places.check("--output", file) {
            Ok(()) => String::new(),
            Err(failure) => {
                assert_eq!(failure.exit_code(), 2);
                failure.to_string()
            }
        }
    }

    #[test]
    fn one_file_by_many_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        let mut places = Places::default();
        places.write("--trace", &at("t.json")).unwrap();
        for same in [
            "t.json",
            "./t.json",
            "sub/../t.json",
            "T.json",
            "new/../t.json",
        ] {
            let told = told(&places, &at(same));
            assert!(
                told.contains("is also the file of --trace"),
                "{same}: {told}"
            );
        }
        for other in ["t2.json", "sub/t.json", "t.json.png"] {
            assert_eq!(told(&places, &at(other)), "", "{other}");
        }
        assert!(told(&places, &at("t.json/a.png")).contains("lies in what is the file"));
        places.write("--log", &at("d/e.json")).unwrap();
        assert!(told(&places, &at("d")).contains("is a folder of"));
    }

    #[cfg(unix)]
    #[test]
    fn links() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("prompts"), "a").unwrap();
        fs::hard_link(at("prompts"), at("hard.png")).unwrap();
        symlink("prompts", at("soft.png")).unwrap();
        fs::create_dir_all(at("elsewhere")).unwrap();
        fs::write(at("elsewhere/w.safetensors"), "w").unwrap();
        fs::write(at("blob"), "b").unwrap();
        fs::create_dir(at("model")).unwrap();
        symlink("../elsewhere", at("model/transformer")).unwrap();
        symlink("../blob", at("model/model_index.json")).unwrap();
        symlink("model", at("alias")).unwrap();
        let mut places = Places::default();
        places.read("--prompt-file", &at("prompts"));
        places.model("--model", &at("alias"));
        for name in ["hard.png", "soft.png"] {
            assert!(told(&places, &at(name)).contains("which is read"), "{name}");
        }
        for name in ["model/a.png", "alias/new/a.png", "elsewhere/a.png", "model"] {
            assert!(
                told(&places, &at(name)).contains("in the folder of --model"),
                "{name}"
            );
        }
        assert!(told(&places, &at("blob")).contains("is a file of --model"));
        assert_eq!(told(&places, &at("other.png")), "");
        assert!(places.dump("--dump", &at("model/dump")).is_err());
        let mut later = Places::default();
        later.write("--trace", &at("elsewhere/t.json")).unwrap();
        assert!(later.add_model("the recorded model", &at("model")).is_err());
    }

    #[test]
    fn a_dump_has_its_tensors_to_itself() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut places = Places::default();
        places.dump("--dump", &at("d")).unwrap();
        for name in [
            "d/latents.safetensors",
            "d/any.SAFETENSORS",
            "x/../d/a.safetensors",
        ] {
            assert!(told(&places, &at(name)).contains("--dump"), "{name}");
        }
        assert!(told(&places, &at("d")).contains("is a folder of --dump"));
        for name in [
            "d/trace.json",
            "d/a.png",
            "d/sub/a.safetensors",
            "d.safetensors",
        ] {
            assert_eq!(told(&places, &at(name)), "", "{name}");
        }
    }
}
