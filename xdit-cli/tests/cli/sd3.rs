//! Stable Diffusion 3 and 3.5 from the command line, on small pipelines that diffusers wrote.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::generate::pixels;
use crate::picture_record::{record, text};
use crate::program::{Outcome, names, run};

/// A pipeline of the goldens.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/pipelines")
        .join(name)
}

/// `COMMAND --model …` with a small size; `more` are words.
pub(crate) fn on(folder: &Path, model: &str, command: &str, more: &str) -> Outcome {
    let model = golden(model);
    let words = format!(
        "{command} --height 96 --width 80 --num-inference-steps 3 --max-sequence-length 13 {more}"
    );
    let words = words.split_whitespace().map(str::to_owned);
    let model = ["--model".to_owned(), model.display().to_string()];
    run(folder, words.chain(model))
}

const GENERATE: &str = "generate --prompt circle";

#[test]
fn replay_redraws_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("sd3-medium", "--negative-prompt green --clip-skip 1"),
        (
            "sd35-medium",
            "--prompt-2 b --prompt-3 c --negative-prompt-2 d --negative_prompt_3 e --skip-guidance-layers 1,3 \
             --skip_layer_guidance_scale 3 --skip-layer-guidance-start 0 --skip-layer-guidance-stop 0.9",
        ),
        ("sd35-large", "--guidance-scale 1"),
        (
            "sd35-medium",
            "--use-cfg-parallel --ulysses-degree 2 --pipefusion-parallel-degree 2 --skip-guidance-layers 2",
        ),
    ];
    for (row, (model, more)) in cases.into_iter().enumerate() {
        let words = format!("{more} --output a.png");
        on(folder.path(), model, GENERATE, &words).succeeded();
        let again = ["replay", "a.png", "--output", "b.png"];
        let outcome = run(folder.path(), again).succeeded();
        assert!(outcome.stdout.contains("identical"), "{row}: {outcome:?}");
        let file = |name: &str| fs::read(folder.path().join(name)).unwrap();
        assert!(file("a.png") == file("b.png"), "row {row}: other bytes");
        let (width, height, _) = pixels(&folder.path().join("a.png"));
        assert_eq!((width, height), (80, 96));
    }
    let record = record(&folder.path().join("a.png"));
    assert_eq!(record["parallel"]["cfg_degree"], 2);
    assert_eq!(
        record["parallel"]["pipefusion"]["pipefusion_parallel_degree"],
        2
    );
}

#[test]
fn every_argument_changes_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |more: &str| {
        let words = format!("--output a.png {more}");
        on(folder.path(), "sd35-medium", GENERATE, &words).succeeded();
        pixels(&folder.path().join("a.png")).2
    };
    let plain = draw("");
    for more in [
        "--prompt-2 square",
        "--prompt-3 square",
        "--negative-prompt green",
        "--negative-prompt-2 green",
        "--negative-prompt-3 green",
        "--clip-skip 1",
        "--guidance-scale 5",
        "--skip-guidance-layers 1 2 --skip-layer-guidance-stop 1",
    ] {
        assert!(draw(more) != plain, "{more} has no effect");
    }
    // One branch on each of two ranks is the same picture.
    assert!(draw("--cfg-degree 2 --no-parallel-vae") == plain);
}

#[test]
fn json_tells_what_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let more = "--json --output a.png --use_cfg_parallel --prompt-3 c --negative-prompt-3 e --clip-skip 1 \
                --skip-guidance-layers 3,1";
    let done = on(folder.path(), "sd35-medium", GENERATE, more)
        .succeeded()
        .json();
    let request = &done["request"];
    for (field, value) in [
        ("prompt_3", json!(["c"])),
        ("negative_prompt_3", json!(["e"])),
        ("clip_skip", json!(1)),
        ("skip_guidance_layers", json!([3, 1])),
        ("skip_layer_guidance_scale", json!(2.8)),
        ("skip_layer_guidance_start", json!(0.01)),
        ("skip_layer_guidance_stop", json!(0.2)),
        ("guidance_scale", json!(7.0)),
    ] {
        assert_eq!(request[field], value, "{field}");
    }
    assert_eq!(done["ranks"]["degrees"]["cfg"], 2);
    let sent = done["ranks"]["communication"].as_array().unwrap();
    let exchange = sent.iter().find(|entry| entry["axis"] == "cfg").unwrap();
    assert_eq!(exchange["calls"], 3, "one exchange a step");

    let plain = on(
        folder.path(),
        "sd3-medium",
        GENERATE,
        "--json --output a.png",
    );
    let plain = plain.succeeded().json();
    for field in ["prompt_3", "clip_skip", "skip_layer_guidance_scale"] {
        assert_eq!(plain["request"][field], Value::Null, "{field}");
    }
    let text = text(&folder.path().join("a.png"), "parameters");
    assert!(
        text.contains("CFG scale: 7, Seed: 42,") && !text.contains("Guidance"),
        "{text}"
    );
}

