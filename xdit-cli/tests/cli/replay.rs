//! `xdit-cli replay`.

use std::fs;
use std::path::Path;

use crate::bad_input::refused;
use crate::picture_record::text;
use crate::program::{names, run, small};

fn draw(folder: &Path, more: &[&str]) {
    let words = small("a red circle on a blue background", more);
    run(folder, words.iter().chain(&["--output", "a.png"])).succeeded();
}

#[test]
fn identical_whatever_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    draw(folder.path(), &["--threads", "1"]);
    let outcome = run(folder.path(), ["replay", "a.png", "--threads", "3"]).succeeded();
    assert!(
        outcome.stdout.starts_with("a.png: identical"),
        "{outcome:?}"
    );
    let json = run(
        folder.path(),
        ["replay", "a.png", "--json", "--output", "b.png"],
    )
    .succeeded()
    .json();
    assert_eq!(json["identical"], true);
    assert_eq!(json["difference"]["max_abs"], 0);
    assert_eq!(
        fs::read(folder.path().join("a.png")).unwrap(),
        fs::read(folder.path().join("b.png")).unwrap()
    );
    assert_eq!(names(folder.path()), ["a.png", "b.png"]);
}

#[test]
fn every_tier_draws_the_same_picture() {
    let folder = tempfile::tempdir().unwrap();
    draw(folder.path(), &["--cpu-tier", "portable"]);
    // Replayed on the recorded tier, whatever this processor's best is.
    run(folder.path(), ["replay", "a.png"]).succeeded();
    for tier in ["avx2", "avx512", "avx512-bf16", "neon", "neon-bf16"] {
        let outcome = run(
            folder.path(),
            ["replay", "a.png", "--cpu-tier", tier, "--json"],
        );
        if outcome.code == Some(2) {
            let missing =
                format!("invalid value '{tier}' for '--cpu-tier <TIER>': expected a tier of this");
            assert!(outcome.stderr.contains(&missing), "{outcome:?}");
            continue;
        }
        // Sums in another order move an f32 image by 1e-5 at most: where it lies between two levels, by one.
        let difference = &outcome.json()["difference"];
        let worst = difference["max_abs"].as_u64().unwrap();
        assert!(worst <= 1, "{tier}: {difference}");
    }
}

#[test]
fn one_image_of_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let more = [
        "--num-images-per-prompt",
        "2",
        "--negative-prompt",
        "green",
        "--true-cfg-scale",
        "2",
        "--seed",
        "7",
    ];
    draw(folder.path(), &more);
    for image in ["a_000.png", "a_001.png"] {
        run(folder.path(), ["replay", image]).succeeded();
    }
}

#[test]
fn other_pixels_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    draw(folder.path(), &[]);
    let file = folder.path().join("a.png");
    let (pixels, record) = read(&file);
    let mut changed = pixels.clone();
    changed[100] = changed[100].wrapping_add(5);
    write(&file, [64, 64], &changed, &record);
    let json = run(folder.path(), ["replay", "a.png", "--json"]);
    assert_eq!(json.code, Some(1), "{json:?}");
    let difference = &json.json()["difference"];
    assert_eq!(
        (&difference["bytes"], &difference["max_abs"]),
        (&1.into(), &5.into())
    );
    // 10 log10(255² · 64·64·3 / 25): one byte off by 5.
    assert!(
        (difference["psnr_db"].as_f64().unwrap() - 75.05).abs() <= 0.01,
        "{difference}"
    );
    let text = run(folder.path(), ["replay", "a.png"]);
    assert!(
        text.stdout
            .contains("different: 1 of 12288 bytes, by at most 5, PSNR 75.0"),
        "{text:?}"
    );
}

#[test]
fn pictures_without_a_record() {
    let folder = tempfile::tempdir().unwrap();
    draw(folder.path(), &["--no-metadata"]);
    fs::write(folder.path().join("text.png"), b"not a picture").unwrap();
    for (image, code, word) in [
        ("a.png", 2, "--no-metadata"),
        ("text.png", 2, "not a PNG"),
        ("none.png", 1, "none.png"),
    ] {
        let outcome = run(folder.path(), ["replay", image]);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(outcome.stderr.contains(word), "{outcome:?}");
    }
}

#[test]
fn a_megabyte_of_prompt_is_refused_as_from_flags() {
    let folder = tempfile::tempdir().unwrap();
    draw(folder.path(), &[]);
    let file = folder.path().join("a.png");
    let (pixels, record) = read(&file);
    let prompt = "a red circle on a blue background ".repeat(30_000);
    write(
        &file,
        [64, 64],
        &pixels,
        &record.replace("a red circle on a blue background", &prompt),
    );
    let outcome = run(folder.path(), ["replay", "a.png", "--output", "b.png"]);
    refused(
        &outcome,
        2,
        "--prompt a text of 1020000 bytes: must be at most 65536 bytes",
    );
    assert_eq!(names(folder.path()), ["a.png"]);
}

#[test]
fn damaged_records_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    draw(folder.path(), &[]);
    let file = folder.path().join("a.png");
    let (pixels, record) = read(&file);
    for (from, to) in [
        ("\"dtype\":\"f32\"", "\"dtype\":\"f8\""),
        ("\"format\":1", "\"format\":9"),
        ("\"height\":64", "\"height\":-64"),
        ("\"height\":64", "\"height\":0"),
        ("\"prompt\":[", "\"prompt\":[],\"x\":["),
        ("\"seed\":[42]", "\"seed\":[]"),
        ("\"num_images_per_prompt\":1", "\"num_images_per_prompt\":0"),
    ] {
        assert!(record.contains(from), "{from} is not in {record}");
        write(&file, [64, 64], &pixels, &record.replace(from, to));
        let outcome = run(folder.path(), ["replay", "a.png"]);
        assert_eq!(outcome.code, Some(2), "{to}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{to}: {outcome:?}");
    }
}

/// Pixels and record of a picture.
pub(crate) fn read(file: &Path) -> (Vec<u8>, String) {
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(file).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    (pixels, text(file, "xdit"))
}

/// A picture of this width and height with a record.
pub(crate) fn write(file: &Path, [width, height]: [u32; 2], pixels: &[u8], record: &str) {
    let mut encoder = png::Encoder::new(fs::File::create(file).unwrap(), width, height);
    encoder.set_color(png::ColorType::Rgb);
    match record.is_ascii() {
        true => encoder.add_text_chunk("xdit".into(), record.into()),
        false => encoder.add_itxt_chunk("xdit".into(), record.into()),
    }
    .unwrap();
    encoder
        .write_header()
        .unwrap()
        .write_image_data(pixels)
        .unwrap();
}
