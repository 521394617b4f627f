"""Records how HunyuanDiTPipeline picks a size, and where its rotary table is for sizes too large for a recorded call."""

import json
import random
from pathlib import Path

import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from diffusers.pipelines.hunyuandit import pipeline_hunyuandit as hunyuan

from .cases import generators, load
from .store import versions, write_gzip

HEAD_DIM = 88
STRIDE = 17
BASE = 512 // 8 // 2
EDGES = [(1000, 1000), (512, 512), (16, 16), (4096, 4096), (1152, 1152), (2048, 512), (512, 2048)]
CALL = dict(prompt="一只红色的小猫", height=200, width=328, num_inference_steps=1, guidance_scale=1.0)


def binned(height: int, width: int) -> list[int]:
    """The size that is drawn for the one asked for, `[height, width]`."""
    height, width = height // 16 * 16, width // 16 * 16
    if (height, width) not in hunyuan.SUPPORTED_SHAPE:
        width, height = hunyuan.map_to_standard_shapes(width, height)
    return [int(height), int(width)]


def binning() -> list[list[list[int]]]:
    """Pairs of a size asked for and the one drawn."""
    rng = random.Random(5)
    sizes = [*hunyuan.SUPPORTED_SHAPE, *EDGES]
    sizes += [(rng.randint(16, 2300), rng.randint(16, 2300)) for _ in range(200)]
    sizes += [(16 * rng.randint(40, 90), 16 * rng.randint(40, 90)) for _ in range(100)]
    return [[list(size), binned(*size)] for size in dict.fromkeys(sizes)]


def numbers(values: torch.Tensor) -> list[float]:
    """f32 values in as many digits as they need."""
    return [float(f"{value:.9g}") for value in values.tolist()]


def rotary(height: int, width: int) -> dict:
    """The corners of the table's grid, and every 397th row of the table, each frequency once."""
    grid = (height // 16, width // 16)
    corners = hunyuan.get_resize_crop_region_for_grid(grid, BASE)
    cos, sin = get_2d_rotary_pos_embed(HEAD_DIM, corners, grid, device="cpu", output_type="pt")
    rows = list(range(0, cos.shape[0], 397))
    return {
        "height": height,
        "width": width,
        "head_dim": HEAD_DIM,
        "start": list(corners[0]),
        "stop": list(corners[1]),
        "rows": rows,
        "cos": [numbers(row) for row in cos[rows, ::2]],
        "sin": [numbers(row) for row in sin[rows, ::2]],
    }


def call(models: Path) -> dict:
    """A call that is drawn in another size: every `STRIDE`th of the latents, flat, after the only step."""
    pipe = load(models / "hunyuan-v1.2")
    latents = pipe(**CALL, generator=generators(42), output_type="latent").images
    assert torch.isfinite(latents).all()
    return {
        "pipeline": "hunyuan-v1.2",
        "call": CALL,
        "seeds": 42,
        "shape": list(latents.shape),
        "stride": STRIDE,
        "latents": numbers(latents.flatten()[::STRIDE]),
    }


def make(root: Path, models: Path) -> None:
    """Writes `hunyuan-sizes.json.gz`."""
    value = {
        "versions": versions(),
        "supported": [list(size) for size in hunyuan.SUPPORTED_SHAPE],
        "binning": binning(),
        "rotary": [rotary(1024, 1024), rotary(768, 1280), rotary(1280, 960)],
        "call": call(models),
    }
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    write_gzip(root / "hunyuan-sizes.json.gz", (text + "\n").encode())
