"""Builds the tiny Flux pipelines and writes them as diffusers and the hub lay them out."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from . import tokenizers_tiny as tiny
from .case_list import LONG, NEGATIVE, OTHER, PROMPT, UNICODE
from .charsmap import cut_charsmap
from .prompts import prompts
from .weights import clip_rule, fill, t5_rule, transformer_rule, vae_rule


@dataclass(frozen=True)
class Recipe:
    """One tiny pipeline: its sizes, and how its files differ from the others'."""

    name: str
    seed: int
    dtype: torch.dtype
    heads: int
    head_dim: int
    axes: tuple[int, int, int]
    double_blocks: int
    single_blocks: int
    clip_width: int
    clip_heads: int
    t5_width: int
    t5_heads: int
    t5_head_dim: int
    vae_channels: tuple[int, ...]
    vae_layers: int
    vae_groups: int
    guidance: bool
    scheduler: dict
    clip_vocab_merges: bool
    """CLIP as `vocab.json` + `merges.txt`, its weights with the prefix `text_model.`, `eos_token_id` 2."""
    t5_spiece: bool
    shard: str | None = None
    variant: str | None = None


DEV = Recipe(
    name="flux-dev",
    seed=1,
    dtype=torch.bfloat16,
    heads=4,
    head_dim=16,
    axes=(4, 6, 6),
    double_blocks=2,
    single_blocks=3,
    clip_width=32,
    clip_heads=2,
    t5_width=48,
    t5_heads=4,
    t5_head_dim=16,
    vae_channels=(8, 8, 16, 16),
    vae_layers=1,
    vae_groups=2,
    guidance=True,
    scheduler=dict(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256,
        max_image_seq_len=4096,
    ),
    clip_vocab_merges=True,
    t5_spiece=True,
    shard="500KB",
)
SCHNELL = Recipe(
    name="flux-schnell",
    seed=12,
    dtype=torch.bfloat16,
    heads=2,
    head_dim=24,
    axes=(4, 8, 12),
    double_blocks=2,
    single_blocks=3,
    clip_width=24,
    clip_heads=4,
    t5_width=24,
    t5_heads=3,
    t5_head_dim=16,
    vae_channels=(8, 8, 12, 16),
    vae_layers=2,
    vae_groups=4,
    guidance=False,
    scheduler=dict(
        shift=1.0, use_dynamic_shifting=False, base_shift=0.5, max_shift=1.15, base_image_seq_len=256,
        max_image_seq_len=4096,
    ),
    clip_vocab_merges=False,
    t5_spiece=False,
)
VARIANT = Recipe(
    name="flux-variant",
    seed=3,
    dtype=torch.float16,
    heads=3,
    head_dim=12,
    axes=(2, 4, 6),
    double_blocks=1,
    single_blocks=1,
    clip_width=16,
    clip_heads=2,
    t5_width=16,
    t5_heads=2,
    t5_head_dim=8,
    vae_channels=(8, 8, 8, 8),
    vae_layers=1,
    vae_groups=4,
    guidance=True,
    scheduler=dict(shift=3.0, use_dynamic_shifting=True),
    clip_vocab_merges=True,
    t5_spiece=False,
    shard="80KB",
    variant="fp16",
)
RECIPES = (DEV, SCHNELL, VARIANT)


def components(recipe: Recipe, clip_tokenizer: CLIPTokenizer, t5_tokenizer: T5TokenizerFast) -> dict:
    """Every component of the pipeline, in the dtype it is stored in."""
    legacy_eos = recipe.clip_vocab_merges
    clip_config = CLIPTextConfig(
        vocab_size=len(clip_tokenizer),
        hidden_size=recipe.clip_width,
        intermediate_size=2 * recipe.clip_width,
        projection_dim=recipe.clip_width,
        num_hidden_layers=2,
        num_attention_heads=recipe.clip_heads,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=0 if legacy_eos else clip_tokenizer.bos_token_id,
        eos_token_id=2 if legacy_eos else clip_tokenizer.eos_token_id,
        pad_token_id=1 if legacy_eos else clip_tokenizer.pad_token_id,
    )
    t5_config = T5Config(
        vocab_size=528,
        d_model=recipe.t5_width,
        d_kv=recipe.t5_head_dim,
        d_ff=2 * recipe.t5_width,
        num_layers=2,
        num_heads=recipe.t5_heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        use_cache=False,
    )
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=recipe.double_blocks,
        num_single_layers=recipe.single_blocks,
        attention_head_dim=recipe.head_dim,
        num_attention_heads=recipe.heads,
        joint_attention_dim=recipe.t5_width,
        pooled_projection_dim=recipe.clip_width,
        guidance_embeds=recipe.guidance,
        axes_dims_rope=recipe.axes,
    )
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=recipe.vae_channels,
        layers_per_block=recipe.vae_layers,
        latent_channels=16,
        norm_num_groups=recipe.vae_groups,
        sample_size=64,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=True,
    )
    models = {
        "text_encoder": fill(CLIPTextModel(clip_config), recipe.seed, clip_rule),
        "text_encoder_2": fill(T5EncoderModel(t5_config), recipe.seed, t5_rule),
        "transformer": fill(transformer, recipe.seed, transformer_rule),
        "vae": fill(vae, recipe.seed, vae_rule),
    }
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(**recipe.scheduler),
        "tokenizer": clip_tokenizer,
        "tokenizer_2": t5_tokenizer,
        **{name: model.to(recipe.dtype) for name, model in models.items()},
    }


