"""Lists every tensor of the real models with its shape, `component name [shape]` lines.

The classes of diffusers and transformers are built on torch's meta device with the configurations of the hub's
repositories, so no weights are needed. `vae` lists the decoder only: text to image needs no encoder.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, HunyuanDiT2DModel, SD3Transformer2DModel
from torch import nn
from transformers import (
    BertConfig, BertModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel,
)

from .store import write_gzip

CLIP_L = dict(
    hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12, projection_dim=768
)
CLIP_G = dict(
    hidden_size=1280, intermediate_size=5120, num_attention_heads=20, num_hidden_layers=32, projection_dim=1280,
    hidden_act="gelu",
)
# stable-diffusion-3-medium, stable-diffusion-3.5-medium, stable-diffusion-3.5-large
SD3 = {
    "sd3-medium": dict(num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192),
    "sd35-medium": dict(
        num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=384,
        qk_norm="rms_norm", dual_attention_layers=tuple(range(13)),
    ),
    "sd35-large": dict(
        num_layers=38, num_attention_heads=38, caption_projection_dim=2432, pos_embed_max_size=192, qk_norm="rms_norm"
    ),
}
# HunyuanDiT-v1.1-Diffusers, -v1.2-Diffusers; the distilled ones have the same shapes.
HUNYUAN = {"hunyuan-v1.1": True, "hunyuan-v1.2": False}


def t5() -> T5EncoderModel:
    """T5-XXL's encoder."""
    config = T5Config(
        d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu",
        vocab_size=32128, is_encoder_decoder=False,
    )
    return T5EncoderModel(config)


def vae() -> AutoencoderKL:
    """The autoencoder of Flux and Stable Diffusion 3: 16 latent channels, no quantisation convolutions."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        use_quant_conv=False, use_post_quant_conv=False,
    )


def flux_dev() -> dict[str, nn.Module]:
    """FLUX.1-dev."""
    return {
        "text_encoder": CLIPTextModel(CLIPTextConfig(**CLIP_L)),
        "text_encoder_2": t5(),
        "transformer": FluxTransformer2DModel(guidance_embeds=True),
        "vae": vae(),
    }


def sd3(config: dict) -> dict[str, nn.Module]:
    """A Stable Diffusion 3 with the transformer of `config`."""
    transformer = SD3Transformer2DModel(
        sample_size=128, patch_size=2, in_channels=16, attention_head_dim=64, joint_attention_dim=4096,
        pooled_projection_dim=2048, out_channels=16, **config,
    )
    return {
        "text_encoder": CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_L)),
        "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_G)),
        "text_encoder_3": t5(),
        "transformer": transformer,
        "vae": vae(),
    }


def hunyuan(style_and_size: bool) -> dict[str, nn.Module]:
    """HunyuanDiT with BERT, mT5-XL's encoder and Stable Diffusion XL's autoencoder."""
    transformer = HunyuanDiT2DModel(
        num_attention_heads=16, attention_head_dim=88, in_channels=4, patch_size=2, activation_fn="gelu-approximate",
        sample_size=128, hidden_size=1408, num_layers=40, mlp_ratio=4.3637, learn_sigma=True, cross_attention_dim=1024,
        cross_attention_dim_t5=2048, pooled_projection_dim=1024, text_len=77, text_len_t5=256,
        use_style_cond_and_image_meta_size=style_and_size,
    )
    bert = BertConfig(
        vocab_size=47020, hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        max_position_embeddings=512,
    )
    mt5 = T5Config(
        d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_heads=32, feed_forward_proj="gated-gelu", vocab_size=250112,
        is_encoder_decoder=False,
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )
    return {
        "text_encoder": BertModel(bert),
        "text_encoder_2": T5EncoderModel(mt5),
        "transformer": transformer,
        "vae": vae,
    }


def lines(components: dict[str, nn.Module]) -> list[str]:
    """One line a tensor, by component, sorted."""
    out = []
    for component, module in components.items():
        shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
        # The T5 embedding is one tensor under two names; checkpoints hold the first.
        shapes.pop("encoder.embed_tokens.weight", None)
        for name in sorted(shapes):
            if not name.startswith(("encoder.", "quant_conv.")) or component != "vae":
                out.append(f"{component} {name} {shapes[name]}")
    return out


def make(root: Path) -> None:
    """Writes `<model>-tensors.txt.gz`."""
    with torch.device("meta"):
        lists = {"flux-dev": lines(flux_dev())} | {name: lines(sd3(config)) for name, config in SD3.items()}
        lists |= {name: lines(hunyuan(style_and_size)) for name, style_and_size in HUNYUAN.items()}
    for name, listed in lists.items():
        write_gzip(root / f"{name}-tensors.txt.gz", ("\n".join(listed) + "\n").encode())
