//! `replay` of malicious pictures: an error in one line, at once, and with little memory.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::bad_input::refused;
use crate::program::{Outcome, command, outcome, run, small};
use crate::replay::{read, write};

/// `replay a.png` in at most a gibibyte of addresses.
fn replay(folder: &Path) -> Outcome {
    let program = command();
    let mut shell = Command::new("sh");
    shell
        .args([
            "-c",
            "ulimit -v 1048576; exec \"$0\" replay a.png --threads 2",
        ])
        .arg(program.get_program())
        .env_clear()
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", "/nonexistent")
        .current_dir(folder);
    outcome(shell.output())
}

/// A chunk of a PNG.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let checked = [kind, data].concat();
    let mut crc = u32::MAX;
    for byte in &checked {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
        }
    }
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&length, checked.as_slice(), &(!crc).to_be_bytes()].concat()
}

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

fn header(width: u32, height: u32) -> Vec<u8> {
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    chunk(b"IHDR", &[size.as_slice(), &[8, 2, 0, 0, 0]].concat())
}

#[test]
fn sizes_that_no_file_holds() {
    let folder = tempfile::tempdir().unwrap();
    for (width, height) in [
        (37_000, 38_000),
        (0x7fff_ffff, 1),
        (1, 0x7fff_ffff),
        (0x7fff_ffff, 0x7fff_ffff),
    ] {
        let parts = [
            SIGNATURE.to_vec(),
            header(width, height),
            chunk(b"IDAT", &[]),
            chunk(b"IEND", &[]),
        ];
        let bytes = parts.concat();
        assert_eq!(bytes.len(), 57);
        fs::write(folder.path().join("a.png"), &bytes).unwrap();
        refused(&replay(folder.path()), 2, "a.png");
    }
}

/// Texts and colour profiles that unpack to more than the limit.
#[test]
fn bombs() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), small("a", &["--output", "a.png"])).succeeded();
    let whole = fs::read(folder.path().join("a.png")).unwrap();
    // 64 MiB of spaces.
    let deflated = {
        use png::text_metadata::ZTXtChunk;
        let mut text = ZTXtChunk::new("x", " ".repeat(64 << 20));
        text.compress_text().unwrap();
        let mut file = Vec::new();
        let mut writer = png::Encoder::new(&mut file, 1, 1).write_header().unwrap();
        writer.write_text_chunk(&text).unwrap();
        drop(writer);
        let at = file.windows(4).position(|kind| kind == b"zTXt").unwrap();
        let length = u32::from_be_bytes(file[at - 4..at].try_into().unwrap()) as usize;
        file[at + 4 + 3..at + 4 + length].to_vec()
    };
    assert!(deflated.len() < 400_000, "{}", deflated.len());
    let texts = [
        chunk(b"zTXt", &[b"xdit\0\0", deflated.as_slice()].concat()),
        chunk(
            b"iTXt",
            &[b"xdit\0\x01\0\0\0", deflated.as_slice()].concat(),
        ),
        chunk(
            b"tEXt",
            &[b"xdit\0".as_slice(), &vec![b' '; 40 << 20]].concat(),
        ),
    ];
    for text in texts {
        let bytes = [SIGNATURE, &header(64, 64), &text, &whole[33..]].concat();
        // Its own record comes after the other of that name.
        fs::write(folder.path().join("a.png"), bytes).unwrap();
        let outcome = replay(folder.path());
        if outcome.code != Some(0) {
            refused(&outcome, 2, "a.png");
        }
    }
    let profile = chunk(b"iCCP", &[b"x\0\0", deflated.as_slice()].concat());
    let bytes = [SIGNATURE, &header(64, 64), &profile, &whole[33..]].concat();
    fs::write(folder.path().join("a.png"), bytes).unwrap();
    replay(folder.path()).succeeded();
}

