//! The folder of downloaded models.

use crate::checks::finding::Finding;
use crate::run::environment::Environment;

#[cfg(not(feature = "hub"))]
pub(super) fn look(_: &Environment) -> Finding {
    Finding::lacks(
        "models",
        "this xdit-cli was built without the feature hub: it downloads nothing",
        "give --model a folder, or build with --features hub",
        serde_json::json!(null),
    )
}

#[cfg(feature = "hub")]
pub(super) use cache::look;

#[cfg(feature = "hub")]
mod cache {
    use std::path::{Path, PathBuf};

    use serde_json::json;
    use xdit_models::quote;

    use super::{Environment, Finding};
    use crate::report::failure::Failure;
    use crate::run::hub_options;
    use crate::run::memory::shown;

    /// With less, no model is downloaded.
    const LEAST: u64 = 1 << 30;

    /// The cache of the hub, as `generate` without `--download-dir` finds it.
    pub(in crate::checks) fn look(environment: &Environment) -> Finding {
        let options = match hub_options::options(environment, None) {
            Ok(options) => options,
            Err(Failure::Usage(reason)) => {
                let cure = "correct or unset that variable";
                return Finding::wrong("models", reason, cure, json!(null));
            }
            Err(other) => {
                let cure = "make it readable, or set HF_TOKEN";
                return Finding::lacks("models", other.to_string(), cure, json!(null));
            }
        };
        let folder = options.cache_dir;
        let there = existing(&folder);
        let disk = there.as_deref().map(Disk::of);
        let free = disk.as_ref().and_then(|disk| disk.free);
        let models = count_of_models(&folder);
        let hub = match options.offline {
            true => "offline (HF_HUB_OFFLINE)".to_owned(),
            false => options.endpoint.to_string(),
        };
        let data = json!({
            "folder": folder.display().to_string(),
            "models": models,
            "free": free,
            "writable": disk.as_ref().map(|disk| disk.is_writable),
            "offline": options.offline,
            "endpoint": options.endpoint.to_string(),
            "token": options.token.is_some(),
        });
        let free_text = free.map_or_else(|| "unknown space".into(), shown);
        let found = format!(
            "{}, {free_text} free, {}; hub {hub}",
            quote::name(&folder.display().to_string()),
            quote::counted(models, "model"),
        );
        let cure = match disk {
            Some(disk) if !disk.is_writable => {
                "its folder cannot be written: set HF_HOME or give --download-dir"
            }
            _ if free.is_some_and(|free| free < LEAST) => {
                "free some space, or set HF_HOME to a folder on another disk"
            }
            None => "no part of that path exists: set HF_HOME or give --download-dir",
            Some(_) => return Finding::fine("models", found, data),
        };
        Finding::lacks("models", found, cure, data)
    }

    /// The folder, or the nearest one above it that exists.
    fn existing(folder: &Path) -> Option<PathBuf> {
        let folder = std::path::absolute(folder).ok()?;
        let found = folder.ancestors().find(|it| it.exists());
        found.map(Path::to_owned)
    }

    /// The number of repositories in the cache, complete or not.
    fn count_of_models(cache: &Path) -> usize {
        let entries = std::fs::read_dir(cache).into_iter().flatten().flatten();
        let is_model = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"models--");
        entries.filter(|entry| is_model(&entry.file_name())).count()
    }

    /// What a folder that exists has room for.
    struct Disk {
        free: Option<u64>,
        is_writable: bool,
    }

    impl Disk {
        #[cfg(unix)]
        fn of(folder: &Path) -> Self {
            use rustix::fs::{Access, access, statvfs};
            let free = statvfs(folder).ok();
            Self {
                free: free.and_then(|disk| disk.f_bavail.checked_mul(disk.f_frsize)),
                is_writable: access(folder, Access::WRITE_OK).is_ok(),
            }
        }

        #[cfg(not(unix))]
        fn of(folder: &Path) -> Self {
            let is_writable =
                std::fs::metadata(folder).is_ok_and(|it| !it.permissions().readonly());
            Self {
                free: None,
                is_writable,
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::checks::finding::CheckState;

        fn environment(home: &Path, more: (&'static str, &'static str)) -> Environment {
            let home = home.display().to_string();
            Environment::with(move |name| match name {
                "HF_HOME" => Some(home.clone()),
                _ => (name == more.0).then(|| more.1.to_owned()),
            })
        }

        #[test]
        fn a_cache_that_is_not_there_yet_has_the_room_of_its_disk() {
            let folder = tempfile::tempdir().unwrap();
            let home = folder.path().join("not/yet");
            let finding = look(&environment(&home, ("HF_HUB_OFFLINE", "1")));
            assert_eq!(finding.state, CheckState::Fine, "{finding:?}");
            assert_eq!(
                (&finding.data["models"], &finding.data["offline"]),
                (&json!(0), &json!(true))
            );
            #[cfg(unix)]
            assert!(finding.data["free"].as_u64().unwrap() > 0);
            std::fs::create_dir_all(home.join("hub/models--a--b")).unwrap();
            let finding = look(&environment(&home, ("HF_HUB_OFFLINE", "0")));
            assert!(finding.found.contains("1 model; hub http"), "{finding:?}");
        }

        #[test]
        fn a_variable_that_no_run_accepts_is_wrong() {
            let folder = tempfile::tempdir().unwrap();
            let finding = look(&environment(folder.path(), ("HF_HUB_ETAG_TIMEOUT", "soon")));
            assert_eq!(finding.state, CheckState::Wrong);
            assert!(
                finding.found.contains("HF_HUB_ETAG_TIMEOUT=soon"),
                "{finding:?}"
            );
        }
    }
}
