//! What huggingface_hub's environment variables say: the cache, the address, the token, the timeouts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xdit_models::hub::{Endpoint, HubOptions, Token};
use xdit_models::{Error, quote};

use crate::args::model::HubArgs;
use crate::report::failure::{Failure, system_reason};
use crate::run::environment::Environment;

/// The folder in the hub's cache that holds the repository `id`, also where it is not there yet; none where there is no
/// cache, which [`options`] reports.
pub(crate) fn repository(id: &str, args: &HubArgs, environment: &Environment) -> Option<PathBuf> {
    let options = options(environment, args.download_dir.as_deref()).ok()?;
    Some(
        options
            .cache_dir
            .join(format!("models--{}", id.replace('/', "--"))),
    )
}

/// What huggingface_hub reads from its environment (its page "Environment variables").
pub(crate) fn options(
    environment: &Environment,
    download_dir: Option<&Path>,
) -> Result<HubOptions, Failure> {
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
    if download_dir.is_none() && cache.to_string_lossy().contains('\u{fffd}') {
        let shown = quote::name(&cache.display().to_string());
        return Err(Failure::usage(format!(
            "the hub's cache {shown}: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME or HOME is not UTF-8; give --download-dir"
        )));
    }
    let mut options = HubOptions::new(cache);
    for (name, timeout) in [
        ("HF_HUB_ETAG_TIMEOUT", &mut options.etag_timeout),
        ("HF_HUB_DOWNLOAD_TIMEOUT", &mut options.download_timeout),
    ] {
        if let Some(text) = environment.var(name) {
            *timeout = seconds(name, text)?;
        }
    }
    options.offline = environment.is_on("HF_HUB_OFFLINE");
    if options.offline {
        // Nobody is spoken to: neither where nor as whom matters.
        return Ok(options);
    }
    if let Some(address) = environment.var("HF_ENDPOINT") {
        options.endpoint = Endpoint::new(address).map_err(|e| in_variable("HF_ENDPOINT", e))?;
    }
    options.token = token(environment, hf_home.as_deref())?;
    Ok(options)
}

