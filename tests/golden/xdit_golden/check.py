"""Compares newly made files with the committed ones, and refuses to run with other library versions."""

import gzip
import json
from importlib.metadata import version
from pathlib import Path

import torch

from .store import read_safetensors

TOLERANCE = 2e-6  # relative L2: torch's AVX2 path differs from AVX-512 by up to 1e-6, the one without SIMD by more
HALF_TOLERANCE = 2e-4  # 16-bit values drawn without SIMD round to the neighbouring value now and then


def refuse_other_versions(requirements: Path) -> None:
    """Raises if torch, diffusers or transformers differ from requirements.txt."""
    wanted = dict(line.split("==") for line in requirements.read_text().split() if "==" in line)
    for package in ("torch", "diffusers", "transformers", "tokenizers", "sentencepiece"):
        got = version(package).split("+")[0]
        if got != wanted[package]:
            raise SystemExit(f"{package} {got} is installed, the goldens are made with {wanted[package]}")


def relative(made: torch.Tensor, kept: torch.Tensor) -> float:
    """Relative L2 distance, 0 for pixels within one level; infinite if shapes, dtypes or ids differ."""
    if made.shape != kept.shape or made.dtype != kept.dtype:
        return float("inf")
    made_dtype = made.dtype
    made, kept = made.double(), kept.double()
    if made_dtype == torch.uint8:
        return 0.0 if (made - kept).abs().max() <= 1 else float("inf")
    if made_dtype == torch.int64:
        return 0.0 if torch.equal(made, kept) else float("inf")
    distance = float((made - kept).norm() / kept.norm().clamp_min(1e-30))
    if made_dtype in (torch.bfloat16, torch.float16):
        return 0.0 if distance <= HALF_TOLERANCE else float("inf")
    return distance


def compare_safetensors(made: Path, kept: Path) -> float:
    """The largest relative L2 distance of any tensor, infinite if names differ."""
    (a, a_metadata), (b, b_metadata) = read_safetensors(made), read_safetensors(kept)
    if a.keys() != b.keys() or a_metadata != b_metadata:
        return float("inf")
    return max((relative(a[key], b[key]) for key in a), default=0.0)


def number_distance(made, kept) -> float:
    """The largest relative difference of any number in two JSON values, infinite if anything else differs."""
    if isinstance(made, float) and isinstance(kept, (int, float)):
        return abs(made - kept) / max(abs(kept), 1e-3)
    if isinstance(made, list) and isinstance(kept, list) and len(made) == len(kept):
        return max((number_distance(a, b) for a, b in zip(made, kept)), default=0.0)
    if isinstance(made, dict) and isinstance(kept, dict) and made.keys() == kept.keys():
        return max((number_distance(made[key], kept[key]) for key in made), default=0.0)
    return 0.0 if made == kept else float("inf")


def compare_file(made: Path, kept: Path) -> float:
    """0 for equal bytes, else the distance by the file's kind."""
    if made.read_bytes() == kept.read_bytes():
        return 0.0
    name = made.name.removesuffix(".gz")
    if name.endswith(".safetensors"):
        return compare_safetensors(made, kept)
    a, b = unpacked(made), unpacked(kept)
    if name.endswith(".json"):
        return number_distance(json.loads(a), json.loads(b))
    return 0.0 if a == b else float("inf")


def unpacked(path: Path) -> bytes:
    """The content of a file, whichever zlib packed it."""
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def compare_folders(made: Path, kept: Path) -> int:
    """Prints each file that differs; 1 if one differs by more than the tolerance."""
    worst, equal, failed = 0.0, 0, 0
    for path in sorted(p for p in made.rglob("*") if p.is_file()):
        name = path.relative_to(made)
        other = kept / name
        distance = compare_file(path, other) if other.exists() else float("inf")
        equal += path.read_bytes() == other.read_bytes() if other.exists() else 0
        worst = max(worst, distance)
        if not distance <= TOLERANCE:
            failed += 1
            print(f"{name}: differs by {distance:.3g}" if other.exists() else f"{name}: is not committed")
    print(f"{equal} files equal bit for bit, largest difference {worst:.3g}, {failed} failed")
    return int(failed > 0)
