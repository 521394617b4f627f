"""Records what torch's CPU generator draws, for every path through `torch.randn`.

Below 16 values torch draws pairs one by one, in f64; from 16 on it fills the tensor with uniform numbers and
transforms blocks of 16, redrawing the last 16 values when the size is not a multiple of 16.
"""

from pathlib import Path

import torch
from diffusers.utils.torch_utils import randn_tensor

from .store import save

SEEDS = [0, 42, 2**32 + 5, 2**63 + 11, -1, -(2**31) - 7]
SIZES = [1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 100]
LONG_SIZES = [1000, 1024, 1039]
DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}
SEQUENCES = [[5, 40, 16], [1, 1, 1, 20], [16, 3, 16], [2, 17, 15], [100, 7, 33]]
SHAPES = [(1, 16, 8, 10), (2, 16, 4, 6), (3, 5)]


def generator(seed: int) -> torch.Generator:
    """A CPU generator."""
    return torch.Generator("cpu").manual_seed(seed)


def make(root: Path) -> None:
    """Writes `noise.safetensors`."""
    tensors = {}
    for name, dtype in DTYPES.items():
        for seed in SEEDS if name == "f32" else [42, -1]:
            for size in SIZES + (LONG_SIZES if seed == 42 else []):
                tensors[f"randn.{name}.seed={seed}.size={size}"] = torch.randn(
                    size, generator=generator(seed), dtype=dtype
                )
        for sizes in SEQUENCES:
            drawing = generator(42)
            for i, size in enumerate(sizes):
                label = "+".join(map(str, sizes))
                tensors[f"sequence.{name}.seed=42.sizes={label}.{i}"] = torch.randn(
                    size, generator=drawing, dtype=dtype
                )
        for shape in SHAPES:
            label = "x".join(map(str, shape))
            tensors[f"shape.{name}.seed=7.{label}"] = torch.randn(shape, generator=generator(7), dtype=dtype)
            seeds = list(range(3, 3 + shape[0]))
            tensors[f"randn_tensor.{name}.seeds={','.join(map(str, seeds))}.{label}"] = randn_tensor(
                shape, generator=[generator(seed) for seed in seeds], dtype=dtype
            )
    mixed = generator(9)
    for i, (name, size) in enumerate([("f32", 3), ("f64", 3), ("f32", 20), ("f64", 17), ("bf16", 5), ("f16", 16)]):
        tensors[f"mixed.seed=9.{i}.{name}.size={size}"] = torch.randn(size, generator=mixed, dtype=DTYPES[name])
    save(root / "noise.safetensors.gz", tensors, {"cpu_capability_matters": "f32 from 16 values on, by at most 3e-6"})
