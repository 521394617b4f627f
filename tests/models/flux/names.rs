//! The real FLUX.1-dev: compares every tensor that the loader requests with the lists of diffusers and transformers.

use xdit_models::flux::{FluxConfig, FluxTransformer};
use xdit_models::text::{ClipTextConfig, ClipTextModel};
use xdit_tests::tensor_list::AskedTensors;

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
    let parameters = AskedTensors::default()
        .component("transformer", TRANSFORMER, |config, scope, packing| {
            FluxTransformer::load(&FluxConfig::read(config).unwrap(), scope, packing).unwrap();
        })
        .component("text_encoder", TEXT_ENCODER, |config, scope, packing| {
            ClipTextModel::load(&ClipTextConfig::read(config).unwrap(), scope, packing).unwrap();
        })
        .without_prefix("text_encoder", "text_model.")
        .t5("text_encoder_2", TEXT_ENCODER_2)
        .vae(VAE)
        .as_listed("flux-dev", &[], &[]);
    // The "12 billion parameters" of the model card.
    assert_eq!(parameters, 11_901_408_320);
}
