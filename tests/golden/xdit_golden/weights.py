"""Random weights that make every part of a model matter.

Default initialisations hide mistakes: norms at one, biases at zero and near-uniform attention let a
wrong permutation or a missing bias pass. Here norms vary around one, biases do not vanish, attention is
sharp, and gates let every branch through. Each tensor has its own generator, seeded from its name, so
adding a tensor changes no other.
"""

import zlib

import torch
from torch import nn


def named_randn(name: str, shape, seed: int) -> torch.Tensor:
    """Standard normal values that depend on the name, the shape and the seed alone."""
    generator = torch.Generator("cpu").manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32)


def fill(model: nn.Module, seed: int, rule) -> nn.Module:
    """Sets every parameter to what `rule(name, shape, noise)` returns; refuses a name no rule covers."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = named_randn(name, parameter.shape, seed)
            parameter.copy_(rule(name, tuple(parameter.shape), noise))
    return model.eval()


def around_one(noise: torch.Tensor, spread: float = 0.2) -> torch.Tensor:
    """Norm weights: around one, never near zero."""
    return (1.0 + spread * noise).clamp(0.4, 1.6)


def fan_in(shape: tuple[int, ...]) -> int:
    """How many products make one output of a linear layer or a convolution."""
    count = 1
    for size in shape[1:]:
        count *= size
    return count


def dense(shape: tuple[int, ...], noise: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
    """Weights that keep the variance of their input times `gain` squared."""
    return gain * noise / fan_in(shape) ** 0.5


def transformer_rule(name: str, shape: tuple[int, ...], noise: torch.Tensor) -> torch.Tensor:
    """FluxTransformer2DModel."""
    leaf = name.rsplit(".", 1)[-1]
    if ".norm_q." in name or ".norm_k." in name or ".norm_added_q." in name or ".norm_added_k." in name:
        # q·k/√d of normalised rows has deviation (weight of q)·(weight of k): 2.9 is far from uniform.
        return 1.7 * around_one(noise)
    if leaf == "bias":
        return (0.3 if "norm" in name else 0.1) * noise
    if "norm" in name:
        return dense(shape, noise, 0.8)
    if name.startswith("proj_out"):
        return dense(shape, noise, 0.9)
    if "time_text_embed" in name:
        return dense(shape, noise, 1.4)
    return dense(shape, noise, 1.0)


def sd3_rule(name: str, shape: tuple[int, ...], noise: torch.Tensor) -> torch.Tensor:
    """SD3Transformer2DModel: sharper than Flux, whose rotary positions spread the keys; with or without norms."""
    if ".norm_q." in name or ".norm_k." in name or ".norm_added_q." in name or ".norm_added_k." in name:
        return 2.0 * around_one(noise)
    if any(part in name for part in (".to_q.", ".to_k.", ".add_q_proj.", ".add_k_proj.")) and name.endswith("weight"):
        return dense(shape, noise, 1.6)
    return transformer_rule(name, shape, noise)


def hunyuan_rule(name: str, shape: tuple[int, ...], noise: torch.Tensor) -> torch.Tensor:
    """HunyuanDiT2DModel: layer norms of queries and keys have biases; the learned text and the embeddings vary."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "bias":
        return (0.3 if "norm" in name else 0.1) * noise
    if ".norm_q." in name or ".norm_k." in name:
        return 1.75 * around_one(noise)
    if len(shape) == 1:
        return around_one(noise)
    if leaf in ("text_embedding_padding", "positional_embedding") or "style_embedder" in name:
        return 1.0 * noise
    if "pooler" in name or "extra_embedder" in name:
        return dense(shape, noise, 1.4)
    return transformer_rule(name, shape, noise)


def bert_rule(name: str, shape: tuple[int, ...], noise: torch.Tensor) -> torch.Tensor:
    """BertModel of very few channels."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "bias":
        return (0.3 if "LayerNorm" in name else 0.1) * noise
    if "LayerNorm" in name:
        return around_one(noise)
    if "embeddings" in name:
        return 0.7 * noise
    if ".query." in name or ".key." in name:
        return dense(shape, noise, 1.7)
    return dense(shape, noise, 1.0)


def clip_rule(name: str, shape: tuple[int, ...], noise: torch.Tensor) -> torch.Tensor:
    """CLIPTextModel."""
    leaf = name.rsplit(".", 1)[-1]
    if "norm" in name and leaf == "weight":
        return around_one(noise)
    if leaf == "bias":
        return 0.1 * noise
    if "embedding" in name:
        return 0.5 * noise
    if "q_proj" in name or "k_proj" in name:
        return dense(shape, noise, 1.4)
    return dense(shape, noise, 1.0)


def t5_rule(name: str, shape: tuple[int, ...], noise: torch.Tensor) -> torch.Tensor:
    """T5EncoderModel: its attention has no 1/√d, so queries and keys are smaller."""
    if "layer_norm" in name:
        return around_one(noise)
    if "relative_attention_bias" in name:
        return 1.0 * noise
    if name.startswith("shared") or "embed_tokens" in name:
        return 1.0 * noise
    if "SelfAttention.q" in name or "SelfAttention.k" in name:
        return dense(shape, noise, 0.7)
    return dense(shape, noise, 1.0)


def vae_rule(name: str, shape: tuple[int, ...], noise: torch.Tensor) -> torch.Tensor:
    """AutoencoderKL: the last convolution keeps pixels well inside [-1, 1]."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "bias":
        return 0.1 * noise
    if "norm" in name:
        return around_one(noise)
    if name == "decoder.conv_out.weight":
        return dense(shape, noise, 0.6)
    if "to_q" in name or "to_k" in name:
        return dense(shape, noise, 1.4)
    return dense(shape, noise, 1.0)


def sharp_clip_rule(name: str, shape: tuple[int, ...], noise: torch.Tensor) -> torch.Tensor:
    """A CLIPTextModelWithProjection of very few channels, which attends less sharply by itself."""
    return (1.4 if "q_proj" in name or "k_proj" in name else 1.0) * clip_rule(name, shape, noise)


def sharp_t5_rule(name: str, shape: tuple[int, ...], noise: torch.Tensor) -> torch.Tensor:
    """A T5EncoderModel of very few channels."""
    return (1.3 if "SelfAttention.q" in name or "SelfAttention.k" in name else 1.0) * t5_rule(name, shape, noise)
