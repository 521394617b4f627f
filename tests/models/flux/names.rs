//! The real FLUX.1-dev: compares every tensor that the loader requests with the lists of diffusers and transformers.

use std::collections::BTreeSet;

use xdit_models::flux::{FluxConfig, FluxTransformer};
use xdit_models::text::{ClipTextConfig, ClipTextModel, T5Config, T5Encoder};
use xdit_models::vae::{VaeConfig, VaeDecoder};
use xdit_tests::goldens::{self, asked};

/// As on the hub (black-forest-labs/FLUX.1-dev), without fields that do not matter.
const TRANSFORMER: &str = r#"{"_class_name": "FluxTransformer2DModel", "attention_head_dim": 128,
    "guidance_embeds": true, "in_channels": 64, "joint_attention_dim": 4096, "num_attention_heads": 24,
    "num_layers": 19, "num_single_layers": 38, "patch_size": 1, "pooled_projection_dim": 768}"#;
const TEXT_ENCODER: &str = r#"{"architectures": ["CLIPTextModel"], "eos_token_id": 2, "hidden_act": "quick_gelu",
    "hidden_size": 768, "intermediate_size": 3072, "max_position_embeddings": 77, "num_attention_heads": 12,
    "num_hidden_layers": 12, "projection_dim": 768, "vocab_size": 49408}"#;
const TEXT_ENCODER_2: &str = r#"{"architectures": ["T5EncoderModel"], "d_ff": 10240, "d_kv": 64, "d_model": 4096,
    "feed_forward_proj": "gated-gelu", "num_heads": 64, "num_layers": 24, "vocab_size": 32128,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}"#;
const VAE: &str = r#"{"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    "latent_channels": 16, "layers_per_block": 2, "norm_num_groups": 32, "scaling_factor": 0.3611,
    "shift_factor": 0.1159, "use_post_quant_conv": false, "use_quant_conv": false}"#;

#[test]
fn flux_dev_is_asked_for_tensor_by_tensor() {
    let mut ours = asked("transformer", TRANSFORMER, |config, scope, packing| {
        FluxTransformer::load(&FluxConfig::read(config).unwrap(), scope, packing).unwrap();
    });
    // Zeros have every prefix, so CLIP's optional `text_model.` is found; the list of transformers 5 has none.
    let clip = asked("text_encoder", TEXT_ENCODER, |config, scope, packing| {
        ClipTextModel::load(&ClipTextConfig::read(config).unwrap(), scope, packing).unwrap();
    });
    ours.extend(clip.iter().map(|line| line.replace(" text_model.", " ")));
    ours.extend(asked(
        "text_encoder_2",
        TEXT_ENCODER_2,
        |config, scope, packing| {
            T5Encoder::load(&T5Config::read(config).unwrap(), scope, packing).unwrap();
        },
    ));
    ours.extend(asked("vae", VAE, |config, scope, packing| {
        VaeDecoder::load(&VaeConfig::read(config).unwrap(), scope, packing).unwrap();
    }));

    let list = String::from_utf8(goldens::bytes("flux-dev-tensors.txt.gz")).unwrap();
    let theirs: BTreeSet<String> = list.lines().map(ToString::to_string).collect();
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&theirs).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "not asked for: {missing:#?}\nnot there: {extra:#?}"
    );
    let numbers = |line: &&String| -> u64 {
        let shape = line
            .split_once('[')
            .expect("a shape")
            .1
            .trim_end_matches(']');
        shape
            .split(", ")
            .map(|dim| dim.parse::<u64>().expect("a dim"))
            .product()
    };
    let transformer: u64 = theirs
        .iter()
        .filter(|line| line.starts_with("transformer "))
        .map(|line| numbers(&line))
        .sum();
    // The "12 billion parameters" of the model card.
    assert_eq!(transformer, 11_901_408_320);
}
