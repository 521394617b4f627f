//! `xdit-cli generate`, on the demo.

use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::program::{command, names, outcome, run, small};

const PROMPT: &str = "a red circle on a blue background";

pub(crate) fn pixels(file: &Path) -> (u32, u32, Vec<u8>) {
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(file).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    (reader.info().width, reader.info().height, pixels)
}

#[test]
fn a_red_circle_on_blue() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(folder.path(), ["generate", "--prompt", PROMPT]).succeeded();
    assert_eq!(outcome.stderr, "", "nothing but the result is told");
    assert_eq!(names(folder.path()), ["xdit-42.png"]);
    let line = outcome.stdout.trim_end();
    for part in [
        "xdit-42.png: 256×256, 20 steps, f32: load ",
        "encode ",
        "denoise ",
        "decode ",
        "total ",
    ] {
        assert!(
            line.contains(part) && !line.contains('\n'),
            "{part}: {line}"
        );
    }
    let (width, height, rgb) = pixels(&folder.path().join("xdit-42.png"));
    assert_eq!((width, height), (256, 256));
    let at = |x: usize, y: usize| &rgb[(y * 256 + x) * 3..][..3];
    let (middle, corner) = (at(128, 128), at(8, 8));
    assert!(
        middle[0] > 150 && middle[2] < 100,
        "the middle is not red: {middle:?}"
    );
    assert!(
        corner[2] > 120 && corner[0] < 100,
        "the corner is not blue: {corner:?}"
    );
}

#[test]
fn the_same_bytes_again_and_with_any_threads() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |name: &str, threads: &str| {
        run(
            folder.path(),
            small(PROMPT, &["--output", name, "--threads", threads]),
        )
        .succeeded();
        fs::read(folder.path().join(name)).unwrap()
    };
    let once = draw("a.png", "2");
    for (name, threads) in [("b.png", "2"), ("c.png", "1"), ("d.png", "5")] {
        assert!(
            draw(name, threads) == once,
            "{threads} threads give other bytes"
        );
    }
}

#[test]
fn json_is_one_object() {
    let folder = tempfile::tempdir().unwrap();
    let words = small(
        PROMPT,
        &["--json", "--seed", "5", "--output", "a.png", "--dtype=bf16"],
    );
    let outcome = run(folder.path(), words).succeeded();
    let json = outcome.json();
    assert_eq!(json["files"], serde_json::json!(["a.png"]));
    assert_eq!(json["request"]["seed"], serde_json::json!([5]));
    assert_eq!(json["request"]["height"], 64);
    assert_eq!(json["request"]["max_sequence_length"], 24);
    assert_eq!(
        (&json["dtype"], &json["threads"]),
        (&"bf16".into(), &2.into())
    );
    for phase in ["load", "encode", "denoise", "decode", "total"] {
        assert!(
            json["seconds"][phase].as_f64().unwrap() > 0.,
            "{phase}: {json}"
        );
    }
    assert_eq!(json["step_seconds"].as_array().unwrap().len(), 2);
    if cfg!(target_os = "linux") {
        assert!(json["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    }
}

#[test]
fn several_prompts_and_images_are_numbered() {
    let folder = tempfile::tempdir().unwrap();
    let more = [
        "--num_images_per_prompt",
        "2",
        "--seed",
        "1",
        "2",
        "3",
        "4",
        "--output",
        "out/",
        "--prompt",
        PROMPT,
    ];
    run(
        folder.path(),
        small("a blue star on a white background", &more),
    )
    .succeeded();
    let out = folder.path().join("out");
    assert_eq!(
        names(&out),
        [
            "xdit-1_000.png",
            "xdit-1_001.png",
            "xdit-1_002.png",
            "xdit-1_003.png"
        ]
    );
    // One generator for each image: image 2 is what seed 3 alone draws of the second prompt, up to the last bits.
    run(
        folder.path(),
        small(PROMPT, &["--seed", "3", "--output", "alone.png"]),
    )
    .succeeded();
    let (batch, alone) = (
        pixels(&out.join("xdit-1_002.png")),
        pixels(&folder.path().join("alone.png")),
    );
    let worst = batch
        .2
        .iter()
        .zip(&alone.2)
        .map(|(a, b)| a.abs_diff(*b))
        .max()
        .unwrap();
    assert!(worst <= 1, "differs by {worst} levels");
}

#[test]
fn latents_and_floats() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |kind: &str| {
        let words = small(
            PROMPT,
            &[
                "--output",
                kind,
                "--output_type",
                kind,
                "--num-images-per-prompt",
                "2",
            ],
        );
        run(folder.path(), words).succeeded();
        fs::read(folder.path().join(format!("{kind}.safetensors"))).unwrap()
    };
    let bytes = draw("latent");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.names(), ["latents"]);
    // Packed: 64 pixels are 4 tokens of 2×2 latents of 8×8 pixels; 16 channels of 2×2.
    assert_eq!(file.tensor("latents").unwrap().shape(), [2, 16, 64]);
    let bytes = draw("float");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let image = file.tensor("image").unwrap();
    assert_eq!(
        (image.dtype(), image.shape()),
        (Dtype::F32, &[2, 3, 64, 64][..])
    );
    let values = image
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    assert!(values.into_iter().all(|x| (0. ..=1.).contains(&x)));
    assert_eq!(
        names(folder.path()),
        ["float.safetensors", "latent.safetensors"]
    );
}

#[test]
fn metadata_that_others_read() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), small(PROMPT, &["--output", "a.png"])).succeeded();
    let decoder = png::Decoder::new(std::io::BufReader::new(
        fs::File::open(folder.path().join("a.png")).unwrap(),
    ));
    let reader = decoder.read_info().unwrap();
    let text = |key: &str| {
        let chunks = &reader.info().uncompressed_latin1_text;
        chunks
            .iter()
            .find(|chunk| chunk.keyword == key)
            .unwrap()
            .text
            .clone()
    };
    let parameters = text("parameters");
    assert!(
        parameters.starts_with(&format!("{PROMPT}\nSteps: 2, Sampler: Euler, ")),
        "{parameters}"
    );
    assert!(
        parameters.contains("Seed: 42, Size: 64x64, "),
        "{parameters}"
    );
    let record: Value = serde_json::from_str(&text("xdit")).unwrap();
    assert_eq!(record["request"]["prompt"][0], PROMPT);
    assert_eq!(record["model"]["name"], "demo");
}

