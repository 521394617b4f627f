//! `xdit-cli info`.

use std::path::Path;

use crate::broken_model::copy;
use crate::picture_record::record;
use crate::program::{demo, run, small};

#[test]
fn the_demo_as_a_table() {
    let text = run(Path::new("."), ["info"]).succeeded().stdout;
    for word in [
        "FluxPipeline",
        "text_encoder_2",
        "T5EncoderModel",
        "4 × 32",
        "bf16",
        "total:",
    ] {
        assert!(
            text.to_lowercase().contains(&word.to_lowercase()),
            "{word}: {text}"
        );
    }
}

#[test]
fn the_demo_as_json() {
    let folder = demo().display().to_string();
    let info = run(Path::new("."), ["info", &folder, "--json"])
        .succeeded()
        .json();
    let components = info["components"].as_array().unwrap();
    let transformer = components
        .iter()
        .find(|c| c["name"] == "transformer")
        .unwrap();
    assert_eq!(transformer["class"], "FluxTransformer2DModel");
    assert_eq!(
        (&transformer["heads"], &transformer["head_dim"]),
        (&4.into(), &32.into())
    );
    // 5,622,656 bytes of bf16.
    assert!(
        transformer["parameters"].as_u64().unwrap() > 2_000_000,
        "{transformer}"
    );
    let sum: u64 = components
        .iter()
        .map(|c| c["parameters"].as_u64().unwrap())
        .sum();
    assert!((3_000_000..6_000_000).contains(&sum), "{sum} parameters");
}

#[test]
fn the_variant_is_the_one_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&model);
    // Of this component alone; the others fall back to their plain weights.
    let weights = model.join("text_encoder/model.safetensors");
    let bytes = std::fs::read(model.join("text_encoder_2/model.safetensors")).unwrap();
    std::fs::write(weights.with_file_name("model.other.safetensors"), bytes).unwrap();
    let parameters = |more: &[&str]| {
        let words = ["info", "model", "--json"];
        let outcome = run(folder.path(), words.iter().chain(more)).succeeded();
        let info = outcome.json();
        let components = info["components"].as_array().unwrap();
        let found = components.iter().find(|c| c["name"] == "text_encoder");
        found.unwrap()["parameters"].as_u64().unwrap()
    };
    assert_ne!(parameters(&[]), parameters(&["--variant", "other"]));
    let outcome = run(folder.path(), ["info", "model", "--variant", "none"]);
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert!(outcome.stderr.contains("variant `none`"), "{outcome:?}");
}

#[test]
fn how_a_picture_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["-o", "a.png", "-s", "7", "-n", "2", "--dtype", "bf16"];
    run(folder.path(), small("a red circle", &more)).succeeded();
    let told = run(folder.path(), ["info", "a_001.png"]).succeeded().stdout;
    for line in [
        "a_001.png: 64×64, image 2 of 2",
        "  model.name: demo",
        "  prompt: a red circle",
        "  seed: 7",
        "  num_inference_steps: 2",
        "  dtype: bf16",
        "draw it again: xdit-cli replay a_001.png",
    ] {
        assert!(told.lines().any(|it| it == line), "{line}: {told}");
    }
    let json = run(folder.path(), ["info", "a_001.png", "--json"])
        .succeeded()
        .json();
    assert_eq!(json["record"], record(&folder.path().join("a_001.png")));
    assert_eq!((&json["width"], &json["height"]), (&64.into(), &64.into()));
    std::fs::write(folder.path().join("b.png"), b"no picture").unwrap();
    let refused = run(folder.path(), ["info", "b.png"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.starts_with("error: b.png: "), "{refused:?}");
}

/// A record cannot forge rows, and flags about a pipeline are refused.
#[test]
fn a_picture_is_shown_in_rows_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| run(folder.path(), words);
    let drawn = small("a red circle\n  seed: 99", &["-o", "a.png"]);
    run(&drawn.iter().map(|word| &**word).collect::<Vec<_>>()).succeeded();
    let told = run(&["info", "a.png", "--trace", "t.json"])
        .succeeded()
        .stdout;
    assert!(!told.lines().any(|line| line == "  seed: 99"), "{told}");
    let prompt = r"  prompt: a red circle\n  seed: 99";
    assert!(told.lines().any(|line| line == prompt), "{told}");
    assert!(folder.path().join("t.json").exists());
    for flag in [&["--no-t5"][..], &["--revision", "x"], &["--variant", "x"]] {
        let refused = run(&[&["info", "a.png"], flag].concat());
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(flag[0]), "{refused:?}");
    }
    let missing = run(&["info", "a/b.png"]);
    assert!(
        missing
            .stderr
            .contains("a/b.png: cannot be read: no such file"),
        "{missing:?}"
    );
}

#[test]
fn tables_fit_a_terminal() {
    for model in ["sd35-medium", "hunyuan-v1.1", "flux-dev"] {
        let folder = crate::sd3::golden(model);
        let words = ["info".into(), folder.display().to_string()];
        let text = run(Path::new("."), words).succeeded().stdout;
        // The first line begins with the folder.
        for line in text.lines().skip(1) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
