//! What is in the cache when the hub does not help, and who may move its refs.

use std::fs;

use super::*;

fn ref_of(cache: &tempfile::TempDir) -> Option<String> {
    fs::read_to_string(cache.path().join("models--org--new/refs/main")).ok()
}

fn plan(options: HubOptions) -> HubOptions {
    HubOptions {
        weights: HubWeights::None,
        ..options
    }
}

fn offline(options: HubOptions) -> HubOptions {
    HubOptions {
        offline: true,
        ..options
    }
}

/// A cache with the whole of the first commit, and a hub with the next, whose weights are others.
fn moved_on() -> (TestHub, tempfile::TempDir) {
    let cache = tempfile::tempdir().unwrap();
    get("org/new", None, &TestHub::start(COMMIT).options(&cache)).unwrap();
    let mut files = server::FILES;
    files[3].1 = "other weights";
    (TestHub::with(NEXT_COMMIT, &files), cache)
}

#[test]
fn a_look_does_not_move_a_ref_away_from_what_is_whole() {
    let (hub, cache) = moved_on();
    let planned = get("org/new", None, &plan(hub.options(&cache))).unwrap();
    assert_eq!(planned.commit, NEXT_COMMIT);
    assert_eq!(ref_of(&cache).as_deref(), Some(COMMIT));
    let drawn = get("org/new", None, &offline(hub.options(&cache))).unwrap();
    assert_eq!(drawn.commit, COMMIT);
    // A download that is refused or broken off does not, either.
    let mut refuse = |_: &ModelSource| Err(Error::invalid("height", 0, "at least 16"));
    snapshot_checked(
        "org/new",
        None,
        None,
        &hub.options(&cache),
        &mut refuse,
        &mut |_| {},
    )
    .unwrap_err();
    assert_eq!(ref_of(&cache).as_deref(), Some(COMMIT));
    // One that is whole does.
    get("org/new", None, &hub.options(&cache)).unwrap();
    assert_eq!(ref_of(&cache).as_deref(), Some(NEXT_COMMIT));
    assert_eq!(
        get("org/new", None, &offline(hub.options(&cache)))
            .unwrap()
            .commit,
        NEXT_COMMIT
    );
    get("org/new", None, &plan(hub.options(&cache))).unwrap();
    assert_eq!(ref_of(&cache).as_deref(), Some(NEXT_COMMIT));
}

#[test]
fn a_download_without_t5_does_not_cost_a_copy_with_it() {
    let index = r#"{"_class_name": "StableDiffusion3Pipeline", "text_encoder_3": ["t", "T"], "vae": ["d", "V"]}"#;
    let files = [
        ("model_index.json", index),
        ("text_encoder_3/config.json", "{}"),
        ("text_encoder_3/model.safetensors", "weights"),
        ("vae/config.json", "{}"),
        ("vae/diffusion_pytorch_model.safetensors", "weights"),
    ];
    let without = |hub: &TestHub, cache| HubOptions {
        without_t5: true,
        ..hub.options(cache)
    };
    let (old, new) = (
        TestHub::with(COMMIT, &files),
        TestHub::with(NEXT_COMMIT, &files),
    );
    let (whole, none) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    get("org/new", None, &old.options(&whole)).unwrap();
    for (cache, offline_commit) in [(&whole, COMMIT), (&none, NEXT_COMMIT)] {
        get("org/new", None, &without(&new, cache)).unwrap();
        assert_eq!(ref_of(cache).as_deref(), Some(offline_commit));
        let found = get("org/new", None, &offline(without(&new, cache))).unwrap();
        assert_eq!(found.commit, offline_commit);
    }
    get("org/new", None, &offline(new.options(&whole))).unwrap();
    let error = get("org/new", None, &offline(new.options(&none)))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("it lacks text_encoder_3/config.json"),
        "{error}"
    );
}

#[test]
fn a_first_look_is_found_again_offline() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    get("org/new", None, &plan(hub.options(&cache))).unwrap();
    let options = offline(hub.options(&cache));
    assert_eq!(
        get("org/new", None, &plan(options.clone())).unwrap().commit,
        COMMIT
    );
    let error = get("org/new", None, &options).unwrap_err();
    assert!(matches!(error, Error::IncompleteModel { .. }), "{error}");
    assert_eq!(error.category(), crate::ErrorCategory::ModelNotFound);
    let error = error.to_string();
    assert!(
        error.starts_with(&format!("org/new at main (commit {COMMIT}) is incomplete"))
            && error.contains("vae/*.safetensors"),
        "{error}"
    );
}

