//! The headers of weights alone ([`HubWeights::Headers`]), from hubs that keep to ranges of bytes and from others.

use super::*;

const WEIGHTS: &str = "vae/diffusion_pytorch_model.safetensors";
/// The bytes of the one tensor of the file: more than the first request asks for.
const DATA: usize = 200_000;

/// A file of weights whose header has this many bytes. Each byte of its length is ASCII, because the hub's files are text.
fn weights(header_len: u8, more: [u8; 2]) -> String {
    let length = [header_len, more[0], more[1], 0, 0, 0, 0, 0];
    let count = u64::from_le_bytes(length) as usize;
    let header = format!(
        r#"{{"w":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{DATA}]}}}}"#,
        DATA / 4
    );
    let length = String::from_utf8(length.to_vec()).unwrap();
    let padding = " ".repeat(count - header.len());
    format!("{length}{header}{padding}{}", "\0".repeat(DATA))
}

/// The answer of a repository that has these weights, and how often it was asked for them.
fn headers_of(id: &str, weights: &str, cache: &tempfile::TempDir) -> (Result<Snapshot>, usize) {
    let mut files = server::FILES;
    files[3].1 = weights;
    let hub = TestHub::with(COMMIT, &files);
    let options = HubOptions {
        weights: HubWeights::Headers,
        ..hub.options(cache)
    };
    let found = get(id, None, &options);
    let asked = hub.asked();
    let of_weights = asked.iter().filter(|path| path.starts_with("/storage/"));
    (found, of_weights.count())
}

/// Every file below a folder.
fn files_in(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files_in(&path),
            false => vec![path],
        })
        .collect()
}

#[test]
fn headers_of_any_length_come_alone() {
    // A header that the first request brings, one that it does not, and a hub that always sends the whole file.
    let (short, long) = (weights(112, [0, 0]), weights(0x70, [0x11, 1]));
    for (id, weights, requests) in [
        ("org/new", &short, 1),
        ("org/new", &long, 2),
        ("org/whole", &short, 1),
        ("org/whole", &long, 2),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let (found, asked) = headers_of(id, weights, &cache);
        let source = found.unwrap_or_else(|error| panic!("{id}: {error}")).source;
        assert_eq!(asked, requests, "{id}, {} bytes", weights.len());
        let opened = source.open_weights("vae", None).unwrap();
        assert_eq!(opened.total_bytes(), DATA as u64, "{id}");
        // The values are still on the hub, and the cache keeps nothing of the file.
        use crate::weights::WeightSource;
        let error = opened.tensor("w", &[DATA / 4]).unwrap_err().to_string();
        assert!(error.contains("only the headers"), "{error}");
        for file in files_in(cache.path()) {
            let len = std::fs::metadata(&file).unwrap().len();
            assert!(len < 1000, "{}: {len} bytes", file.display());
        }
    }
}

#[test]
fn another_part_than_asked_for_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let (found, _) = headers_of("org/lying", &weights(112, [0, 0]), &cache);
    let error = found.unwrap_err().to_string();
    let expected = format!("{WEIGHTS}: another part than asked for");
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn a_file_without_a_whole_header_is_named() {
    // No byte, fewer bytes than the length of a header takes, and a header longer than its file.
    let cut = weights(112, [0, 0]);
    for (weights, reason) in [
        ("", "0 B is too short"),
        ("weights", "7 B is too short"),
        (&cut[..60], "header"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let (found, _) = headers_of("org/new", weights, &cache);
        let source = found.unwrap().source;
        let error = source.open_weights("vae", None).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::BadFile { .. }), "{message}");
        assert!(
            message.contains(WEIGHTS) && message.contains(reason),
            "{message}"
        );
    }
}

#[test]
fn a_cancelled_download_ends_and_resumes() {
    use crate::CancelToken;
    let cache = tempfile::tempdir().unwrap();
    let weights = "w".repeat(20);
    let mut files = server::FILES;
    files[3].1 = &weights;
    let hub = TestHub::with(COMMIT, &files);
    // One byte each 100 ms.
    let cancel = CancelToken::new();
    let options = HubOptions {
        cancel: cancel.clone(),
        ..hub.options(&cache)
    };
    let stopped = snapshot("org/slow", None, None, &options, &mut |progress| {
        if progress.file == WEIGHTS && progress.done > 0 {
            cancel.cancel();
        }
    });
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    // A cancelled token asks the hub for nothing.
    hub.asked();
    assert!(matches!(
        get("org/slow", None, &options),
        Err(Error::Cancelled)
    ));
    assert_eq!(hub.asked(), [""; 0]);
    let whole = get("org/slow", None, &hub.options(&cache)).unwrap();
    assert_eq!(
        &*whole.source.read(WEIGHTS, 100).unwrap(),
        weights.as_bytes()
    );
}