/// A record is checked as flags are.
#[test]
fn records_that_ask_for_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let more = [
        "--output",
        "a.png",
        "--ulysses-degree",
        "2",
        "--num-pipeline-patch",
        "2",
    ];
    run(folder.path(), small("a", &more)).succeeded();
    let file = folder.path().join("a.png");
    let (pixels, record) = read(&file);
    let long = format!("\"prompt\":[\"{}\"]", "a".repeat(70_000));
    for (from, to, word) in [
        ("\"images\":1", "\"images\":65535", "images 65535"),
        (
            "\"num_images_per_prompt\":1",
            "\"num_images_per_prompt\":18446744073709551615",
            "--num-images-per-prompt",
        ),
        ("\"height\":64", "\"height\":1000000000", "--height"),
        ("\"width\":64", "\"width\":18446744073709551615", "--width"),
        (
            "\"num_inference_steps\":2",
            "\"num_inference_steps\":1000000000",
            "--num-inference-steps",
        ),
        (
            "\"max_sequence_length\":24",
            "\"max_sequence_length\":1000000000",
            "--max-sequence-length",
        ),
        (
            "\"guidance_scale\":0.0",
            "\"guidance_scale\":1e300",
            "--guidance-scale",
        ),
        (
            "\"ulysses_degree\":2",
            "\"ulysses_degree\":1000000000",
            "1000000000",
        ),
        ("\"ulysses_degree\":2", "\"ulysses_degree\":0", "0"),
        (
            "\"num_pipeline_patch\":2",
            "\"num_pipeline_patch\":1000000000",
            "--num-pipeline-patch",
        ),
        (
            "\"attn_layer_num_for_pp\":[8]",
            "\"attn_layer_num_for_pp\":[18446744073709551615,9]",
            "--",
        ),
        (
            "\"placement\"",
            "\"max_drift\":1e300,\"placement\"",
            "number out of range",
        ),
        ("\"prompt\":[\"a\"]", &long, "--prompt"),
        ("\"prompt\":[\"a\"]", "\"prompt\":[\"a\",\"b\"]", "images 1"),
        (
            "\"prompt\":[\"a\"]",
            "\"prompt\":[\"a\"],\"clip_skip\":1",
            "--clip-skip",
        ),
        ("\"seed\":[42]", "\"seed\":[1,2,3]", "--seed"),
        ("\"seed\":[42]", "\"seed\":[18446744073709551616]", "record"),
    ] {
        // A linear pipeline is not written down.
        let from = if from == "\"placement\"" {
            "\"attn_layer_num_for_pp\""
        } else {
            from
        };
        let to = to.replace("\"placement\"", "\"attn_layer_num_for_pp\"");
        assert!(record.contains(from), "{from} is not in {record}");
        write(&file, [64, 64], &pixels, &record.replacen(from, &to, 1));
        let outcome = replay(folder.path());
        refused(&outcome, 2, word);
        assert!(
            outcome.stderr.contains("a.png: damaged record"),
            "{outcome:?}"
        );
    }
    // As many images as the record says, which no memory holds.
    let many = record
        .replace("\"images\":1", "\"images\":1048576")
        .replace(
            "\"num_images_per_prompt\":1",
            "\"num_images_per_prompt\":1048576",
        );
    write(&file, [64, 64], &pixels, &many);
    refused(&replay(folder.path()), 5, "out of memory");
    // Another size than the pixels' is drawn, and is different.
    write(
        &file,
        [64, 64],
        &pixels,
        &record.replace("\"height\":64", "\"height\":32"),
    );
    let outcome = run(folder.path(), ["replay", "a.png"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.stdout.contains("different: 64×64 now 64×32"),
        "{outcome:?}"
    );
}

/// What a terminal would obey is shown, not sent, and nothing is longer than a line.
#[test]
fn records_that_speak_to_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), small("a", &["--output", "a.png"])).succeeded();
    let file = folder.path().join("a.png");
    let (pixels, record) = read(&file);
    let evil = format!("\\u001b]0;x\\u0007\\u202e\\u009b31m{}", "x".repeat(125_000));
    let tier = record
        .split("\"tier\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    for (from, code) in [
        ("\"dtype\":\"f32\"".to_owned(), 2),
        ("\"device\":\"cpu\"".into(), 0),
        (format!("\"tier\":\"{tier}\""), 0),
        ("\"name\":\"demo\"".into(), 2),
        ("\"class\":\"FluxPipeline\"".into(), 0),
        ("\"format\":1".into(), 2),
        ("\"prompt\":[\"a\"]".into(), 2),
        ("\"seed\":[42]".into(), 2),
    ] {
        assert!(record.contains(&from), "{from} is not in {record}");
        let key = from.split(':').next().unwrap();
        write(
            &file,
            [64, 64],
            &pixels,
            &record.replace(&from, &format!("{key}:\"{evil}\"")),
        );
        for json in [&["--json"][..], &[]] {
            let words = ["replay", "a.png"].iter().chain(json);
            let outcome = run(folder.path(), words);
            assert!(
                [code, 1].contains(&outcome.code.unwrap()),
                "{key}: {:.500}",
                outcome.stderr
            );
            let told = [outcome.stderr.as_str(), &outcome.stdout].concat();
            let hidden = ['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}'];
            assert!(!told.contains(hidden), "{key}: {told:?}");
            assert!(
                outcome.stderr.lines().all(|line| line.len() < 1000),
                "{key}"
            );
        }
    }
    // A name that is only hidden characters and short.
    let name = record.replace("\"name\":\"demo\"", "\"name\":\"\\u202eomed\\u200b\"");
    write(&file, [64, 64], &pixels, &name);
    let outcome = run(folder.path(), ["replay", "a.png"]);
    refused(&outcome, 3, "omed");
    assert!(
        !outcome.stderr.contains(['\u{202e}', '\u{200b}']),
        "{outcome:?}"
    );
}
