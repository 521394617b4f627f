"""Records the schedules and steps of diffusers' schedulers."""

import json
import tempfile
from itertools import product
from pathlib import Path

import diffusers
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


# The scheduler of HunyuanDiT v1.1 as on the hub; v1.2 has another `beta_end`.
HUNYUAN = {
    "beta_start": 0.00085,
    "beta_end": 0.03,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
EPSILON = {"prediction_type": "epsilon"}
SAMPLE = {"prediction_type": "sample"}
TRAILING_ZERO = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
LINSPACE = {"timestep_spacing": "linspace"}
TRAINED = {"num_train_timesteps": 40, "trained_betas": [round(0.001 + 0.005 * i, 6) for i in range(40)]}
COMMON = [
    {},
    {"beta_end": 0.018},
    EPSILON,
    SAMPLE,
    LINSPACE,
    TRAILING_ZERO,
    {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    TRAINED,
]
DPM = [
    {"solver_order": 1},
    {"solver_order": 3},
    {"solver_type": "heun"},
    {"lower_order_final": False},
    {"euler_at_final": True, "final_sigmas_type": "sigma_min", **LINSPACE},
    {"solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"},
    {"algorithm_type": "sde-dpmsolver++"},
    {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", **EPSILON},
    {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "final_sigmas_type": "sigma_min"},
    {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1, **EPSILON, **LINSPACE},
    {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True, **EPSILON},
    *SPACINGS[1:],
    {"use_lu_lambdas": True},
]
EULER = [
    {"interpolation_type": "log_linear"},
    {"final_sigmas_type": "sigma_min"},
    {"timestep_type": "continuous"},
    {"use_karras_sigmas": True, "sigma_min": 0.02, "sigma_max": 30.0},
    {"interpolation_type": "log_linear", "use_karras_sigmas": True},
    {**LINSPACE, "use_exponential_sigmas": True},
    *SPACINGS[1:],
]
OWN = {
    "DDPMScheduler": [
        {"variance_type": "fixed_small_log"},
        {"variance_type": "fixed_large"},
        {"clip_sample": True, "clip_sample_range": 0.8, **EPSILON},
        {"beta_schedule": "squaredcos_cap_v2", "clip_sample": True, **EPSILON},
        {"steps_offset": 0},
    ],
    "DDIMScheduler": [
        {"set_alpha_to_one": False},
        {"clip_sample": True, "clip_sample_range": 0.8},
        {"steps_offset": 0, "clip_sample": True, **SAMPLE},
    ],
    "DPMSolverMultistepScheduler": DPM,
    "EulerDiscreteScheduler": EULER,
}
# Files that another class is made from: some fields are missing, some have no meaning there.
FILES = [
    {"_class_name": "DDPMScheduler", "_diffusers_version": "0.29.0", **HUNYUAN, "variance_type": "fixed_small"},
    {"_class_name": "DDPMScheduler", "beta_end": 0.018, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"},
    {"_class_name": "DPMSolverMultistepScheduler", **HUNYUAN, "use_karras_sigmas": True, "solver_order": 3},
    {"_class_name": "UniPCMultistepScheduler", **HUNYUAN, "solver_type": "bh2", "use_karras_sigmas": True},
]


def short(tensor: torch.Tensor) -> list[float]:
    """f32 values in as few digits as tell them apart."""
    return [float(str(value)) for value in tensor.to(torch.float32).flatten().numpy()]


def trajectory(scheduler, steps: int, seed: int = 3) -> dict:
    """A run of a model that answers `0.7 * direction + 0.25 * input`, as HunyuanDiTPipeline drives it."""
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        # HunyuanDiTPipeline leaves it out, which fails where the first timestep comes twice and changes nothing elsewhere.
        scheduler.set_begin_index(0)
    draws = torch.Generator("cpu").manual_seed(seed)
    sample, direction = torch.randn(1, 4, generator=draws), torch.randn(1, 4, generator=draws)
    run = {"noise_seed": seed + 1, "noise": short(sample), "direction": short(direction)}
    generator = torch.Generator("cpu").manual_seed(seed + 1)
    sample = sample * scheduler.init_noise_sigma
    extra = {} if isinstance(scheduler, diffusers.DDIMScheduler) else {"generator": generator}
    samples = []
    for timestep in scheduler.timesteps:
        output = 0.7 * direction + 0.25 * scheduler.scale_model_input(sample, timestep)
        sample = scheduler.step(output, timestep, sample, **extra, return_dict=False)[0]
        samples.append(short(sample))
    assert torch.isfinite(sample).all(), scheduler
    return {
        **run,
        "num_inference_steps": steps,
        "timesteps": short(scheduler.timesteps),
        "sigmas": short(scheduler.sigmas) if hasattr(scheduler, "sigmas") else [],
        "init_noise_sigma": float(scheduler.init_noise_sigma),
        # After every step, of longer runs after the last.
        "samples": samples if steps <= 7 else samples[-1:],
    }


def diffusion_runs() -> list[dict]:
    """Every class with what all have and what it has alone, in runs short and longer."""
    out = []
    for name, own in OWN.items():
        for config in COMMON + own:
            whole = {**HUNYUAN, **config}
            known = set(getattr(diffusers, name)._get_init_keys(getattr(diffusers, name)))
            whole = {key: value for key, value in whole.items() if key in known}
            for steps in (1, 2, 3, 7, 16):
                out.append({"class": name, "config": whole, **trajectory(getattr(diffusers, name)(**whole), steps)})
    for name, steps in product(OWN, (25, 50)):
        config = {key: value for key, value in HUNYUAN.items() if key != "clip_sample" or name[:2] == "DD"}
        out.append({"class": name, "config": config, **trajectory(getattr(diffusers, name)(**config), steps)})
    return out


def converted_runs() -> list[dict]:
    """Every class from every file, read by its own class first, as `pipe.scheduler.config` is."""
    out = []
    for file, name in product(FILES, OWN):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "scheduler_config.json").write_text(json.dumps(file))
            original = getattr(diffusers, file["_class_name"]).from_pretrained(folder)
        scheduler = getattr(diffusers, name).from_config(original.config)
        out.append({"class": name, "config": file, **trajectory(scheduler, 4)})
    return out


# Training schedules of published models, and those whose last timestep is all noise.
BETAS = [
    {"beta_end": 0.018},
    {},
    {"beta_end": 0.012},
    {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"rescale_betas_zero_snr": True},
    TRAINED,
]
TIMESTEP_SPACINGS = ("linspace", "leading", "trailing")
STEP_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 18, 20, 25, 28, 30, 40)


def timesteps() -> list[dict]:
    """The timesteps of every class, training schedule, spacing of timesteps and spacing of noise levels."""
    out = []
    for name, betas, spacing in product(OWN, BETAS, TIMESTEP_SPACINGS):
        own = {"DPMSolverMultistepScheduler": [*SPACINGS, {"use_lu_lambdas": True}], "EulerDiscreteScheduler": SPACINGS}
        for levels in own.get(name, [{}]):
            whole = {**HUNYUAN, "timestep_spacing": spacing, **betas, **levels}
            known = set(getattr(diffusers, name)._get_init_keys(getattr(diffusers, name)))
            whole = {key: value for key, value in whole.items() if key in known}
            # Fractions take more room than whole numbers.
            counts = STEP_COUNTS if name != "EulerDiscreteScheduler" else (6, 10, 25)
            # As many steps as there are in training leave no room for an offset.
            counts = [steps for steps in counts if steps < whole.get("num_train_timesteps", 1000)]
            found = {}
            for steps in counts:
                scheduler = getattr(diffusers, name)(**whole)
                scheduler.set_timesteps(steps)
                whole_numbers = not scheduler.timesteps.dtype.is_floating_point
                found[steps] = scheduler.timesteps.tolist() if whole_numbers else short(scheduler.timesteps)
            out.append({"class": name, "config": whole, "timesteps": found})
    return out


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
    lines.append('],\n"runs": [')
    lines.append(",\n".join(json.dumps(run) for run in diffusion_runs() + converted_runs()))
    lines.append('],\n"timesteps": [')
    lines.append(",\n".join(json.dumps(entry) for entry in timesteps()))
    lines.append("]}")
    write_gzip(root / "schedulers.json.gz", ("\n".join(lines) + "\n").encode())
