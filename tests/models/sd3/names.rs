//! The real SD3-medium, SD3.5-medium and SD3.5-large: compares every tensor that the loader requests with the lists of
//! diffusers and transformers.

use xdit_models::ConfigFile;
use xdit_models::layers::Packing;
use xdit_models::sd3::{Sd3Config, Sd3Transformer};
use xdit_models::text::{ClipTextConfig, ClipTextModel};
use xdit_models::weights::Scope;
use xdit_tests::tensor_list::AskedTensors;

use super::{SD3_MEDIUM, SD35_LARGE, SD35_MEDIUM};

/// As on the hub (stabilityai/stable-diffusion-3-medium-diffusers, stable-diffusion-3.5-medium and -large), without fields
/// that do not matter.
const TRANSFORMER_3_MEDIUM: &str = r#"{"_class_name": "SD3Transformer2DModel", "attention_head_dim": 64,
    "caption_projection_dim": 1536, "in_channels": 16, "joint_attention_dim": 4096, "num_attention_heads": 24,
    "num_layers": 24, "out_channels": 16, "patch_size": 2, "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
    "sample_size": 128}"#;
const TRANSFORMER_35_MEDIUM: &str = r#"{"_class_name": "SD3Transformer2DModel", "attention_head_dim": 64,
    "caption_projection_dim": 1536, "dual_attention_layers": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    "in_channels": 16, "joint_attention_dim": 4096, "num_attention_heads": 24, "num_layers": 24, "out_channels": 16,
    "patch_size": 2, "pooled_projection_dim": 2048, "pos_embed_max_size": 384, "qk_norm": "rms_norm",
    "sample_size": 128}"#;
const TRANSFORMER_35_LARGE: &str = r#"{"_class_name": "SD3Transformer2DModel", "attention_head_dim": 64,
    "caption_projection_dim": 2432, "in_channels": 16, "joint_attention_dim": 4096, "num_attention_heads": 38,
    "num_layers": 38, "out_channels": 16, "patch_size": 2, "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
    "qk_norm": "rms_norm", "sample_size": 128}"#;
/// The other components are the same in all three.
const TEXT_ENCODER: &str = r#"{"architectures": ["CLIPTextModelWithProjection"], "eos_token_id": 2,
    "hidden_act": "quick_gelu", "hidden_size": 768, "intermediate_size": 3072, "max_position_embeddings": 77,
    "num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768, "vocab_size": 49408}"#;
const TEXT_ENCODER_2: &str = r#"{"architectures": ["CLIPTextModelWithProjection"], "eos_token_id": 2,
    "hidden_act": "gelu", "hidden_size": 1280, "intermediate_size": 5120, "max_position_embeddings": 77,
    "num_attention_heads": 20, "num_hidden_layers": 32, "projection_dim": 1280, "vocab_size": 49408}"#;
const TEXT_ENCODER_3: &str = r#"{"architectures": ["T5EncoderModel"], "d_ff": 10240, "d_kv": 64, "d_model": 4096,
    "feed_forward_proj": "gated-gelu", "num_heads": 64, "num_layers": 24, "vocab_size": 32128,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}"#;
const VAE: &str = r#"{"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    "latent_channels": 16, "layers_per_block": 2, "norm_num_groups": 32, "scaling_factor": 1.5305,
    "shift_factor": 0.0609, "use_post_quant_conv": false, "use_quant_conv": false}"#;

fn load_clip(config: &ConfigFile, scope: &Scope<'_>, packing: &mut Packing<'_>) {
    let config = ClipTextConfig::read(config).unwrap();
    ClipTextModel::load_with_projection(&config, scope, packing).unwrap();
}

fn check(model: &str, transformer: &str, parameters: u64) {
    let learned = AskedTensors::default()
        .component("transformer", transformer, |config, scope, packing| {
            Sd3Transformer::load(&Sd3Config::read(config).unwrap(), scope, packing).unwrap();
        })
        .component("text_encoder", TEXT_ENCODER, load_clip)
        .component("text_encoder_2", TEXT_ENCODER_2, load_clip)
        .t5("text_encoder_3", TEXT_ENCODER_3)
        .vae(VAE)
        .as_listed(model, &[], &["transformer pos_embed.pos_embed "]);
    assert_eq!(learned, parameters, "{model}");
}

#[test]
fn sd3_medium_is_asked_for_tensor_by_tensor() {
    check(SD3_MEDIUM, TRANSFORMER_3_MEDIUM, 2_028_328_000);
}

#[test]
fn sd35_medium_is_asked_for_tensor_by_tensor() {
    check(SD35_MEDIUM, TRANSFORMER_35_MEDIUM, 2_243_171_520);
}

#[test]
fn sd35_large_is_asked_for_tensor_by_tensor() {
    check(SD35_LARGE, TRANSFORMER_35_LARGE, 8_056_627_520);
}
