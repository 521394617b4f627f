"""What is compared: each case names the operation for the Rust server and makes the same work in PyTorch.

The torch side is what diffusers runs: `F.linear`, `scaled_dot_product_attention`, the eager chains of its blocks.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def linear(dtype, m, k, n):
    x, w, b = (torch.randn(s, dtype=dtype) for s in ((m, k), (n, k), (n,)))
    return lambda: F.linear(x, w, b)


def attention(dtype, tokens, heads, d):
    q, k, v = (torch.randn(1, heads, tokens, d, dtype=dtype) for _ in range(3))
    return lambda: F.scaled_dot_product_attention(q, k, v)


def layer_norm_modulate(dtype, rows, c):
    x, shift, scale = (torch.randn(s, dtype=dtype) for s in ((1, rows, c), (1, c), (1, c)))
    return lambda: F.layer_norm(x, (c,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


def rms_norm_rope(dtype, rows, heads, d):
    from diffusers.models.embeddings import apply_rotary_emb

    x = torch.randn(1, rows, heads, d, dtype=dtype)
    norm = torch.nn.RMSNorm(d, eps=1e-6).to(dtype)
    angles = torch.randn(rows, d // 2).repeat_interleave(2, dim=1)
    table = (angles.cos(), angles.sin())
    return lambda: apply_rotary_emb(norm(x), table, sequence_dim=1)


def gelu(dtype, rows, c):
    x = torch.randn(1, rows, c, dtype=dtype)
    return lambda: F.gelu(x, approximate="tanh")


def gate_residual(dtype, rows, c):
    x, y, gate = (torch.randn(s, dtype=dtype) for s in ((1, rows, c), (1, rows, c), (1, c)))
    return lambda: y + gate[:, None] * x


def conv2d(dtype, size, channels, layout, kernel=3, stride=1):
    conv = torch.nn.Conv2d(channels, channels, kernel, stride, padding=kernel // 2).to(dtype)
    x = torch.randn(1, channels, size, size, dtype=dtype)
    if layout == "channels_last":
        x, conv = (v.to(memory_format=torch.channels_last) for v in (x, conv))
    return lambda: conv(x)


def group_norm_silu(dtype, size, channels):
    norm = torch.nn.GroupNorm(32, channels).to(dtype)
    x = torch.randn(1, channels, size, size, dtype=dtype)
    return lambda: F.silu(norm(x))


def flux_blocks(dtype, image_tokens, text_tokens):
    """One double and one single block of FLUX.1-dev's size, with their embedders and final layer."""
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True).to(dtype).eval()
    side = int(image_tokens**0.5)
    grid = torch.stack(torch.meshgrid(torch.zeros(1), *[torch.arange(side).float()] * 2, indexing="ij"), -1)
    args = {
        "hidden_states": torch.randn(1, image_tokens, 64, dtype=dtype),
        "encoder_hidden_states": torch.randn(1, text_tokens, 4096, dtype=dtype),
        "pooled_projections": torch.randn(1, 768, dtype=dtype),
        "timestep": torch.tensor([0.7], dtype=dtype),
        "guidance": torch.tensor([3.5]),
        "img_ids": grid.reshape(-1, 3).float(),
        "txt_ids": torch.zeros(text_tokens, 3),
        "return_dict": False,
    }
    return lambda: model(**args)[0]


def sd3_blocks(dtype, image_tokens, text_tokens):
    """Two blocks of SD3-medium's size, of which the last only reads the text, with their embedders and final layer."""
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel(num_layers=2, num_attention_heads=24, caption_projection_dim=1536).to(dtype).eval()
    side = int(image_tokens**0.5)
    args = {
        "hidden_states": torch.randn(1, 16, 2 * side, 2 * side, dtype=dtype),
        "encoder_hidden_states": torch.randn(1, text_tokens, 4096, dtype=dtype),
        "pooled_projections": torch.randn(1, 2048, dtype=dtype),
        "timestep": torch.tensor([700.0], dtype=dtype),
        "return_dict": False,
    }
    return lambda: model(**args)[0]


