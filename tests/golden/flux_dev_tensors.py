"""Lists every tensor of the real FLUX.1-dev with its shape: `python tests/golden/flux_dev_tensors.py > tests/golden/flux-dev-tensors.txt`.

The classes of diffusers and transformers are built on torch's meta device with the configurations of
black-forest-labs/FLUX.1-dev, so no weights are needed. `vae` lists the decoder only: text to image needs no encoder.
"""

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel


def main() -> None:
    """Prints `component name [shape]` lines, sorted."""
    with torch.device("meta"):
        clip = CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12, projection_dim=768
        )
        t5 = T5Config(
            d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu",
            vocab_size=32128, is_encoder_decoder=False,
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16, norm_num_groups=32,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            use_quant_conv=False, use_post_quant_conv=False,
        )
        components = {
            "text_encoder": CLIPTextModel(clip),
            "text_encoder_2": T5EncoderModel(t5),
            "transformer": FluxTransformer2DModel(guidance_embeds=True),
            "vae": vae,
        }
    for component, module in components.items():
        shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
        # The T5 embedding is one tensor under two names; checkpoints hold the first.
        shapes.pop("encoder.embed_tokens.weight", None)
        for name in sorted(shapes):
            if not name.startswith("encoder.") or component != "vae":
                print(component, name, shapes[name])


if __name__ == "__main__":
    main()
