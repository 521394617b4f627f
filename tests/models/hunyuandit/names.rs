//! The real HunyuanDiT v1.1 and v1.2: compares every tensor that the loaders request with the lists of diffusers and
//! transformers. The configurations of the distilled models have the same shapes.

use xdit_models::hunyuandit::{HunyuanConfig, HunyuanTransformer};
use xdit_models::text::{BertConfig, BertEncoder};
use xdit_tests::tensor_list::AskedTensors;

use super::{V1_1, V1_2};

/// As on the hub (Tencent-Hunyuan/HunyuanDiT-v1.1-Diffusers and -v1.2-Diffusers), without fields that do not matter.
const TRANSFORMER_1_1: &str = r#"{"_class_name": "HunyuanDiT2DModel", "activation_fn": "gelu-approximate",
    "attention_head_dim": 88, "cross_attention_dim": 1024, "cross_attention_dim_t5": 2048, "hidden_size": 1408,
    "in_channels": 4, "learn_sigma": true, "mlp_ratio": 4.3637, "norm_type": "layer_norm", "num_attention_heads": 16,
    "num_layers": 40, "patch_size": 2, "pooled_projection_dim": 1024, "sample_size": 128, "text_len": 77,
    "text_len_t5": 256}"#;
const TRANSFORMER_1_2: &str = r#"{"_class_name": "HunyuanDiT2DModel", "activation_fn": "gelu-approximate",
    "attention_head_dim": 88, "cross_attention_dim": 1024, "cross_attention_dim_t5": 2048, "hidden_size": 1408,
    "in_channels": 4, "learn_sigma": true, "mlp_ratio": 4.3637, "norm_type": "layer_norm", "num_attention_heads": 16,
    "num_layers": 40, "patch_size": 2, "pooled_projection_dim": 1024, "sample_size": 128, "text_len": 77,
    "text_len_t5": 256, "use_style_cond_and_image_meta_size": false}"#;
/// The other components are the same in both.
const TEXT_ENCODER: &str = r#"{"architectures": ["BertModel"], "hidden_act": "gelu", "hidden_size": 1024,
    "intermediate_size": 4096, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "num_attention_heads": 16,
    "num_hidden_layers": 24, "position_embedding_type": "absolute", "type_vocab_size": 2, "vocab_size": 47020}"#;
const TEXT_ENCODER_2: &str = r#"{"architectures": ["MT5EncoderModel"], "d_ff": 5120, "d_kv": 64, "d_model": 2048,
    "feed_forward_proj": "gated-gelu", "num_heads": 32, "num_layers": 24, "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128, "vocab_size": 250112}"#;
const VAE: &str = r#"{"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "scaling_factor": 0.13025}"#;

fn check(model: &str, transformer: &str, parameters: u64) {
    let asked = AskedTensors::default()
        .component("transformer", transformer, |config, scope, packing| {
            HunyuanTransformer::load(&HunyuanConfig::read(config).unwrap(), scope, packing)
                .unwrap();
        })
        .component("text_encoder", TEXT_ENCODER, |config, scope, packing| {
            BertEncoder::load(&BertConfig::read(config).unwrap(), scope, packing).unwrap();
        })
        .without_prefix("text_encoder", "bert.")
        .t5("text_encoder_2", TEXT_ENCODER_2)
        .vae(VAE);
    // Last hidden states are read, pooled ones are not.
    let learned = asked.as_listed(model, &["text_encoder pooler."], &[]);
    assert_eq!(learned, parameters, "{model}");
}

#[test]
fn v1_1_is_asked_for_tensor_by_tensor() {
    check(V1_1, TRANSFORMER_1_1, 1_516_534_048);
}

#[test]
fn v1_2_is_asked_for_tensor_by_tensor() {
    check(V1_2, TRANSFORMER_1_2, 1_499_952_032);
}