def save_tokenizers(recipe: Recipe, folder: Path, scratch: Path) -> None:
    """Both tokenizers, in the file form of the recipe."""
    if recipe.clip_vocab_merges:
        tiny.save_clip_vocab_merges(folder / "tokenizer")
    else:
        tiny.save_clip_tokenizer_json(folder / "tokenizer")
    if recipe.t5_spiece:
        tiny.save_t5_spiece(folder / "tokenizer_2")
    else:
        tiny.save_t5_spiece(scratch / "spiece")
        tiny.save_t5_tokenizer_json(folder / "tokenizer_2", scratch / "spiece")
        if not recipe.variant:
            cut_charsmap(folder / "tokenizer_2" / "tokenizer.json", [*prompts(), LONG, NEGATIVE, OTHER, PROMPT, *UNICODE])
    if recipe.variant:
        tiny.age_t5_tokenizer_json(folder / "tokenizer_2" / "tokenizer.json")


def rewrite(path: Path, change) -> None:
    """Replaces the tensors of a safetensors file by `change(tensors)`; its metadata stay."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    save_file(change(tensors), path, metadata=metadata)


def prefix_clip(folder: Path) -> None:
    """Renames CLIP's tensors to the hub's names: `text_model.` before each, and the unused position ids."""
    paths = sorted(folder.glob("*.safetensors"))
    for path in paths:
        rewrite(path, lambda tensors: {f"text_model.{key}": value for key, value in tensors.items()})
    for index in folder.glob("*.index.*json"):
        value = json.loads(index.read_text(encoding="utf-8"))
        value["weight_map"] = {f"text_model.{key}": file for key, file in value["weight_map"].items()}
        tiny.write_json(index, value)
    if len(paths) == 1:
        position_ids = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
        rewrite(paths[0], lambda tensors: {**tensors, **position_ids})


def double_t5_embedding(path: Path) -> None:
    """Stores T5's embedding under both of its names, as some hub repositories do."""
    name = "encoder.embed_tokens.weight"
    rewrite(path, lambda tensors: {**tensors, name: tensors["shared.weight"].clone()})


def drop_local_paths(folder: Path) -> None:
    """Removes what ties the JSON files to this machine."""
    for path in folder.rglob("*config.json"):
        value = json.loads(path.read_text(encoding="utf-8"))
        if value.pop("_name_or_path", None) is not None:
            tiny.write_json(path, value)


def build(recipe: Recipe, root: Path, scratch: Path) -> Path:
    """Writes the pipeline of `recipe` under `root` and returns its folder."""
    folder = root / recipe.name
    if folder.exists():
        shutil.rmtree(folder)
    save_tokenizers(recipe, folder, scratch / recipe.name)
    clip_tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    t5_tokenizer = T5TokenizerFast.from_pretrained(folder / "tokenizer_2")
    pipe = FluxPipeline(**components(recipe, clip_tokenizer, t5_tokenizer))
    whole = scratch / recipe.name / "whole"
    pipe.save_pretrained(whole, max_shard_size=recipe.shard or "10GB", variant=recipe.variant)
    for part in ("model_index.json", "scheduler", "text_encoder", "text_encoder_2", "transformer", "vae"):
        source = whole / part
        if source.is_dir():
            shutil.copytree(source, folder / part)
        else:
            shutil.copy(source, folder / part)
    if recipe.clip_vocab_merges:
        prefix_clip(folder / "text_encoder")
    if recipe.variant:
        for path in (folder / "text_encoder_2").glob("*.safetensors"):
            double_t5_embedding(path)
    drop_local_paths(folder)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
    return folder
