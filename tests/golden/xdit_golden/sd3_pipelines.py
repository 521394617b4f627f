"""Builds the tiny Stable Diffusion 3 and 3.5 pipelines."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import (
    CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast,
)

from . import tokenizers_tiny as tiny
from .pipelines import drop_local_paths
from .weights import fill, named_randn, sd3_rule, sharp_clip_rule, sharp_t5_rule, vae_rule

T5_LAYERS, CLIP_LAYERS = 2, 3


@dataclass(frozen=True)
class Recipe:
    """One tiny pipeline: its sizes, and how its files differ from the others'."""

    name: str
    seed: int
    dtype: torch.dtype
    heads: int
    head_dim: int
    blocks: int
    sample_size: int
    pos_embed_max_size: int
    clip_widths: tuple[int, int]
    clip_heads: tuple[int, int]
    joint_width: int
    """What the text tokens have: T5's width, and at least that of both CLIPs side by side."""
    vae_channels: tuple[int, ...]
    vae_groups: int
    clip_json: bool
    """CLIP as `tokenizer.json` with true end ids; else `vocab.json` + `merges.txt` and `eos_token_id` 2."""
    t5_heads: int = 0
    """0: there is no third text encoder."""
    t5_head_dim: int = 8
    qk_norm: str | None = None
    dual_attention_layers: tuple[int, ...] = ()


MEDIUM = Recipe(
    name="sd3-medium",
    seed=21,
    dtype=torch.float16,
    heads=3,
    head_dim=8,
    blocks=4,
    sample_size=8,
    pos_embed_max_size=9,
    clip_widths=(8, 12),
    clip_heads=(2, 3),
    joint_width=24,
    vae_channels=(4, 4, 8, 8),
    vae_groups=2,
    clip_json=False,
)
MEDIUM_35 = Recipe(
    name="sd35-medium",
    seed=22,
    dtype=torch.bfloat16,
    heads=4,
    head_dim=6,
    blocks=5,
    sample_size=8,
    pos_embed_max_size=12,
    clip_widths=(8, 12),
    clip_heads=(2, 2),
    joint_width=24,
    vae_channels=(4, 8, 8, 8),
    vae_groups=4,
    clip_json=True,
    t5_heads=3,
    qk_norm="rms_norm",
    dual_attention_layers=(0, 1, 2),
)
LARGE_35 = Recipe(
    name="sd35-large",
    seed=23,
    dtype=torch.bfloat16,
    heads=38,
    head_dim=2,
    blocks=2,
    sample_size=8,
    pos_embed_max_size=8,
    clip_widths=(8, 12),
    clip_heads=(2, 3),
    joint_width=20,
    vae_channels=(4, 4, 4, 8),
    vae_groups=2,
    clip_json=False,
    t5_heads=2,
    qk_norm="rms_norm",
)
RECIPES = (MEDIUM, MEDIUM_35, LARGE_35)


def clip(recipe: Recipe, index: int, tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """CLIP-L (0) or CLIP-G (1)."""
    width = recipe.clip_widths[index]
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=CLIP_LAYERS,
        num_attention_heads=recipe.clip_heads[index],
        max_position_embeddings=77,
        hidden_act=("quick_gelu", "gelu")[index],
        bos_token_id=tokenizer.bos_token_id if recipe.clip_json else 0,
        eos_token_id=tokenizer.eos_token_id if recipe.clip_json else 2,
        pad_token_id=tokenizer.pad_token_id if recipe.clip_json else 1,
    )
    return fill(CLIPTextModelWithProjection(config), recipe.seed + 100 * index, sharp_clip_rule)


def t5(recipe: Recipe) -> T5EncoderModel | None:
    """The third text encoder, if there is one."""
    if not recipe.t5_heads:
        return None
    config = T5Config(
        vocab_size=528,
        d_model=recipe.joint_width,
        d_kv=recipe.t5_head_dim,
        d_ff=2 * recipe.joint_width,
        num_layers=T5_LAYERS,
        num_heads=recipe.t5_heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        use_cache=False,
    )
    return fill(T5EncoderModel(config), recipe.seed, sharp_t5_rule)


def transformer(recipe: Recipe) -> SD3Transformer2DModel:
    """The MMDiT; its stored position table is a little off the sines and cosines, so it cannot be computed anew."""
    width = recipe.heads * recipe.head_dim
    model = SD3Transformer2DModel(
        sample_size=recipe.sample_size,
        patch_size=2,
        in_channels=16,
        num_layers=recipe.blocks,
        attention_head_dim=recipe.head_dim,
        num_attention_heads=recipe.heads,
        joint_attention_dim=recipe.joint_width,
        caption_projection_dim=width,
        pooled_projection_dim=sum(recipe.clip_widths),
        out_channels=16,
        pos_embed_max_size=recipe.pos_embed_max_size,
        dual_attention_layers=recipe.dual_attention_layers,
        qk_norm=recipe.qk_norm,
    )
    table = model.pos_embed.pos_embed
    table.add_(0.1 * named_randn("pos_embed.pos_embed", table.shape, recipe.seed))
    return fill(model, recipe.seed, sd3_rule)


def vae(recipe: Recipe) -> AutoencoderKL:
    """SD3's autoencoder: Flux's with another scale and shift."""
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=recipe.vae_channels,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=recipe.vae_groups,
        sample_size=64,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=True,
    )
    return fill(model, recipe.seed, vae_rule)


def save_tokenizers(recipe: Recipe, folder: Path, scratch: Path) -> None:
    """The two CLIP tokenizers, which differ in their padding, and T5's."""
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        if recipe.clip_json:
            tiny.save_clip_tokenizer_json(folder / name, pad)
            tiny.compact_json(folder / name / "tokenizer.json")
        else:
            tiny.save_clip_vocab_merges(folder / name, pad)
    if recipe.t5_heads:
        tiny.save_t5_spiece(scratch / "spiece")
        tiny.save_t5_tokenizer_json(folder / "tokenizer_3", scratch / "spiece")
        tiny.age_t5_tokenizer_json(folder / "tokenizer_3" / "tokenizer.json")
        tiny.compact_json(folder / "tokenizer_3" / "tokenizer.json")


def build(recipe: Recipe, root: Path, scratch: Path) -> Path:
    """Writes the pipeline of `recipe` under `root` and returns its folder."""
    folder = root / recipe.name
    if folder.exists():
        shutil.rmtree(folder)
    save_tokenizers(recipe, folder, scratch / recipe.name)
    tokenizers = [CLIPTokenizer.from_pretrained(folder / name) for name in ("tokenizer", "tokenizer_2")]
    t5_tokenizer = T5TokenizerFast.from_pretrained(folder / "tokenizer_3") if recipe.t5_heads else None
    models = {
        "text_encoder": clip(recipe, 0, tokenizers[0]),
        "text_encoder_2": clip(recipe, 1, tokenizers[1]),
        "text_encoder_3": t5(recipe),
        "transformer": transformer(recipe),
        "vae": vae(recipe),
    }
    pipe = StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        tokenizer_3=t5_tokenizer,
        **{name: model.to(recipe.dtype) if model else None for name, model in models.items()},
    )
    whole = scratch / recipe.name / "whole"
    pipe.save_pretrained(whole)
    for source in sorted(whole.iterdir()):
        if source.is_dir() and not source.name.startswith("tokenizer"):
            shutil.copytree(source, folder / source.name)
    shutil.copy(whole / "model_index.json", folder)
    drop_local_paths(folder)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
    return folder
