"""Runs the recorded calls through diffusers' pipelines and saves what flowed through them."""

import json
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import diffusers
import torch
from diffusers import DiffusionPipeline, FluxPipeline, HunyuanDiTPipeline
from diffusers.models.normalization import FP32LayerNorm
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from . import hunyuan_case_list, sd3_case_list
from .capture import Recorder
from .case_list import CASES, VARIANTS, Case
from .hunyuan_capture import HunyuanRecorder
from .sd3_capture import Sd3Recorder
from .sharpness import assert_conditioned, assert_sharp
from .store import save


def load(folder: Path, dtype=torch.float32) -> DiffusionPipeline:
    """The pipeline as a user would load it, computing in `dtype` whatever it is stored in."""
    index = json.loads((folder / "model_index.json").read_text())
    # diffusers asks for these two by name, though its own index says that they are not there.
    absent = {name: None for name in ("text_encoder_3", "tokenizer_3") if index.get(name) == [None, None]}
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=dtype, variant=VARIANTS.get(folder.name), **absent)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generators(seeds: int | list[int]):
    """One generator for the whole batch, or one for each image."""
    if isinstance(seeds, list):
        return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return torch.Generator("cpu").manual_seed(seeds)


def mu_of(pipe: DiffusionPipeline, image_seq_len: int) -> float | None:
    """The `mu` that the pipeline passes to the scheduler; none with Stable Diffusion 3's static shift."""
    config = pipe.scheduler.config
    if not isinstance(pipe, FluxPipeline):
        return None
    return calculate_shift(
        image_seq_len, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )


def drop_repeats(tensors: dict[str, torch.Tensor], images_per_prompt: int) -> None:
    """Checks that each prompt's embeddings are repeated for its images, then drops the shorter copy."""
    for name in [name for name in tensors if name.endswith(".per_prompt")]:
        repeated = tensors.pop(name).repeat_interleave(images_per_prompt, dim=0)
        assert torch.equal(tensors[name.removesuffix(".per_prompt")], repeated), name


def recorder_for(pipe: DiffusionPipeline, case: Case) -> Recorder:
    """The recorder of the pipeline's family."""
    if isinstance(pipe, HunyuanDiTPipeline):
        return HunyuanRecorder(pipe, case.blocks, case.name)
    return (Recorder if isinstance(pipe, FluxPipeline) else Sd3Recorder)(pipe, case.blocks)


@contextmanager
def scheduled(pipe: DiffusionPipeline, case: Case):
    """Gives the pipeline the scheduler of the case for the length of one call."""
    own = pipe.scheduler
    if case.scheduler:
        pipe.scheduler = getattr(diffusers, case.scheduler).from_config(own.config)
    try:
        yield
    finally:
        pipe.scheduler = own


def run(pipe: DiffusionPipeline, case: Case, **override) -> dict[str, torch.Tensor]:
    """One call with every hook attached, and the image it returned."""
    with scheduled(pipe, case):
        return recorded(pipe, case, override)


def recorded(pipe: DiffusionPipeline, case: Case, override: dict) -> dict[str, torch.Tensor]:
    """As `run`, with the scheduler that the pipeline has."""
    recorder = recorder_for(pipe, case)
    call = {**case.call, "generator": generators(case.seeds), **override}
    with recorder.attached():
        image = pipe(**call, output_type="pt", callback_on_step_end=recorder.step_end).images
    tensors = recorder.tensors
    drop_repeats(tensors, case.call.get("num_images_per_prompt", 1))
    tensors["image"] = image
    pictures = pipe.image_processor.numpy_to_pil(pipe.image_processor.pt_to_numpy(image))
    pixels = torch.stack([pixels_of(picture) for picture in pictures])
    # So the pixels need no room: `round` takes halves to the even number.
    assert torch.equal(pixels, (255 * image).round().to(torch.uint8).permute(0, 2, 3, 1)), case.name
    return tensors


def pixels_of(picture) -> torch.Tensor:
    """The pixels of a PIL image, [H, W, 3] u8."""
    width, height = picture.size
    return torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8).view(height, width, 3)


def latent_output(pipe: DiffusionPipeline, case: Case) -> torch.Tensor:
    """What the same call returns with `output_type="latent"`."""
    with scheduled(pipe, case):
        return pipe(**case.call, generator=generators(case.seeds), output_type="latent").images


def check_case(tensors: dict[str, torch.Tensor], latents: torch.Tensor, case: Case) -> None:
    """A golden must be able to fail a test: finite, unsaturated, and the last step is the latent output."""
    steps = sum(name.endswith(".latents") for name in tensors)
    assert torch.equal(tensors[f"step.{steps - 1}.latents"], latents), case.name
    assert all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point()), case.name
    clipped = ((tensors["image"] == 0) | (tensors["image"] == 1)).float().mean()
    assert clipped < 0.1, f"{case.name}: {clipped:.2f} of the pixels are clipped"
    assert tensors["image"].std() > 0.05, f"{case.name}: the image is flat"


def make(root: Path, models: Path) -> None:
    """Records every case of every pipeline under `root`/cases/<pipeline>/<case>.safetensors."""
    for name, cases in {**CASES, **sd3_case_list.CASES, **hunyuan_case_list.CASES}.items():
        pipe = load(models / name)
        assert_sharp(pipe, cases[0])
        for case in cases:
            tensors = run(pipe, case)
            check_case(tensors, latent_output(pipe, case), case)
            facts = {
                "pipeline": name,
                "case": case.name,
                "call": case.call,
                "seeds": case.seeds,
                "mu": mu_of(pipe, tensors["latents"].shape[1]),
                "notes": case.notes,
            }
            if case.scheduler:
                facts["scheduler"] = case.scheduler
            save(root / "cases" / name / f"{case.name}.safetensors.gz", tensors, facts)
        blocks = [case for case in cases if case.blocks]
        for case in blocks:
            assert_conditioned(run(pipe, case), exact(models / name, run(pipe, case)["latents"], case))


def exact(folder: Path, latents: torch.Tensor, case: Case) -> dict[str, torch.Tensor]:
    """The same call computed in f64 from the same initial latents."""
    # HunyuanDiT's norms compute in f32 whatever they are given.
    with mock.patch.object(FP32LayerNorm, "forward", torch.nn.LayerNorm.forward):
        return run(load(folder, torch.float64), case, latents=latents.double())