def hunyuan_blocks(dtype, image_tokens, text_tokens):
    """Two blocks of HunyuanDiT's size, of which the second reads the first's output again."""
    from diffusers.models.embeddings import get_2d_rotary_pos_embed
    from diffusers.models.transformers.hunyuan_transformer_2d import HunyuanDiTBlock

    sizes = {"dim": 1408, "num_attention_heads": 16, "activation_fn": "gelu-approximate", "ff_inner_dim": 6144}
    first, second = (HunyuanDiTBlock(**sizes, skip=skip).to(dtype).eval() for skip in (False, True))
    side = int(image_tokens**0.5)
    rotary = get_2d_rotary_pos_embed(88, ((0, 0), (32, 32)), (side, side), output_type="pt")
    x, text, temb = (torch.randn(s, dtype=dtype) for s in ((1, image_tokens, 1408), (1, text_tokens, 1024), (1, 1408)))

    def run():
        made = first(x, encoder_hidden_states=text, temb=temb, image_rotary_emb=rotary)
        return second(made, encoder_hidden_states=text, temb=temb, image_rotary_emb=rotary, skip=made)

    return run


def demo(dtype, root):
    """Denoise and decode of the demo image: prompt embeddings are made once, outside."""
    from diffusers import FluxPipeline

    pipe = FluxPipeline.from_pretrained(root, torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    prompt_embeds, pooled, _ = pipe.encode_prompt("a red circle on a blue background", None, max_sequence_length=24)
    return lambda: pipe(
        prompt_embeds=prompt_embeds,
        pooled_prompt_embeds=pooled,
        height=256,
        width=256,
        num_inference_steps=20,
        generator=torch.Generator("cpu").manual_seed(42),
        output_type="np",
    )


PROMPT, NEGATIVE = "a red circle on a blue background", "green"


def sd3_embeddings(pipe, call):
    """The prompts of a call as the embeddings that they become."""
    names = ["prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
    made = pipe.encode_prompt(
        call["prompt"], None, None, negative_prompt=call["negative_prompt"], max_sequence_length=call["max_sequence_length"]
    )
    rest = {name: value for name, value in call.items() if name not in ("prompt", "negative_prompt")}
    return {**rest, **dict(zip(names, made))}


def hunyuan_embeddings(pipe, call):
    """The prompts of a call as the embeddings and masks that they become."""
    out = {name: value for name, value in call.items() if name not in ("prompt", "negative_prompt")}
    names = ["prompt_embeds", "negative_prompt_embeds", "prompt_attention_mask", "negative_prompt_attention_mask"]
    for index, suffix in enumerate(("", "_2")):
        made = pipe.encode_prompt(call["prompt"], negative_prompt=call["negative_prompt"], text_encoder_index=index)
        out |= {name + suffix: value for name, value in zip(names, made)}
    return out


EMBEDDINGS = {"StableDiffusion3Pipeline": sd3_embeddings, "HunyuanDiTPipeline": hunyuan_embeddings}
"""How each family's prompts are encoded once, outside what is timed."""


def pipeline(dtype, folder, call):
    """Denoise and decode of a whole call: prompt embeddings are made once, outside. Returns values in [0, 1], [1, h, w, 3]."""
    from diffusers import DiffusionPipeline

    index = json.loads((Path(folder) / "model_index.json").read_text())
    # A component that the index says is absent (SD3's T5) must be handed over as absent.
    absent = {name: None for name, of in index.items() if of == [None, None]}
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=dtype, **absent)
    pipe.set_progress_bar_config(disable=True)
    arguments = EMBEDDINGS[type(pipe).__name__](pipe, call)
    return lambda: pipe(**arguments, generator=torch.Generator("cpu").manual_seed(42), output_type="np").images


def pipelines(root):
    """(label, folder, call) of the pipelines that are drawn whole: those of the goldens, of random weights."""
    out = []
    sd3, hunyuan = {"max_sequence_length": 16}, {"use_resolution_binning": False}
    of = [("sd3-medium", 128, sd3), ("sd35-medium", 192, sd3), ("sd35-large", 128, sd3)]
    of += [("hunyuan-v1.1", 128, hunyuan), ("hunyuan-v1.2", 192, hunyuan)]
    for name, side, own in of:
        call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "height": side, "width": side, "num_inference_steps": 20}
        call |= {"guidance_scale": 4.5, **own}
        out.append((f"{name}, tiny, {side}×{side}, 20 steps", str(root / name), call))
    return out


