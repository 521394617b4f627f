//! Downloads that were broken off, caches that were damaged, networks that are slow.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;

const WEIGHTS: &str = "vae/diffusion_pytorch_model.safetensors";

fn link(cache: &tempfile::TempDir, repository: &str) -> PathBuf {
    let folder = cache
        .path()
        .join(format!("models--org--{repository}/snapshots"));
    folder.join(COMMIT).join(WEIGHTS)
}

fn weights(found: &Snapshot) -> Vec<u8> {
    found.source.read(WEIGHTS, 1 << 20).unwrap().into_owned()
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_mended() {
    use std::os::unix::fs::symlink;
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    let options = hub.options(&cache);
    get("org/new", None, &options).unwrap();
    let path = link(&cache, "new");
    let blob = path.canonicalize().unwrap();
    // The content is gone.
    fs::remove_file(&blob).unwrap();
    assert_eq!(
        weights(&get("org/new", None, &options).unwrap()),
        b"weights"
    );
    for target in [
        Path::new("diffusion_pytorch_model.safetensors"),
        Path::new("../nowhere"),
        Path::new("/no/such"),
    ] {
        fs::remove_file(&path).unwrap();
        symlink(target, &path).unwrap();
        assert!(fs::metadata(&path).is_err());
        hub.asked();
        assert_eq!(
            weights(&get("org/new", None, &options).unwrap()),
            b"weights"
        );
        let fetched = hub
            .asked()
            .iter()
            .filter(|path| path.starts_with("/storage/"))
            .count();
        assert_eq!(
            fetched, 1,
            "only its length is asked for: the content is there"
        );
        assert_eq!(path.canonicalize().unwrap(), blob.canonicalize().unwrap());
    }
    // The content is a link to itself.
    fs::remove_file(&blob).unwrap();
    symlink(blob.file_name().unwrap(), &blob).unwrap();
    assert_eq!(
        weights(&get("org/new", None, &options).unwrap()),
        b"weights"
    );
    // The index, which everything else begins with.
    let index = cache.path().join(format!(
        "models--org--new/snapshots/{COMMIT}/model_index.json"
    ));
    fs::remove_file(&index).unwrap();
    symlink("model_index.json", &index).unwrap();
    get("org/new", None, &options).unwrap();
}

#[test]
fn a_part_that_cannot_be_checked_is_not_taken_up() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    get("org/new", None, &hub.options(&cache)).unwrap();
    let path = link(&cache, "new");
    let blob = path.canonicalize().unwrap();
    let name = blob.file_name().unwrap().to_str().unwrap();
    fs::remove_file(&blob).unwrap();
    for damaged in ["wEi", "\0\0\0\0\0\0", "longer than it may be"] {
        let _ = fs::remove_file(&blob);
        fs::write(blob.with_file_name(format!("{name}.part")), damaged).unwrap();
        let found = get("org/new", None, &hub.options(&cache)).unwrap();
        assert_eq!(weights(&found), b"weights", "{damaged}");
    }
}

#[test]
fn a_drip_is_given_up() {
    let body = "x".repeat(400);
    let mut files = server::FILES;
    files[3].1 = &body;
    let (hub, cache) = (TestHub::with(COMMIT, &files), tempfile::tempdir().unwrap());
    let silence = Duration::from_millis(60);
    let options = HubOptions {
        etag_timeout: silence,
        download_timeout: silence,
        ..hub.options(&cache)
    };
    let started = Instant::now();
    for id in ["org/drip", "org/drip-list"] {
        let error = get(id, None, &options).unwrap_err().to_string();
        assert!(error.contains("too slow: "), "{error}");
    }
    // A byte each 30 ms: the whole would take 12 s and more.
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn the_second_of_two_downloads_waits_for_the_first() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    let options = HubOptions {
        slowest: 1,
        // A byte arrives each 100 ms, seven in all: what the first brings is what the second waits for.
        lock_timeout: Duration::from_millis(400),
        ..hub.options(&cache)
    };
    std::thread::scope(|scope| {
        let runs = [0, 1].map(|_| scope.spawn(|| get("org/slow", None, &options)));
        for run in runs {
            assert_eq!(weights(&run.join().unwrap().unwrap()), b"weights");
        }
    });
    let asked = hub.asked();
    let whole = asked
        .iter()
        .filter(|path| path.starts_with("/storage/slow/"))
        .count();
    assert!(whole <= 3, "the file came twice: {asked:?}");
}

#[test]
fn who_holds_a_file_and_brings_nothing_is_not_waited_for_without_end() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    let options = HubOptions {
        lock_timeout: Duration::from_millis(300),
        ..hub.options(&cache)
    };
    get("org/new", None, &options).unwrap();
    let blob = link(&cache, "new").canonicalize().unwrap();
    fs::remove_file(&blob).unwrap();
    let name = format!("{}.lock", blob.file_name().unwrap().to_str().unwrap());
    let lock = cache.path().join(".locks/models--org--new").join(name);
    let held = fs::File::open(&lock).unwrap();
    held.lock().unwrap();
    let error = get("org/new", None, &options).unwrap_err().to_string();
    assert!(
        error.contains(WEIGHTS) && error.contains("has brought nothing for"),
        "{error}"
    );
    if cfg!(target_os = "linux") {
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
    }
    drop(held);
    get("org/new", None, &options).unwrap();
}

#[test]
fn names_with_signs_arrive() {
    let index = r#"{"_class_name": "FluxPipeline", "vae": ["a", "b"], "ein Löwe": ["a", "b"]}"#;
    let names = [
        "vae/a b.json",
        "vae/why?.json",
        "vae/no#1.json",
        "vae/100%.json",
        "vae/100%25.json",
        "vae/a+b&c=d;e@f.json",
        "vae/[x]'\"{}|^`<>.txt",
        "ein Löwe/größe 大.txt",
    ];
    let mut files: Vec<(&str, &str)> = vec![("model_index.json", index)];
    files.extend(names.map(|name| (name, name)));
    let (hub, cache) = (TestHub::with(COMMIT, &files), tempfile::tempdir().unwrap());
    let found = get("org/new", None, &hub.options(&cache)).unwrap();
    for name in names {
        assert_eq!(&*found.source.read(name, 100).unwrap(), name.as_bytes());
    }
}

#[test]
fn no_time_is_too_long() {
    let (hub, cache) = (TestHub::start(COMMIT), tempfile::tempdir().unwrap());
    for long in [Duration::MAX, Duration::from_secs(i64::MAX as u64)] {
        let options = HubOptions {
            etag_timeout: long,
            download_timeout: long,
            lock_timeout: long,
            slowest: u64::MAX,
            ..hub.options(&cache)
        };
        get("org/new", None, &options).unwrap();
        let _ = fs::remove_dir_all(cache.path().join("models--org--new"));
    }
}
