//! Pipelines from the hub: where huggingface_hub's environment says, with a bar for each file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use xdit_models::hub::{HubOptions, snapshot_checked};
use xdit_models::{ModelSource, quote};

use crate::args::HubArgs;
use crate::console::Unit;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::model::Files;
use crate::partial::system_reason;
use crate::session::Session;

/// The pipeline `id`, downloaded as far as the cache lacks it, and its commit.
///
/// # Errors
/// [`Failure::Model`] when there is none, its licence is not accepted, or the network fails.
pub(crate) fn download(
    id: &str,
    args: &HubArgs,
    files: Files<'_>,
    session: &Session,
) -> Result<(ModelSource, Option<String>), Failure> {
    let environment = &session.environment;
    let mut options = options(environment, args.download_dir.as_deref())?;
    options.configurations_only = matches!(files, Files::Configurations);
    let mut check = |source: &ModelSource| match files {
        Files::Checked(check) => check(source),
        _ => Ok(()),
    };
    tracing::info!(id, ?options, "hub");
    let draws = !environment.is_on("HF_HUB_DISABLE_PROGRESS_BARS");
    let mut bar: Option<(String, ProgressBar)> = None;
    let found = snapshot_checked(
        id,
        args.revision.as_deref(),
        args.variant.as_deref(),
        &options,
        &mut check,
        &mut |progress| {
            if !draws {
                return;
            }
            if bar.as_ref().is_none_or(|(file, _)| file != progress.file) {
                if let Some((_, bar)) = bar.take() {
                    bar.finish_and_clear();
                }
                let new = session.console.bar("download", progress.total, Unit::Bytes);
                let number = format!(
                    "{}/{} {}",
                    progress.files_done + 1,
                    progress.files_total,
                    progress.file
                );
                new.set_message(quote::shorten(&number));
                bar = Some((progress.file.to_owned(), new));
            }
            if let Some((_, bar)) = &bar {
                bar.set_length(progress.total);
                bar.set_position(progress.done);
            }
        },
    );
    if let Some((_, bar)) = bar {
        bar.finish_and_clear();
    }
    let found = found?;
    Ok((found.source, Some(found.commit)))
}

