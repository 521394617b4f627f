//! Which pipeline the flags name, and which of its files are needed.

use std::path::{Path, PathBuf};

use xdit_models::{ModelSource, quote};

use crate::args::cli::{HubArgs, ModelArgs};
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
    /// What the flags say; the demo if they name none.
    pub(crate) fn new(args: &'a ModelArgs) -> Self {
        Self {
            name: args.model.as_deref().unwrap_or(DEMO),
            hub: &args.hub,
            no_t5: args.no_t5,
        }
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

/// The folder that holds the files of `name`, now or after the download; none of the demo, or where there is no
/// such model.
pub(crate) fn folder_of(name: &str, hub: &HubArgs, environment: &Environment) -> Option<PathBuf> {
    match name {
        DEMO => None,
        folder if Path::new(folder).exists() => Some(folder.into()),
        id if is_hub_id(id) => repository(id, hub, environment),
        _ => None,
    }
}

/// Whether `name` is looked for on the hub: there is no such folder, and it could be a hub id.
pub(crate) fn is_on_the_hub(name: &str) -> bool {
    name != DEMO && !Path::new(name).exists() && is_hub_id(name)
}

#[cfg(not(feature = "hub"))]
fn repository(_name: &str, _hub: &HubArgs, _environment: &Environment) -> Option<PathBuf> {
    None
}

/// Whether the hub allows such a name: two parts of letters, digits, `-`, `_` and `.`.
pub(crate) fn is_hub_id(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['-', '.'])
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
        ] {
            assert!(!is_hub_id(no), "{no:?}");
        }
    }
}