#[test]
fn a_whole_older_copy_is_used_when_the_newer_is_not() {
    let (hub, cache) = moved_on();
    get("org/new", None, &plan(hub.options(&cache))).unwrap();
    // As earlier versions, and other tools, leave it.
    fs::write(cache.path().join("models--org--new/refs/main"), NEXT_COMMIT).unwrap();
    let options = offline(hub.options(&cache));
    assert_eq!(get("org/new", None, &options).unwrap().commit, COMMIT);
    let unreachable = HubOptions {
        endpoint: nobody(),
        ..hub.options(&cache)
    };
    assert_eq!(get("org/new", None, &unreachable).unwrap().commit, COMMIT);
    // Who asks for the newer by its name gets no other.
    let error = snapshot("org/new", Some(NEXT_COMMIT), None, &options, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::IncompleteModel { .. }), "{error}");
}

#[test]
fn a_whole_copy_is_used_whatever_the_hub_answers() {
    let cache = tempfile::tempdir().unwrap();
    let hub = TestHub::start(COMMIT);
    get("org/new", None, &hub.options(&cache)).unwrap();
    let folder = |name: &str| cache.path().join(format!("models--org--{name}"));
    let mut last = "new";
    for name in [
        "status-400",
        "status-401",
        "status-403",
        "status-404",
        "status-410",
        "status-429",
        "status-451",
        "status-500",
        "status-502",
        "status-503",
        "status-504",
        "portal",
        "gated",
    ] {
        let id = format!("org/{name}");
        get(&id, None, &hub.options(&cache)).unwrap_err();
        let _ = fs::remove_dir_all(folder(name));
        fs::rename(folder(last), folder(name)).unwrap();
        assert_eq!(
            get(&id, None, &hub.options(&cache)).unwrap().commit,
            COMMIT,
            "{name}"
        );
        last = name;
    }
    let id = format!("org/{last}");
    for address in [
        // Nobody there; no such name; no TLS.
        "http://127.0.0.1:9",
        "http://no-such-host.invalid",
        &hub.endpoint.replace("http://", "https://"),
    ] {
        let options = HubOptions {
            endpoint: Endpoint::new(address).unwrap(),
            ..hub.options(&cache)
        };
        assert_eq!(
            get(&id, None, &options).unwrap().commit,
            COMMIT,
            "{address}"
        );
    }
}

#[test]
fn half_a_copy_and_a_hub_that_refuses_are_both_told() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    get("org/new", None, &plan(hub.options(&cache))).unwrap();
    let folder = |name: &str| cache.path().join(format!("models--org--{name}"));
    fs::rename(folder("new"), folder("gone")).unwrap();
    let error = get("org/gone", None, &hub.options(&cache))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("model not found: org/gone at main: HTTP 404")
            && error.contains("the copy in the cache is incomplete, it lacks vae/*.safetensors"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_link_without_a_content_is_named() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    get("org/new", None, &hub.options(&cache)).unwrap();
    let weights = "vae/diffusion_pytorch_model.safetensors";
    let link = cache
        .path()
        .join(format!("models--org--new/snapshots/{COMMIT}/{weights}"));
    fs::remove_file(link.canonicalize().unwrap()).unwrap();
    let options = offline(hub.options(&cache));
    let error = get("org/new", None, &options).unwrap_err().to_string();
    assert!(error.contains(&format!("it lacks {weights}")), "{error}");
}

#[test]
fn the_hub_cannot_put_another_commit_in_the_place_of_the_one_asked_for() {
    let (hub, cache) = (TestHub::start(NEXT_COMMIT), tempfile::tempdir().unwrap());
    let options = hub.options(&cache);
    let error = snapshot("org/liar", Some(COMMIT), None, &options, &mut |_| {}).unwrap_err();
    assert!(
        error.to_string().contains("another commit than asked for"),
        "{error}"
    );
}