GEMMS = [(m, k, n) for m in (256, 1024) for k, n in ((256, 1024), (3072, 3072), (3072, 12288))]


def suites(demo_root):
    """Suite name -> list of (label, Rust request, torch maker)."""
    out = {name: [] for name in ("linear", "attention", "rows", "conv", "blocks", "sd3", "hunyuan", "demo")}
    for name, dtype in DTYPES.items():
        for m, k, n in GEMMS:
            request = {"op": "linear", "dtype": name, "m": m, "k": k, "n": n}
            out["linear"].append((f"M{m} K{k} N{n}", request, lambda a=(dtype, m, k, n): linear(*a)))
        for d in (64, 88, 128):
            for tokens in (1024, 2048, 4096):
                request = {"op": "attention", "dtype": name, "tokens": tokens, "heads": 8, "d": d}
                out["attention"].append(
                    (f"8 heads, {tokens} tokens, d {d}", request, lambda a=(dtype, tokens, 8, d): attention(*a))
                )
        for rows in (1024, 4608):
            rowwise = [
                ("LayerNorm + modulate", "layer_norm_modulate", layer_norm_modulate, (rows, 3072)),
                ("RMSNorm + RoPE", "rms_norm_rope", rms_norm_rope, (rows, 24, 128)),
                ("GELU (tanh)", "gelu", gelu, (rows, 3072)),
                ("gate + residual", "gate_residual", gate_residual, (rows, 3072)),
            ]
            for label, op, make, sizes in rowwise:
                request = {"op": op, "dtype": name, "rows": rows, "c": 3072, "heads": 24, "d": 128}
                out["rows"].append((f"{label}, {rows} rows", request, lambda a=(dtype, *sizes), f=make: f(*a)))
        for channels, size in ((512, 64), (512, 128), (256, 256), (128, 512)):
            request = {"op": "conv2d", "dtype": name, "size": size, "channels": channels}
            for layout in ("NCHW", "channels_last"):
                out["conv"].append(
                    (
                        f"3×3, {channels} channels, {size}², torch {layout}",
                        request,
                        lambda a=(dtype, size, channels, layout): conv2d(*a),
                    )
                )
            request = {"op": "group_norm_silu", "dtype": name, "size": size, "channels": channels}
            out["conv"].append(
                (
                    f"GroupNorm + SiLU, {channels} channels, {size}²",
                    request,
                    lambda a=(dtype, size, channels): group_norm_silu(*a),
                )
            )
        for kernel, stride, channels, size in ((1, 1, 512, 128), (3, 2, 256, 256)):
            request = {"op": "conv2d", "dtype": name, "size": size, "channels": channels, "kernel": kernel, "stride": stride}
            label = f"{kernel}×{kernel}, stride {stride}, {channels} channels, {size}², torch channels_last"
            args = (dtype, size, channels, "channels_last", kernel, stride)
            out["conv"].append((label, request, lambda a=args: conv2d(*a)))
        request = {"op": "flux_blocks", "dtype": name, "image_tokens": 1024, "text_tokens": 256}
        out["blocks"].append(
            ("Flux double + single block, 1024 + 256 tokens", request, lambda a=(dtype, 1024, 256): flux_blocks(*a))
        )
        request = {"op": "sd3_blocks", "dtype": name, "image_tokens": 1024, "text_tokens": 333}
        out["sd3"].append(
            ("SD3-medium, two blocks, 1024 + 333 tokens", request, lambda a=(dtype, 1024, 333): sd3_blocks(*a))
        )
        request = {"op": "hunyuan_blocks", "dtype": name, "image_tokens": 1024}
        out["hunyuan"].append(
            ("HunyuanDiT, two blocks, 1024 + 333 tokens", request, lambda a=(dtype, 1024, 333): hunyuan_blocks(*a))
        )
        request = {"op": "demo", "dtype": name}
        out["demo"].append(("demo image, denoise + decode", request, lambda a=(dtype, demo_root): demo(*a)))
    return out
