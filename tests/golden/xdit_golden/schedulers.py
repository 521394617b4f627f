"""Records FlowMatchEulerDiscreteScheduler's schedules and steps."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from .store import versions, write_gzip

FLUX_DEV = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
SPACINGS = [{}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True}]
# Flux-dev, Flux-schnell, SD3, SD3.5, and settings that no published model has.
CONFIGS = [
    {},
    {"shift": 3.0},
    {"shift": 1.15},
    FLUX_DEV,
    {**FLUX_DEV, "time_shift_type": "linear"},
    {**FLUX_DEV, "shift_terminal": 0.1},
    {"shift": 3.0, "shift_terminal": 0.02},
    {"shift": 3.0, "invert_sigmas": True},
    {**FLUX_DEV, "invert_sigmas": True, "shift_terminal": 0.1},
    {"shift": 3.0, "num_train_timesteps": 500},
]


def flux_sigmas(steps: int) -> np.ndarray:
    """The sigmas that FluxPipeline passes."""
    return np.linspace(1.0, 1 / steps, steps)


def schedule(config: dict, call: dict) -> dict:
    """`sigmas` and `timesteps` after `set_timesteps(**call)`."""
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    scheduler.set_timesteps(**call)
    return {
        "config": config,
        "set_timesteps": {key: list(value) if hasattr(value, "__len__") else value for key, value in call.items()},
        "sigmas": scheduler.sigmas.tolist(),
        "timesteps": scheduler.timesteps.tolist(),
    }


def schedules() -> list[dict]:
    """Every configuration with a few counts and `mu`; every count from 1 to 50 for the published ones."""
    out = []
    for config, spacing in product(CONFIGS, SPACINGS):
        whole = {**config, **spacing}
        for steps, mu in ((2, 0.5), (7, 1.15), (20, 0.83)):
            shifted = {"mu": mu} if whole.get("use_dynamic_shifting") else {}
            calls = [{"num_inference_steps": steps, **shifted}, {"sigmas": flux_sigmas(steps), **shifted}]
            out += [schedule(whole, call) for call in calls]
    for config in (FLUX_DEV, {"shift": 1.0}, {"shift": 3.0}):
        shifted = {"mu": 0.65} if config.get("use_dynamic_shifting") else {}
        for steps in range(1, 51):
            if steps % 7 in (1, 4) or steps > 48:
                out.append(schedule(config, {"sigmas": flux_sigmas(steps), **shifted}))
                out.append(schedule(config, {"num_inference_steps": steps, **shifted}))
    for mu in (0.0, 0.3, 0.5, 1.15, 2.0):
        for kind in ("exponential", "linear"):
            if mu or kind == "exponential":
                config = {**FLUX_DEV, "time_shift_type": kind}
                out.append(schedule(config, {"sigmas": flux_sigmas(4), "mu": mu}))
    out.append(schedule({"shift": 3.0}, {"sigmas": [1.0, 0.75, 0.2]}))
    out.append(schedule(FLUX_DEV, {"sigmas": [0.9, 0.5, 0.1], "mu": 0.7}))
    out.append(schedule({"shift": 3.0}, {"timesteps": [1000.0, 400.0, 30.0]}))
    out.append(schedule({"shift": 3.0}, {"timesteps": [1000.0, 400.0, 30.0], "sigmas": [1.0, 0.5, 0.1]}))
    return out


def steps_run(config: dict, mu: float | None) -> dict:
    """Four steps on eight values with made-up model outputs; the noise that stochastic sampling drew."""
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    scheduler.set_timesteps(sigmas=flux_sigmas(4), mu=mu)
    inputs, noise = torch.Generator("cpu").manual_seed(0), torch.Generator("cpu").manual_seed(1)
    sample = torch.randn(1, 8, generator=inputs)
    run = {"config": config, "mu": mu, "noise_seed": 1, "sample": sample.flatten().tolist(), "steps": []}
    replay = torch.Generator("cpu").manual_seed(1)
    for timestep in scheduler.timesteps:
        output = torch.randn(1, 8, generator=inputs)
        sample = scheduler.step(output, timestep, sample, generator=noise, return_dict=False)[0]
        step = {"model_output": output.flatten().tolist(), "prev_sample": sample.flatten().tolist()}
        if config.get("stochastic_sampling"):
            step["noise"] = torch.randn(1, 8, generator=replay).flatten().tolist()
        run["steps"].append(step)
    return run


def make(root: Path) -> None:
    """Writes `schedulers.json.gz`, one line a schedule or run."""
    runs = [
        steps_run({"shift": 3.0}, None),
        steps_run(FLUX_DEV, 0.7),
        steps_run({"shift": 3.0, "stochastic_sampling": True}, None),
        steps_run({**FLUX_DEV, "stochastic_sampling": True}, 0.7),
        steps_run({"shift": 3.0, "invert_sigmas": True}, None),
    ]
    lines = ['{"versions": ' + json.dumps(versions()) + ",", '"schedules": [']
    lines.append(",\n".join(json.dumps(entry) for entry in schedules()))
    lines.append('],\n"steps": [')
    lines.append(",\n".join(json.dumps(run) for run in runs))
    lines.append("]}")
    write_gzip(root / "schedulers.json.gz", ("\n".join(lines) + "\n").encode())
