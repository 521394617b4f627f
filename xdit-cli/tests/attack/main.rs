//! Runs the program on files with damaged structure: each run succeeds, or fails with one line and a documented exit code.
//!
//! `ci/attack.sh` runs each of these tests for a minute or longer. `cargo test` runs a few fixed cases of each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xdit_tests::attack::files::Copy;
use xdit_tests::attack::{Rng, attack, survives, wire};

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_xdit-cli"))
}

fn golden(pipeline: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/pipelines")
        .join(pipeline)
}

const GENERATE: &str = "generate --model model --prompt a_red_circle --height 32 --width 32 --num-inference-steps 1 \
                        --output out.png";

fn words(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| word.replace('_', " "))
        .collect()
}

/// The attack on tokenizers that are taken as their files are, not made anew from their vocabularies.
const AS_THEY_ARE: &str = "tokenizers_as_they_are";

/// Runs the program on damaged copies of `pipeline`. `more` are words for a small picture.
fn attack_folder(name: &str, pipeline: &str, more: &str, attacked: fn(&Path) -> bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = Copy::new(&golden(pipeline), &folder.path().join("model"), attacked);
    let index = folder.path().join("model/model_index.json");
    if name == AS_THEY_ARE {
        let text = fs::read_to_string(&index).expect("its index");
        let text = text.replace("CLIPTokenizer", "TokenizersBackend");
        fs::write(&index, text.replace("T5Tokenizer", "TokenizersBackend")).expect("its index");
    }
    let generate = format!("{GENERATE} {more}");
    // Undamaged, it draws.
    survives(program(), &words(&generate), folder.path()).expect("the whole copy draws");
    assert!(folder.path().join("out.png").exists(), "a picture");
    attack(name, 30, |rng| {
        copy.damaged(rng, |rng| {
            let words = words(match rng.below(6) {
                0 => "info model",
                1 => "plan --model model",
                _ => &generate,
            });
            survives(program(), &words, folder.path())
        })
    });
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "json")
}

fn is_of_tokenizer(path: &Path) -> bool {
    path.starts_with("tokenizer")
        || path.starts_with("tokenizer_2")
        || path.starts_with("tokenizer_3")
}

#[test]
fn json_of_flux() {
    attack_folder("json_of_flux", "flux-dev", "", is_json);
}

#[test]
fn json_of_sd3() {
    attack_folder("json_of_sd3", "sd35-medium", "", is_json);
}

#[test]
fn json_of_hunyuandit() {
    attack_folder(
        "json_of_hunyuandit",
        "hunyuan-v1.2",
        "--no-use-resolution-binning",
        is_json,
    );
}

#[test]
fn tokenizers_of_lists_and_protobuf() {
    attack_folder(
        "tokenizers_of_lists_and_protobuf",
        "flux-dev",
        "",
        is_of_tokenizer,
    );
}

#[test]
fn tokenizers_of_json() {
    attack_folder("tokenizers_of_json", "sd35-medium", "", is_of_tokenizer);
}

#[test]
fn tokenizers_as_they_are() {
    attack_folder(AS_THEY_ARE, "sd35-medium", "", is_of_tokenizer);
}

#[test]
fn headers_of_weights() {
    attack_folder(
        "headers_of_weights",
        "flux-variant",
        "--variant fp16",
        |path| path.extension().is_some_and(|ext| ext == "safetensors"),
    );
}

#[test]
fn chunks_of_pictures() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = GENERATE.replace("--model model ", "");
    survives(program(), &words(&text), folder.path()).expect("the demo draws");
    let picture = fs::read(folder.path().join("out.png")).expect("a picture");
    attack("chunks_of_pictures", 30, |rng| {
        let damaged = wire::png(&picture, rng);
        fs::write(folder.path().join("a.png"), damaged).expect("a damaged picture");
        survives(program(), &words("replay a.png"), folder.path())
    });
}

#[test]
fn flags() {
    let folder = tempfile::tempdir().expect("a folder");
    let help = Command::new(program())
        .args(["generate", "--help"])
        .output();
    let help = String::from_utf8(help.expect("the help").stdout).expect("UTF-8");
    let flags: Vec<&str> = help
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| word.starts_with("--") && word.len() > 3)
        // A hub is not asked, and nothing is written outside the folder.
        .filter(|word| !["--help", "--revision", "--model"].contains(word))
        .collect();
    assert!(flags.len() > 30, "{flags:?}");
    let value = |rng: &mut Rng| {
        const VALUES: [&str; 20] = [
            "0",
            "1",
            "2",
            "3",
            "7",
            "16",
            "-1",
            "0.5",
            "1e9",
            "nan",
            "inf",
            "4294967296",
            "18446744073709551616",
            "",
            "a",
            "f16",
            "1,2",
            "a/b.png",
            "\u{1b}[2J",
            "32",
        ];
        (*rng.pick(&VALUES)).to_owned()
    };
    attack("flags", 30, |rng| {
        let mut words = words(&GENERATE.replace("--model model ", ""));
        for _ in 0..=rng.below(4) {
            words.push((*rng.pick(&flags)).to_owned());
            if !rng.one_in(3) {
                words.push(value(rng));
            }
        }
        survives(program(), &words, folder.path())
    });
}
