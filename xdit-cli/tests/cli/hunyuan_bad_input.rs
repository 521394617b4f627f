//! Requests that HunyuanDiT does not support, and copies of its pipelines with one broken file: one line, a documented exit
//! code, no file.

use std::fs;

use crate::bad_input::refused;
use crate::broken_model::Damage::{self, Bytes, Remove, Set, Write};
use crate::broken_model::copy_tree;
use crate::program::{names, run};
use crate::sd3::golden;

#[test]
fn what_hunyuan_cannot_draw() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, told) in [
        (
            "--scheduler FooScheduler",
            "--scheduler FooScheduler: must be one of DDPMScheduler, DDIMScheduler, \
             DPMSolverMultistepScheduler, EulerDiscreteScheduler",
        ),
        (
            "--pipefusion-parallel-degree 5",
            "--pipefusion-parallel-degree 5: must be from 1 to 4 where the pipeline is folded, half the blocks of the \
             model; with --pipefusion-placement linear up to 8",
        ),
        (
            "--pipefusion-parallel-degree 5 --pipefusion-balance memory",
            "must be from 1 to 4 where the pipeline is folded",
        ),
        (
            "--pipefusion-parallel-degree 9 --pipefusion-placement linear",
            "--pipefusion-parallel-degree 9: must be from 1 to 8",
        ),
        (
            "--pipefusion-placement up",
            "[possible values: linear, folded]",
        ),
        (
            "--pipefusion-parallel-degree 2 --attn-layer-num-for-pp 3,5",
            "--attn-layer-num-for-pp 3,5: must be even numbers",
        ),
        (
            "--pipefusion-parallel-degree 2 --attn-layer-num-for-pp 8,0",
            "--attn-layer-num-for-pp 8,0: must be at least 2 each and 8 in all",
        ),
        ("--height 8", "--height 8: must be from 16 to"),
        ("--width 0", "--width 0"),
        ("--height 100000000", "--height 100000000"),
        ("--guidance-rescale nan", "--guidance-rescale"),
        ("--original-size 64 64", "--original-size must be left out"),
        ("--target-size 64 64", "--target-size must be left out"),
        (
            "--crops-coords-top-left 0 0",
            "--crops-coords-top-left must be left out",
        ),
        ("--prompt-2 a", "--prompt-2 must be left out"),
        ("--clip-skip 1", "--clip-skip must be left out"),
        ("--true-cfg-scale 2", "--true-cfg-scale must be left out"),
        (
            "--max-sequence-length 10",
            "--max-sequence-length 10: must be 256",
        ),
        (
            "--guidance-scale 1 --use-cfg-parallel",
            "--cfg-degree 2 (--use-cfg-parallel): must be 1",
        ),
    ] {
        for command in ["plan", "generate --prompt 圆"] {
            // A size in the row takes the place of the model's own, which is larger.
            let model = golden("hunyuan-v1.2").display().to_string();
            let words = format!("{command} --no-use-resolution-binning {flags} --model {model}");
            refused(&run(folder.path(), words.split_whitespace()), 2, told);
        }
    }
    // A plan of so many steps can be drawn up, but no sampler makes them.
    let model = golden("hunyuan-v1.2").display().to_string();
    let words = format!("generate --prompt 圆 --num-inference-steps 1001 --model {model}");
    let told = "--num-inference-steps 1001: must be at most 1000";
    refused(&run(folder.path(), words.split_whitespace()), 2, told);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn nothing_else_is_folded() {
    let folder = tempfile::tempdir().unwrap();
    for model in ["flux-dev", "sd3-medium", "sd35-medium"] {
        for command in ["plan", "generate --prompt a"] {
            let model = golden(model).display().to_string();
            let words = format!(
                "{command} --height 64 --width 64 --pipefusion-placement folded --model {model}"
            );
            let told = "--pipefusion-placement folded: must be linear";
            refused(&run(folder.path(), words.split_whitespace()), 2, told);
        }
    }
    assert_eq!(names(folder.path()), [""; 0]);
}

