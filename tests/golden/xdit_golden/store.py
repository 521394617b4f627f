"""Writes golden files so that the same content is the same bytes."""

import gzip
import json
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import torch as safetensors


def versions() -> dict[str, str]:
    """What the goldens were made with."""
    return {name: version(name).split("+")[0] for name in ("torch", "diffusers", "transformers")}


def write_gzip(path: Path, content: bytes) -> None:
    """Writes `path`, which ends in `.gz`, without a date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 9, mtime=0))


def save(path: Path, tensors: dict[str, torch.Tensor], facts: dict) -> None:
    """Saves tensors as `path`, a `.safetensors.gz`, with one metadata entry, `golden`: a JSON object of `facts` and the
    versions.

    One entry, because safetensors writes several in an order that changes from run to run.
    """
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    golden = json.dumps({**facts, "versions": versions()}, ensure_ascii=False)
    write_gzip(path, safetensors.save(plain, metadata={"golden": golden}))


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and metadata of a `.safetensors` or `.safetensors.gz`."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return safetensors.load(content), header.get("__metadata__", {})