/// The time in a variable, in seconds; the longest that fits where it is longer.
fn seconds(name: &str, text: &str) -> Result<Duration, Failure> {
    let digits = text.trim().trim_start_matches('+');
    let wrong = || {
        Failure::usage(format!(
            "{name}={}: must be a whole number of seconds above 0",
            quote::shorten(text)
        ))
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    match digits.parse().unwrap_or(u64::MAX) {
        0 => Err(wrong()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

/// The token in `HF_TOKEN`, else in its file; blank is none.
fn token(environment: &Environment, hf_home: Option<&Path>) -> Result<Option<Token>, Failure> {
    let set = environment.var("HF_TOKEN").map(str::trim);
    if let Some(text) = set.filter(|text| !text.is_empty()) {
        let token = Token::new(text).map_err(|e| in_variable("HF_TOKEN", e))?;
        return Ok(Some(token));
    }
    let named = path(environment, "HF_TOKEN_PATH");
    let Some(file) = named.or_else(|| Some(hf_home?.join("token"))) else {
        return Ok(None);
    };
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // A part of the path is a file.
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
        Err(e) => return Err(Failure::input(file, system_reason(&e))),
    };
    match text.trim() {
        "" => Ok(None),
        text => Token::new(text).map(Some).map_err(|e| {
            in_variable(
                &format!("the token in {}", quote::name(&file.display().to_string())),
                e,
            )
        }),
    }
}

/// What is wrong with a value, by the variable or file that holds it.
fn in_variable(name: &str, error: Error) -> Failure {
    match error {
        Error::InvalidRequest { given, allowed, .. } => {
            Failure::usage(format!("{name} {given}: must be {allowed}"))
        }
        other => Failure::Model(other),
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
        let is = |text: &str| Some(Token::new(text).unwrap());
        assert_eq!(token(&[("HF_HOME", home)]), None);
        fs::write(folder.path().join("token"), "in-home\n").unwrap();
        fs::write(folder.path().join("named"), "named").unwrap();
        let named = folder.path().join("named");
        let named = ("HF_TOKEN_PATH", named.to_str().unwrap());
        assert_eq!(token(&[("HF_HOME", home)]), is("in-home"));
        assert_eq!(token(&[("HF_HOME", home), named]), is("named"));
        let set = ("HF_TOKEN", "set");
        assert_eq!(token(&[("HF_HOME", home), named, set]), is("set"));
        let blank = ("HF_TOKEN", " \n");
        assert_eq!(token(&[("HF_HOME", home), blank]), is("in-home"));
    }

    /// What is said of these variables.
    fn refused(pairs: &[(&str, &str)]) -> String {
        let lookup = |name: &str| {
            let pair = pairs.iter().find(|(key, _)| *key == name)?;
            Some(pair.1.to_owned())
        };
        let environment = Environment::with(lookup);
        let failure = options(&environment, Some(Path::new("/c"))).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        failure.to_string()
    }

    #[test]
    fn a_bad_token_or_address_is_named_and_not_shown() {
        for bad in ["hf_se\ncret", "hf_se cret", "hf_secr\u{e9}t"] {
            let error = refused(&[("HF_TOKEN", bad)]);
            assert!(
                error.starts_with("HF_TOKEN ") && !error.contains("hf_se"),
                "{error}"
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("named");
        fs::write(&file, "hf_se\ncret").unwrap();
        let file = file.to_str().unwrap();
        let error = refused(&[("HF_TOKEN_PATH", file)]);
        assert!(
            error.contains(file) && error.contains("line break"),
            "{error}"
        );
        assert!(!error.contains("hf_se"), "{error}");
        let error = refused(&[("HF_ENDPOINT", "hub.example")]);
        assert!(
            error.starts_with("HF_ENDPOINT hub.example: must be"),
            "{error}"
        );
        let error = refused(&[("HF_ENDPOINT", "htp://me:secret@hub.example")]);
        assert!(
            error.starts_with("HF_ENDPOINT") && !error.contains("secret"),
            "{error}"
        );
    }

    #[test]
    fn offline_neither_token_nor_address_matters() {
        let folder = tempfile::tempdir().unwrap();
        // A folder cannot be read as a file, by root either.
        let file = ("HF_TOKEN_PATH", folder.path().to_str().unwrap());
        let home = ("HF_HOME", "/d");
        let environment = |pairs: &[(&str, &str)]| {
            Environment::with(|name| {
                let pair = pairs.iter().find(|(key, _)| *key == name)?;
                Some(pair.1.to_owned())
            })
        };
        let online = options(&environment(&[home, file]), None).unwrap_err();
        assert!(online.to_string().contains(file.1), "{online}");
        let more = [
            ("HF_HUB_OFFLINE", "1"),
            ("HF_TOKEN", "a b"),
            ("HF_ENDPOINT", "x"),
        ];
        let offline = [&[home, file][..], &more].concat();
        assert_eq!(options(&environment(&offline), None).unwrap().token, None);
    }

    #[test]
    fn offline_and_endpoint() {
        let options = with(
            &[
                ("HOME", "/d"),
                ("HF_HUB_OFFLINE", "0"),
                ("HF_ENDPOINT", "http://x"),
            ],
            None,
        );
        assert!(!options.offline);
        assert_eq!(options.endpoint.to_string(), "http://x");
        assert!(with(&[("HOME", "/d"), ("HF_HUB_OFFLINE", "1")], None).offline);
    }

    #[test]
    fn timeouts() {
        let with = |name, value| with(&[("HOME", "/d"), (name, value)], None);
        let set = with("HF_HUB_ETAG_TIMEOUT", "3");
        assert_eq!(set.etag_timeout, Duration::from_secs(3));
        assert_eq!(set.download_timeout, Duration::from_secs(10));
        let set = with("HF_HUB_DOWNLOAD_TIMEOUT", " 60");
        assert_eq!(set.download_timeout, Duration::from_secs(60));
        for odd in [
            "0", "-1", "soon", "1.5", "NaN", "inf", "1e3", " ", "+", "000",
        ] {
            let error = seconds("T", odd).unwrap_err().to_string();
            assert!(error.starts_with(&format!("T={odd}: must be")), "{error}");
        }
        for long in [
            "9223372036854775807",
            "18446744073709551616",
            &"9".repeat(500),
        ] {
            assert!(seconds("T", long).unwrap() > Duration::from_secs(1 << 60));
        }
    }
}