const TRANSFORMER: &str = "transformer/config.json";
const BERT: &str = "text_encoder/config.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";
const VOCABULARY: &str = "tokenizer/vocab.txt";
const PIECES: &str = "tokenizer_2/spiece.model";

/// Each row: a file of v1.1, what is done to it, and what the message must name.
const BROKEN: &[(&str, Damage, &str)] = &[
    (
        TRANSFORMER,
        Set("num_layers", "3"),
        "`num_layers` must be even",
    ),
    (TRANSFORMER, Set("num_layers", "0"), "num_layers"),
    (TRANSFORMER, Set("num_layers", "6"), "blocks."),
    (TRANSFORMER, Set("num_layers", "1000000000"), "num_layers"),
    (
        TRANSFORMER,
        Set("num_attention_heads", "0"),
        "num_attention_heads",
    ),
    (
        TRANSFORMER,
        Set("attention_head_dim", "6"),
        "attention_head_dim",
    ),
    (
        TRANSFORMER,
        Set("hidden_size", "1000000000000"),
        "hidden_size",
    ),
    (TRANSFORMER, Set("text_len", "-1"), "text_len"),
    (TRANSFORMER, Set("learn_sigma", "false"), "learn_sigma"),
    (TRANSFORMER, Set("mlp_ratio", "-1"), "mlp_ratio"),
    (TRANSFORMER, Set("activation_fn", r#""magic""#), "magic"),
    (TRANSFORMER, Set("in_channels", "5"), "in_channels"),
    (
        TRANSFORMER,
        Set("cross_attention_dim_t5", "25"),
        "cross_attention_dim_t5",
    ),
    (TRANSFORMER, Remove, TRANSFORMER),
    (
        "transformer/diffusion_pytorch_model.safetensors",
        Remove,
        "transformer",
    ),
    (
        BERT,
        Set("max_position_embeddings", "76"),
        "text_encoder/config.json: `max_position_embeddings` must be at least 77",
    ),
    (
        TRANSFORMER,
        Set("sample_size", "1000000"),
        "transformer/config.json: `sample_size`",
    ),
    ("vae/config.json", Set("out_channels", "1"), "out_channels"),
    (BERT, Remove, BERT),
    (BERT, Set("hidden_size", "0"), "hidden_size"),
    (BERT, Set("num_attention_heads", "5"), "num_attention_heads"),
    (
        BERT,
        Set("num_hidden_layers", "1000000000"),
        "num_hidden_layers",
    ),
    ("text_encoder_2/model.safetensors", Remove, "text_encoder_2"),
    (VOCABULARY, Remove, VOCABULARY),
    (VOCABULARY, Bytes(|b| b.insert(0, 0xff)), VOCABULARY),
    (VOCABULARY, Write(""), VOCABULARY),
    (VOCABULARY, Bytes(|b| b.truncate(10)), VOCABULARY),
    (PIECES, Remove, PIECES),
    (PIECES, Write("x"), PIECES),
    (PIECES, Bytes(|b| b.truncate(b.len() / 2 + 1)), PIECES),
    (SCHEDULER, Remove, SCHEDULER),
    (SCHEDULER, Set("beta_schedule", r#""x""#), "beta_schedule"),
    (
        SCHEDULER,
        Set("prediction_type", r#""flow""#),
        "prediction_type",
    ),
    (
        SCHEDULER,
        Set("num_train_timesteps", "0"),
        "num_train_timesteps",
    ),
];

#[test]
fn broken_models() {
    for (row, (file, damage, word)) in BROKEN.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        copy_tree(&golden("hunyuan-v1.1"), &model);
        damage.apply(&model.join(file));
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        let words = "generate --prompt 圆 --height 32 --width 32 --no-use-resolution-binning \
                     --num-inference-steps 1 --model ../model --output a.png";
        let outcome = run(&out, words.split_whitespace());
        println!("{row}: {}", outcome.stderr.trim_end());
        refused(&outcome, 4, word);
        assert_eq!(names(&out), [""; 0], "row {row}, {word}");
    }
}
