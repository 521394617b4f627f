"""Records one picture of the demo pipeline: the final latents and the pixels."""

import json
from pathlib import Path

import torch
from diffusers import FluxPipeline

from .cases import pixels_of
from .store import save

PROMPT, SEED = "a red circle on a blue background", 42


def make(root: Path, pipeline: Path, expected: Path) -> None:
    """Writes `demo.safetensors.gz`, with the call's arguments from demo/expected.json."""
    call = {"prompt": PROMPT, **json.loads(expected.read_text())["call"]}
    pipe = FluxPipeline.from_pretrained(pipeline, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)

    def draw(output_type: str):
        return pipe(**call, generator=torch.Generator("cpu").manual_seed(SEED), output_type=output_type).images

    tensors = {"latents": draw("latent"), "image_u8": pixels_of(draw("pil")[0])[None]}
    save(root / "demo.safetensors.gz", tensors, {"pipeline": "demo", "case": "demo", "call": call, "seeds": SEED})