#[test]
fn a_plan_knows_branches_and_kinds() {
    let folder = tempfile::tempdir().unwrap();
    let more = "--pipefusion-parallel-degree 2 --cfg-degree 2";
    let text = on(folder.path(), "sd35-medium", "plan", more).succeeded();
    for part in ["4 ranks: cfg 2 × pipe 2\n", " dual, ", "\nrank  cfg  pipe "] {
        assert!(text.stdout.contains(part), "{part:?}: {text:?}");
    }
    let plan = |more: &str| {
        let json = on(folder.path(), "sd3-medium", "plan", more).succeeded();
        json.json()
    };
    let kept = |plan: &Value| plan["ranks"][0]["kv_bytes"].as_u64().unwrap();
    let patches = "--json --num-pipeline-patch 2";
    let [both, one, each] = ["", "--guidance-scale 1", "--use-cfg-parallel"]
        .map(|more| kept(&plan(&format!("{patches} {more}"))));
    assert_eq!((both, each), (2 * one, one));
}

#[test]
fn latents_are_those_of_diffusers() {
    let folder = tempfile::tempdir().unwrap();
    let more = "--output-type latent --output a.safetensors --dump d --num-images-per-prompt 2";
    on(folder.path(), "sd3-medium", GENERATE, more).succeeded();
    // 96 × 80 pixels are 12 × 10 latent ones: not packed, as `output_type="latent"` returns them.
    for file in [
        "a.safetensors",
        "d/latents.safetensors",
        "d/step.2.latents.safetensors",
    ] {
        let bytes = fs::read(folder.path().join(file)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let name = tensors.names()[0].to_owned();
        let tensor = tensors.tensor(&name).unwrap();
        assert_eq!(
            (tensor.dtype(), tensor.shape()),
            (Dtype::F32, &[2, 16, 12, 10][..]),
            "{file}"
        );
    }
    // Both branches, where one rank computes them and where two do.
    let two = "--output-type latent --output b.safetensors --dump two --num-images-per-prompt 2 --use-cfg-parallel";
    on(folder.path(), "sd3-medium", GENERATE, two).succeeded();
    for name in ["step.0.noise_pred_uncond", "step.0.noise_pred_cond"] {
        let file = |dump: &str| fs::read(folder.path().join(format!("{dump}/{name}.safetensors")));
        assert!(file("d").unwrap() == file("two").unwrap(), "{name}");
    }
}

#[test]
fn each_line_of_a_prompt_file_has_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let lines = r#"{"prompt": "a", "prompt_3": "b", "negative_prompt_3": "c", "clip_skip": 1, "skip_guidance_layers": [2]}
{"prompt": "a", "skip_guidance_layers": [5]}
{"prompt": "a", "guidance_scale": 1}
"#;
    fs::write(folder.path().join("prompts"), lines).unwrap();
    let words = "--use-cfg-parallel --output set.png";
    let command = "generate --prompt-file prompts";
    let outcome = on(folder.path(), "sd35-medium", command, words);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for told in [
        "prompts:2: --skip-guidance-layers 5: must be below 5",
        "prompts:3: --cfg-degree 2 (--use-cfg-parallel): must be 1",
    ] {
        assert!(outcome.stderr.contains(told), "{outcome:?}");
    }
    assert_eq!(names(folder.path()), ["prompts", "set-00001.png"]);
    let request = &record(&folder.path().join("set-00001.png"))["request"];
    assert_eq!(
        (&request["clip_skip"], &request["prompt_3"]),
        (&json!(1), &json!(["b"]))
    );
    assert_eq!(request["skip_guidance_layers"], json!([2]));
    run(folder.path(), ["replay", "set-00001.png"]).succeeded();
}

#[test]
fn info_tells_encoders_and_blocks() {
    let info = |name: &str| {
        let folder = golden(name).display().to_string();
        let text = run(Path::new("."), ["info", &folder]).succeeded().stdout;
        let json = run(Path::new("."), ["info", &folder, "--json"]);
        (text, json.succeeded().json())
    };
    let (text, json) = info("sd35-medium");
    for word in [
        "StableDiffusion3Pipeline",
        "text_encoder_3",
        "CLIPTextModelWithProjection",
        "4 × 6",
        "3 dual_attention_blocks, 2 transformer_blocks",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    for component in json["components"].as_array().unwrap() {
        let name = component["name"].as_str().unwrap();
        let weighs = ["text_encoder", "transformer", "vae"]
            .iter()
            .any(|w| name.starts_with(w));
        let parameters = component["parameters"].as_u64().unwrap();
        assert_eq!(parameters > 0, weighs, "{component}");
    }
    let (text, _) = info("sd3-medium");
    assert!(!text.contains("text_encoder_3"), "{text}");
    assert!(!text.contains("dual"), "{text}");
}
