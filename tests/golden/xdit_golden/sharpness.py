"""Asserts that the tiny models can fail a test: sharp attention, prompts that matter, small rounding errors."""

import math
from types import SimpleNamespace

import torch
from diffusers import FluxPipeline
from diffusers.models import attention_processor
from diffusers.models.transformers import transformer_flux

PROMPTS = ("a red circle on a blue background", "a large green star at the top on a white background")
MAX_ENTROPY, MAX_MEAN_ENTROPY = 0.85, 0.75  # of ln(keys), which uniform attention has: any layer, mean of layers
MIN_PROMPT_CHANGE = 0.1  # relative L2 between the latents of two prompts
# Half of what the Rust tests allow for a block, a third for the latents: f32 may not use up the tolerance. Attention
# alone, before the residual, is noisier. (torch's path without SIMD comes to 1.3e-6.)
MAX_ROUNDING, MAX_ATTENTION_ROUNDING = 1.2e-6, 1.5e-6
MAX_LATENT_ROUNDING = 3e-6


def entropy(weights: torch.Tensor) -> float:
    """Mean entropy of attention rows relative to uniform ones."""
    rows = -(weights * weights.clamp_min(1e-20).log()).sum(-1)
    return float(rows.mean() / math.log(weights.shape[-1]))


def transformer_entropies(pipe, call: dict) -> list[float]:
    """Entropy of each attention of the transformer in one run."""
    found = []
    if isinstance(pipe, FluxPipeline):
        module, name, axes = transformer_flux, "dispatch_attention_fn", "blhd,bmhd->bhlm"
        original = transformer_flux.dispatch_attention_fn
    else:
        module, name, axes = attention_processor, "F", "bhld,bhmd->bhlm"
        original = attention_processor.F.scaled_dot_product_attention

    def measured(query, key, value, **kwargs):
        scores = torch.einsum(axes, query, key) / query.shape[-1] ** 0.5
        found.append(entropy(scores.softmax(-1)))
        return original(query, key, value, **kwargs)

    before = getattr(module, name)
    setattr(module, name, measured if name != "F" else SimpleNamespace(scaled_dot_product_attention=measured))
    try:
        pipe(**call, generator=torch.Generator("cpu").manual_seed(0), output_type="latent")
    finally:
        setattr(module, name, before)
    assert found, "no attention was seen"
    return found


def text_entropies(pipe, prompt: str) -> list[float]:
    """Entropy of each attention of the text encoders; causal rows of CLIP count by their own length."""
    found = []
    pairs = [(pipe.text_encoder, pipe.tokenizer), (pipe.text_encoder_2, pipe.tokenizer_2)]
    if getattr(pipe, "text_encoder_3", None) is not None:
        pairs.append((pipe.text_encoder_3, pipe.tokenizer_3))
    for encoder, tokenizer in pairs:
        before = encoder.config._attn_implementation
        encoder.set_attn_implementation("eager")
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            weights = encoder(ids, output_attentions=True).attentions
        encoder.set_attn_implementation(before)
        assert weights, "the encoder returned no attention"
        found += [entropy(layer[..., -1:, :]) for layer in weights]
    return found


def assert_sharp(pipe, case) -> None:
    """Attention is far from uniform everywhere, and two prompts give visibly different latents."""
    call = {**case.call, "prompt": PROMPTS[0]}
    dit, text = transformer_entropies(pipe, call), text_entropies(pipe, PROMPTS[1])
    for layers in (dit, text):
        assert max(layers) < MAX_ENTROPY and sum(layers) / len(layers) < MAX_MEAN_ENTROPY, layers
    latents = [
        pipe(
            **{**call, "prompt": prompt}, generator=torch.Generator("cpu").manual_seed(0), output_type="latent"
        ).images
        for prompt in PROMPTS
    ]
    change = float((latents[0] - latents[1]).norm() / latents[0].norm())
    assert change > MIN_PROMPT_CHANGE, change
    print(f"  entropy: transformer {max(dit):.2f}, text {max(text):.2f}; another prompt changes {change:.2f}")


def relative_to_double(single: dict[str, torch.Tensor], double: dict[str, torch.Tensor]) -> dict[str, float]:
    """Relative L2 distance of each f32 tensor to its f64 twin."""
    worst = {}
    for name, value in single.items():
        if value.is_floating_point() and value.norm() > 0:
            other = double[name].double()
            worst[name] = float((value.double() - other).norm() / other.norm())
    return worst


def assert_conditioned(single: dict[str, torch.Tensor], double: dict[str, torch.Tensor]) -> None:
    """f32 differs from f64 by far less than the tests allow."""
    worst = relative_to_double(single, double)
    for name, distance in worst.items():
        limit = MAX_ROUNDING
        if name.startswith(("step.", "vae.")) or name == "image":
            limit = MAX_LATENT_ROUNDING
        elif any(part in name for part in (".attn.", ".attn1.", ".attn2.")):
            limit = MAX_ATTENTION_ROUNDING
        assert distance <= limit, f"{name}: f32 differs from f64 by {distance:.2g}"
    name, distance = max(worst.items(), key=lambda item: item[1])
    print(f"  f32 to f64: at most {distance:.1e}, in {name}")