/// What huggingface_hub reads from its environment (its page "Environment variables").
fn options(environment: &Environment, download_dir: Option<&Path>) -> Result<HubOptions, Failure> {
    let home = || path(environment, "HOME").or_else(|| path(environment, "USERPROFILE"));
    let hf_home = path(environment, "HF_HOME")
        .or_else(|| path(environment, "XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| home().map(|home| home.join(".cache/huggingface")));
    let cache = download_dir
        .map(Path::to_owned)
        .or_else(|| path(environment, "HF_HUB_CACHE"))
        .or_else(|| hf_home.as_ref().map(|home| home.join("hub")));
    let Some(cache) = cache else {
        return Err(Failure::usage(
            "no folder for the hub's cache: set HF_HOME or give --download-dir",
        ));
    };
    let mut options = HubOptions::new(cache);
    if let Some(endpoint) = environment.var("HF_ENDPOINT") {
        options.endpoint = endpoint.to_owned();
    }
    options.offline = environment.is_on("HF_HUB_OFFLINE");
    for (name, timeout) in [
        ("HF_HUB_ETAG_TIMEOUT", &mut options.etag_timeout),
        ("HF_HUB_DOWNLOAD_TIMEOUT", &mut options.download_timeout),
    ] {
        if let Some(text) = environment.var(name) {
            *timeout = seconds(name, text)?;
        }
    }
    options.token = match environment.var("HF_TOKEN") {
        Some(token) => Some(token.trim().to_owned()),
        None => {
            let named = path(environment, "HF_TOKEN_PATH");
            match named.or_else(|| hf_home.map(|home| home.join("token"))) {
                Some(file) => read_token(&file)?,
                None => None,
            }
        }
    };
    Ok(options)
}

/// The time in a variable, in seconds.
fn seconds(name: &str, text: &str) -> Result<Duration, Failure> {
    let seconds = text.trim().parse().ok().filter(|seconds| *seconds > 0);
    let wrong = || {
        Failure::usage(format!(
            "{name}={}: must be a number of seconds above 0",
            quote::shorten(text)
        ))
    };
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

/// The token in `file`, if there is such a file.
fn read_token(file: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        // A part of the path is a file.
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Ok(None),
        Err(e) => Err(Failure::input(file, system_reason(&e))),
    }
}

/// The path in a variable, with `~` as the home folder.
fn path(environment: &Environment, name: &str) -> Option<PathBuf> {
    let text = environment.var(name)?;
    match (text.strip_prefix("~/"), environment.var("HOME")) {
        (Some(rest), Some(home)) => Some(Path::new(home).join(rest)),
        _ => Some(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)], download_dir: Option<&str>) -> HubOptions {
        let environment = Environment::with(|name| {
            let pair = pairs.iter().find(|(key, _)| *key == name)?;
            Some(pair.1.to_owned())
        });
        options(&environment, download_dir.map(Path::new)).unwrap()
    }

    #[test]
    fn the_cache_folder_as_huggingface_hub_finds_it() {
        let all = [
            ("HF_HUB_CACHE", "/a"),
            ("HF_HOME", "/b"),
            ("XDG_CACHE_HOME", "/c"),
            ("HOME", "/d"),
        ];
        let cache = |pairs| with(pairs, None).cache_dir;
        assert_eq!(with(&all, Some("/z")).cache_dir, Path::new("/z"));
        assert_eq!(cache(&all), Path::new("/a"));
        assert_eq!(cache(&all[1..]), Path::new("/b/hub"));
        assert_eq!(cache(&all[2..]), Path::new("/c/huggingface/hub"));
        assert_eq!(cache(&all[3..]), Path::new("/d/.cache/huggingface/hub"));
        assert_eq!(
            cache(&[("HF_HOME", "~/x"), ("HOME", "/d")]),
            Path::new("/d/x/hub")
        );
        assert!(options(&Environment::default(), None).is_err());
    }

    #[test]
    fn the_token_as_huggingface_hub_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let token = |pairs: &[(&str, &str)]| with(pairs, None).token;
        assert_eq!(token(&[("HF_HOME", home)]), None);
        fs::write(folder.path().join("token"), "in-home\n").unwrap();
        fs::write(folder.path().join("named"), "named").unwrap();
        let named = folder.path().join("named");
        let named = ("HF_TOKEN_PATH", named.to_str().unwrap());
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("in-home"));
        assert_eq!(token(&[("HF_HOME", home), named]).as_deref(), Some("named"));
        let set = ("HF_TOKEN", "set");
        assert_eq!(
            token(&[("HF_HOME", home), named, set]).as_deref(),
            Some("set")
        );
    }

    #[test]
    fn offline_and_endpoint() {
        let options = with(
            &[
                ("HOME", "/d"),
                ("HF_HUB_OFFLINE", "1"),
                ("HF_ENDPOINT", "http://x"),
            ],
            None,
        );
        assert!(options.offline);
        assert_eq!(options.endpoint, "http://x");
        assert!(!with(&[("HOME", "/d"), ("HF_HUB_OFFLINE", "0")], None).offline);
    }

    #[test]
    fn timeouts() {
        let with = |name, value| with(&[("HOME", "/d"), (name, value)], None);
        let set = with("HF_HUB_ETAG_TIMEOUT", "3");
        assert_eq!(set.etag_timeout, Duration::from_secs(3));
        assert_eq!(set.download_timeout, Duration::from_secs(10));
        let set = with("HF_HUB_DOWNLOAD_TIMEOUT", " 60");
        assert_eq!(set.download_timeout, Duration::from_secs(60));
        for odd in ["0", "-1", "soon", "1.5"] {
            let error = seconds("T", odd).unwrap_err().to_string();
            assert!(error.contains(odd), "{error}");
        }
    }
}