#[test]
fn quiet_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(folder.path(), small(PROMPT, &["-q"])).succeeded();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    assert_eq!(names(folder.path()), ["xdit-42.png"]);
}

#[test]
fn log_lines_go_to_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(folder.path(), small(PROMPT, &["-v", "--json"])).succeeded();
    outcome.json();
    assert!(outcome.stderr.contains("INFO"), "{outcome:?}");
    assert!(
        !outcome.stderr.contains('\u{1b}'),
        "colours without a terminal"
    );
    let mut quiet = command();
    quiet
        .env("XDIT_LOGGING_LEVEL", "INFO")
        .args(small(PROMPT, &[]))
        .current_dir(folder.path());
    assert!(
        self::outcome(quiet.output())
            .succeeded()
            .stderr
            .contains("INFO")
    );
}

#[test]
fn every_stage_is_dumped() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), small(PROMPT, &["--dump", "dump"])).succeeded();
    let dump = folder.path().join("dump");
    for name in [
        "prompt_embeds",
        "pooled_prompt_embeds",
        "latents",
        "timesteps",
        "sigmas",
    ] {
        let bytes = fs::read(dump.join(format!("{name}.safetensors")));
        let bytes = bytes.unwrap_or_else(|e| panic!("{name}: {e}; there are {:?}", names(&dump)));
        SafeTensors::deserialize(&bytes)
            .unwrap()
            .tensor(name)
            .unwrap();
    }
    // A second dump does not mix with the first, nor does it touch it.
    let before = names(&dump);
    let again = run(folder.path(), small(PROMPT, &["--dump", "dump"]));
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.starts_with("error: dump: "), "{again:?}");
    assert_eq!(names(&dump), before);
}

#[test]
fn traces_hold_phases_and_kernels() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), small(PROMPT, &["--trace", "trace.json"])).succeeded();
    let trace: Value =
        serde_json::from_slice(&fs::read(folder.path().join("trace.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    for name in ["denoise", "decode", "linear", "attention"] {
        let found = events
            .iter()
            .any(|event| event["name"].as_str().is_some_and(|n| n.contains(name)));
        assert!(found, "no span {name}");
    }
    let complete = events.iter().filter(|event| event["ph"] == "X");
    assert!(
        complete
            .into_iter()
            .all(|event| event["dur"].as_f64().is_some_and(|dur| dur >= 0.))
    );
}
