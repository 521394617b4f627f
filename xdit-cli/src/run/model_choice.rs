//! Which pipeline the flags name, and which of its files are needed.

use std::path::{Path, PathBuf};

use xdit_models::{ModelSource, quote};

use crate::args::model::{FilesArgs, HubArgs, ModelArgs};
use crate::report::failure::Failure;
use crate::run::environment::Environment;
#[cfg(feature = "hub")]
use crate::run::hub_options::repository;

/// The name of the pipeline inside the binary.
pub(crate) const DEMO: &str = "demo";

/// What may refuse a pipeline by its configurations.
pub(crate) type ConfigCheck<'a> = &'a dyn Fn(&ModelSource) -> xdit_models::Result<()>;

/// Which files of a pipeline are needed.
#[derive(Clone, Copy)]
pub(crate) enum NeededFiles<'a> {
    /// All.
    All,
    /// All; but weights are downloaded only when this has seen the configurations.
    #[cfg_attr(
        not(feature = "hub"),
        expect(dead_code, reason = "it is the hub that calls it")
    )]
    Checked(ConfigCheck<'a>),
    /// All but weights, and the headers of these.
    Headers,
    /// None of the weights.
    Configurations,
}

/// Which pipeline is wanted, and which parts of it.
#[derive(Clone, Copy)]
pub(crate) struct ModelChoice<'a> {
    /// A folder, a hub id, or `demo`.
    pub name: &'a str,
    /// Where on the hub, and which weights.
    pub hub: &'a HubArgs,
    /// Whether the optional T5 is left out.
    pub no_t5: bool,
}

impl<'a> ModelChoice<'a> {
    /// Returns these files of the pipeline `name`.
    pub(crate) fn new(name: &'a str, files: &'a FilesArgs) -> Self {
        Self {
            name,
            hub: &files.hub,
            no_t5: files.no_t5,
        }
    }

    /// Returns the choice of `--model`; the demo without it.
    pub(crate) fn of_flags(model: &'a ModelArgs, files: &'a FilesArgs) -> Self {
        Self::new(model.model.as_deref().unwrap_or(DEMO), files)
    }

    /// The wanted parts of a pipeline.
    ///
    /// # Errors
    /// As [`ModelSource::without_t5`].
    pub(crate) fn parts(&self, source: ModelSource) -> xdit_models::Result<ModelSource> {
        match self.no_t5 {
            true => source.without_t5(),
            false => Ok(source),
        }
    }

    /// `--revision` without a hub id would be ignored in silence.
    ///
    /// # Errors
    /// [`Failure::Usage`] when a flag is given that only a hub id gives a meaning.
    pub(crate) fn refuse_hub_flags(&self) -> Result<(), Failure> {
        let given = [
            ("--revision", self.hub.revision.is_some()),
            ("--download-dir", self.hub.download_dir.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Failure::usage(format!(
                "{flag} needs a hub id as --model, and {} is none",
                quote::name(self.name)
            ))),
            None => Ok(()),
        }
    }
}

/// Where the files of a pipeline are, according to its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ModelPlace<'a> {
    /// In the binary.
    Demo,
    /// In this folder.
    Folder(&'a Path),
    /// In the repository of the hub with this id.
    Hub(&'a str),
    /// Nowhere: there is no such folder, and the hub allows no such name.
    Nowhere,
}

impl<'a> ModelPlace<'a> {
    /// Returns the place of the pipeline `name`. A folder hides a hub id of the same name.
    pub(crate) fn of(name: &'a str) -> Self {
        match name {
            DEMO => Self::Demo,
            folder if Path::new(folder).exists() => Self::Folder(Path::new(folder)),
            id if is_hub_id(id) => Self::Hub(id),
            _ => Self::Nowhere,
        }
    }
}

/// Returns the folder that holds the files of `name`, now or after the download, or `None` for the demo and for a name that
/// means nothing.
pub(crate) fn folder_of(name: &str, hub: &HubArgs, environment: &Environment) -> Option<PathBuf> {
    match ModelPlace::of(name) {
        ModelPlace::Folder(folder) => Some(folder.to_owned()),
        ModelPlace::Hub(id) => repository(id, hub, environment),
        ModelPlace::Demo | ModelPlace::Nowhere => None,
    }
}

#[cfg(not(feature = "hub"))]
fn repository(_name: &str, _hub: &HubArgs, _environment: &Environment) -> Option<PathBuf> {
    None
}

/// Whether the hub allows such a name: two parts of letters, digits, `-`, `_` and `.`, without `--` and `..`.
fn is_hub_id(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['-', '.'])
            && !part.contains("--")
            && !part.contains("..")
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    name.split_once('/')
        .is_some_and(|(organisation, name)| part(organisation) && part(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids() {
        for id in ["black-forest-labs/FLUX.1-dev", "a/b", "0/9_x"] {
            assert!(is_hub_id(id), "{id}");
        }
        for no in [
            "demo", "a/b/c", "/a", "a/", "./a", "../a", "a b/c", "-a/b", "a/.b", "C:\\a", "a/b\n",
            "a--b/c", "a/b..c",
        ] {
            assert!(!is_hub_id(no), "{no:?}");
        }
    }

    #[test]
    fn places() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str().unwrap();
        assert_eq!(ModelPlace::of(name), ModelPlace::Folder(folder.path()));
        assert_eq!(ModelPlace::of(DEMO), ModelPlace::Demo);
        assert_eq!(ModelPlace::of("./demo"), ModelPlace::Nowhere);
        assert_eq!(ModelPlace::of("a/no-such"), ModelPlace::Hub("a/no-such"));
    }
}
