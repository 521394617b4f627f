//! Pictures that an earlier version of this program wrote, before a request was one serde type, replay byte for byte.

use std::path::{Path, PathBuf};

use crate::picture_record::{record, text};
use crate::program::run;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Prompts for each encoder and a negative one; skipped layers; a sampler and sizes; stages and patches.
#[test]
fn replay_gives_the_same_pixels_and_the_same_record() {
    let folder = tempfile::tempdir().unwrap();
    let pipelines = here("../tests/golden/pipelines");
    for name in ["flux", "sd3", "hunyuan", "demo"] {
        let old = here("tests/cli/old").join(format!("{name}.png"));
        let new = folder.path().join(format!("{name}.png"));
        let words = [
            "replay",
            old.to_str().unwrap(),
            "--output",
            new.to_str().unwrap(),
        ];
        // The records name their pipelines by where these lie.
        let outcome = run(&pipelines, words).succeeded();
        assert!(outcome.stdout.contains("identical"), "{name}: {outcome:?}");
        let (old_record, mut new_record) = (record(&old), record(&new));
        if new_record["version"] == old_record["version"] {
            for key in ["xdit", "parameters"] {
                assert_eq!(text(&new, key), text(&old, key), "{name}");
            }
        }
        new_record["version"] = old_record["version"].clone();
        assert_eq!(new_record, old_record, "{name}");
    }
}
