"""Writes golden files so that the same content is the same bytes."""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file


def versions() -> dict[str, str]:
    """What the goldens were made with."""
    return {name: version(name).split("+")[0] for name in ("torch", "diffusers", "transformers")}


def save(path: Path, tensors: dict[str, torch.Tensor], facts: dict) -> None:
    """Saves tensors with one metadata entry, `golden`: a JSON object of `facts` and the versions.

    One entry, because safetensors writes several in an order that changes from run to run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    golden = json.dumps({**facts, "versions": versions()}, ensure_ascii=False)
    save_file(plain, path, metadata={"golden": golden})
    path.chmod(0o644)
