"""Builds the tiny HunyuanDiT pipelines, versions 1.1 and 1.2."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline
from transformers import BertConfig, BertModel, BertTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from . import tokenizers_chinese as chinese
from . import tokenizers_tiny as tiny
from .pipelines import drop_local_paths
from .weights import bert_rule, fill, hunyuan_rule, sharp_t5_rule, vae_rule

LAYERS = 2
"""Of each text encoder."""


@dataclass(frozen=True)
class Recipe:
    """One tiny pipeline: its sizes, and how its files differ from the other's."""

    name: str
    seed: int
    dtype: torch.dtype
    heads: int
    head_dim: int
    blocks: int
    mlp_ratio: float
    bert_width: int
    bert_heads: int
    t5_width: int
    """A multiple of 8, the heads of the pooler."""
    t5_heads: int
    t5_head_dim: int
    pooled: int
    vae_channels: tuple[int, ...]
    vae_groups: int
    style_and_size: bool
    """Version 1.1: embeddings of the style and of the image's size."""
    beta_end: float
    tokenizer_json: bool
    """`tokenizer.json` alone for both tokenizers; else `vocab.txt` and `spiece.model`."""


V1_1 = Recipe(
    name="hunyuan-v1.1",
    seed=31,
    dtype=torch.float16,
    heads=3,
    head_dim=4,
    blocks=4,
    mlp_ratio=2.1,
    bert_width=16,
    bert_heads=2,
    t5_width=16,
    t5_heads=2,
    t5_head_dim=8,
    pooled=8,
    vae_channels=(4, 4, 4, 4),
    vae_groups=2,
    style_and_size=True,
    beta_end=0.03,
    tokenizer_json=False,
)
V1_2 = Recipe(
    name="hunyuan-v1.2",
    seed=38,
    dtype=torch.bfloat16,
    heads=4,
    head_dim=8,
    blocks=8,
    mlp_ratio=1.59,
    bert_width=24,
    bert_heads=3,
    t5_width=24,
    t5_heads=3,
    t5_head_dim=6,
    pooled=12,
    vae_channels=(4, 4, 8, 8),
    vae_groups=4,
    style_and_size=False,
    beta_end=0.018,
    tokenizer_json=True,
)
RECIPES = (V1_1, V1_2)


def scheduler(beta_end: float) -> DDPMScheduler:
    """The scheduler of the hub's repositories."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=beta_end,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        steps_offset=1,
        clip_sample=False,
    )


def bert(recipe: Recipe, tokenizer: BertTokenizer) -> BertModel:
    """The first text encoder; its pooler is stored and not used."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.bert_width,
        intermediate_size=2 * recipe.bert_width,
        num_hidden_layers=LAYERS,
        num_attention_heads=recipe.bert_heads,
        max_position_embeddings=80,
        pad_token_id=tokenizer.pad_token_id,
    )
    return fill(BertModel(config), recipe.seed, bert_rule)


def mt5(recipe: Recipe, tokenizer: T5Tokenizer) -> T5EncoderModel:
    """The second text encoder; like mT5's its embedding has more rows than the tokenizer has pieces."""
    config = T5Config(
        vocab_size=len(tokenizer) + 4,
        d_model=recipe.t5_width,
        d_kv=recipe.t5_head_dim,
        d_ff=2 * recipe.t5_width,
        num_layers=LAYERS,
        num_heads=recipe.t5_heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        use_cache=False,
    )
    return fill(T5EncoderModel(config), recipe.seed, sharp_t5_rule)


def transformer(recipe: Recipe) -> HunyuanDiT2DModel:
    """The transformer: the blocks of its second half, but the first of them, join those of the first half."""
    model = HunyuanDiT2DModel(
        num_attention_heads=recipe.heads,
        attention_head_dim=recipe.head_dim,
        in_channels=4,
        patch_size=2,
        activation_fn="gelu-approximate",
        sample_size=8,
        hidden_size=recipe.heads * recipe.head_dim,
        num_layers=recipe.blocks,
        mlp_ratio=recipe.mlp_ratio,
        learn_sigma=True,
        cross_attention_dim=recipe.bert_width,
        cross_attention_dim_t5=recipe.t5_width,
        pooled_projection_dim=recipe.pooled,
        text_len=77,
        text_len_t5=256,
        use_style_cond_and_image_meta_size=recipe.style_and_size,
    )
    return fill(model, recipe.seed, hunyuan_rule)


def vae(recipe: Recipe) -> AutoencoderKL:
    """Stable Diffusion XL's autoencoder: 4 latent channels, and convolutions around them."""
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=recipe.vae_channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=recipe.vae_groups,
        sample_size=64,
        scaling_factor=0.13025,
        force_upcast=False,
    )
    return fill(model, recipe.seed, vae_rule)


def save_tokenizers(recipe: Recipe, folder: Path, scratch: Path) -> None:
    """BERT's and mT5's."""
    if not recipe.tokenizer_json:
        chinese.save_bert_vocab(folder / "tokenizer")
        chinese.save_mt5_spiece(folder / "tokenizer_2")
        return
    chinese.save_bert_json(folder / "tokenizer", scratch / "bert")
    chinese.save_mt5_json(folder / "tokenizer_2", scratch / "mt5")
    for name in ("tokenizer", "tokenizer_2"):
        tiny.compact_json(folder / name / "tokenizer.json")


def build(recipe: Recipe, root: Path, scratch: Path) -> Path:
    """Writes the pipeline of `recipe` under `root` and returns its folder."""
    folder = root / recipe.name
    if folder.exists():
        shutil.rmtree(folder)
    save_tokenizers(recipe, folder, scratch / recipe.name)
    tokenizer = BertTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer_2 = T5Tokenizer.from_pretrained(folder / "tokenizer_2")
    pipe = HunyuanDiTPipeline(
        vae=vae(recipe).to(recipe.dtype),
        text_encoder=bert(recipe, tokenizer).to(recipe.dtype),
        tokenizer=tokenizer,
        transformer=transformer(recipe).to(recipe.dtype),
        scheduler=scheduler(recipe.beta_end),
        safety_checker=None,
        feature_extractor=None,
        text_encoder_2=mt5(recipe, tokenizer_2).to(recipe.dtype),
        tokenizer_2=tokenizer_2,
    )
    whole = scratch / recipe.name / "whole"
    pipe.save_pretrained(whole)
    for source in sorted(whole.iterdir()):
        if source.is_dir() and not source.name.startswith("tokenizer"):
            shutil.copytree(source, folder / source.name)
    shutil.copy(whole / "model_index.json", folder)
    drop_local_paths(folder)
    if recipe.style_and_size:
        leave_to_default(folder / "transformer" / "config.json")
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
    return folder


def leave_to_default(path: Path) -> None:
    """Removes from version 1.1's transformer what the hub's configuration, older than version 1.2, does not name."""
    value = json.loads(path.read_text(encoding="utf-8"))
    assert value.pop("use_style_cond_and_image_meta_size")
    tiny.write_json(path, value)
