"""Records AutoencoderKL block by block: one decode and one encode of a picture that is not square."""

from pathlib import Path

import torch

from .capture import first
from .cases import load
from .sharpness import relative_to_double
from .store import save
from .weights import named_randn

PIPELINES = ("flux-dev", "flux-schnell")
HEIGHT, WIDTH = 24, 40
# Of latents that are decoded in tiles of 8, 6 apart: three rows of tiles, the last of one line, and two columns.
TILED = (13, 8)
# A little over half of what the Rust tests allow for a block.
MAX_ROUNDING = 1.2e-6


def keep(tensors: dict, module, name: str):
    """Keeps the output of each forward of `module` under `name`."""
    return module.register_forward_hook(
        lambda _module, _inputs, output: tensors.__setitem__(name, first(output).detach().clone())
    )


def decoder_modules(decoder) -> dict:
    """Modules of the decoder under the names of their outputs."""
    middle = decoder.mid_block
    named = {
        "conv_in": decoder.conv_in,
        "mid_block.resnets.0": middle.resnets[0],
        "mid_block.attentions.0": middle.attentions[0],
        "mid_block": middle,
        "conv_norm_out": decoder.conv_norm_out,
        "sample": decoder,
    }
    return named | {f"up_blocks.{i}": block for i, block in enumerate(decoder.up_blocks)}


def encoder_modules(encoder) -> dict:
    """Modules of the encoder under the names of their outputs; `moments` is mean and log-variance."""
    named = {"conv_in": encoder.conv_in, "mid_block": encoder.mid_block, "moments": encoder}
    return named | {f"down_blocks.{i}": block for i, block in enumerate(encoder.down_blocks)}


def smooth_picture() -> torch.Tensor:
    """A picture in [-1, 1] with edges, gradients and a little noise, [1, 3, H, W]."""
    y = torch.linspace(0, 1, HEIGHT)[:, None]
    x = torch.linspace(0, 1, WIDTH)[None, :]
    disc = ((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.06).float()
    picture = torch.stack([x + 0 * y, disc, (y + x) / 2]) * 1.6 - 0.8
    return (picture + 0.05 * named_randn("picture", picture.shape, 0)).clamp(-1, 1)[None]


def run(vae, latents: torch.Tensor, picture: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every block's output of `vae.decode(latents)` and `vae.encode(picture)`."""
    tensors = {"vae.decoder.input": latents, "vae.encoder.input": picture}
    handles = [keep(tensors, m, f"vae.decoder.{name}") for name, m in decoder_modules(vae.decoder).items()]
    handles += [keep(tensors, m, f"vae.encoder.{name}") for name, m in encoder_modules(vae.encoder).items()]
    with torch.no_grad():
        vae.decode(latents)
        tensors["vae.encoder.mode"] = vae.encode(picture).latent_dist.mode()
    for handle in handles:
        handle.remove()
    return tensors


def run_tiled(vae, latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """The picture of `vae.decode(latents)` in tiles."""
    vae.enable_tiling()
    with torch.no_grad():
        return {"vae.decoder.input": latents, "vae.decoder.tiled": vae.decode(latents).sample}


def make_tiled(root: Path, models: Path, name: str) -> None:
    """Writes `vae/<pipeline>-tiled.safetensors`."""
    latents = 2.0 * named_randn("latents.tiled", (1, 16, *TILED), 0)
    tensors = run_tiled(load(models / name).vae, latents)
    double = run_tiled(load(models / name, torch.float64).vae, latents.double())
    worst = max(relative_to_double(tensors, double).values())
    assert worst <= MAX_ROUNDING, f"{name}, tiled: f32 differs from f64 by {worst:.2g}"
    print(f"  {name}, tiled: f32 to f64 at most {worst:.1e}")
    facts = {"pipeline": name, "height": 8 * TILED[0], "width": 8 * TILED[1]}
    save(root / "vae" / f"{name}-tiled.safetensors.gz", tensors, facts)


def make(root: Path, models: Path) -> None:
    """Writes `vae/<pipeline>.safetensors.gz`, and a decode in tiles."""
    make_tiled(root, models, PIPELINES[0])
    for name in PIPELINES:
        latents = 2.0 * named_randn("latents", (1, 16, HEIGHT // 8, WIDTH // 8), 0)
        picture = smooth_picture()
        tensors = run(load(models / name).vae, latents, picture)
        double = run(load(models / name, torch.float64).vae, latents.double(), picture.double())
        worst = max(relative_to_double(tensors, double).values())
        assert worst <= MAX_ROUNDING, f"{name}: f32 differs from f64 by {worst:.2g}"
        print(f"  {name}: f32 to f64 at most {worst:.1e}")
        facts = {"pipeline": name, "height": HEIGHT, "width": WIDTH}
        save(root / "vae" / f"{name}.safetensors.gz", tensors, facts)
