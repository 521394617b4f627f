"""Prints what ranks hold and what a process takes: as `xdit-cli plan` foretells it, and as a run measures it.

    cargo build --release -p xdit-cli
    python tests/peer/memory.py

The pipelines that are run have random weights: the goldens', with a transformer of 100 to 150 million parameters. Real sizes
are only planned, from their configurations.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/pipelines"

PLANS = {
    "one rank": "",
    "pipe 2": "--pipefusion-parallel-degree 2",
    "pipe 4": "--pipefusion-parallel-degree 4",
    "ulysses 2": "--ulysses-degree 2",
    "pipe 4 × ulysses 2": "--pipefusion-parallel-degree 4 --ulysses-degree 2",
}
CFG = {"cfg 2": "--use-cfg-parallel", "cfg 2 × pipe 2": "--use-cfg-parallel --pipefusion-parallel-degree 2"}
LINEAR = {"pipe 4, linear": "--pipefusion-parallel-degree 4 --pipefusion-placement linear"}
TRUE_CFG = "--true-cfg-scale 3 --negative-prompt green"

CLIP = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768}
CLIP_2 = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32, "projection_dim": 1280}
T5 = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24}
VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32}
SD3_TEXT = {"text_encoder": CLIP, "text_encoder_2": CLIP_2, "text_encoder_3": T5}


def sd3(**fields):
    """The transformer's configuration of a model of the hub, beside what all have."""
    width = 64 * fields["num_attention_heads"]
    shared = {"attention_head_dim": 64, "caption_projection_dim": width, "joint_attention_dim": 4096, "sample_size": 128}
    return shared | {"pooled_projection_dim": 2048, "pos_embed_max_size": 192, "dual_attention_layers": [], "qk_norm": None} | fields


REAL = {
    "FLUX.1-dev": (
        "flux-dev",
        {
            "transformer": {
                "attention_head_dim": 128,
                "axes_dims_rope": [16, 56, 56],
                "joint_attention_dim": 4096,
                "num_attention_heads": 24,
                "num_layers": 19,
                "num_single_layers": 38,
                "pooled_projection_dim": 768,
            },
            "text_encoder": CLIP,
            "text_encoder_2": T5,
        },
    ),
    "SD3-medium": ("sd35-medium", {"transformer": sd3(num_attention_heads=24, num_layers=24), **SD3_TEXT}),
    "SD3.5-medium": (
        "sd35-medium",
        {
            "transformer": sd3(
                num_attention_heads=24,
                num_layers=24,
                dual_attention_layers=list(range(13)),
                qk_norm="rms_norm",
                pos_embed_max_size=384,
            ),
            **SD3_TEXT,
        },
    ),
    "SD3.5-large": ("sd35-large", {"transformer": sd3(num_attention_heads=38, num_layers=38, qk_norm="rms_norm"), **SD3_TEXT}),
    "HunyuanDiT-v1.2": (
        "hunyuan-v1.2",
        {
            "transformer": {
                "attention_head_dim": 88,
                "cross_attention_dim": 1024,
                "cross_attention_dim_t5": 2048,
                "hidden_size": 1408,
                "mlp_ratio": 4.3637,
                "num_attention_heads": 16,
                "num_layers": 40,
                "pooled_projection_dim": 1024,
                "sample_size": 128,
            },
            "text_encoder": {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
            },
            "text_encoder_2": {"d_model": 2048, "d_ff": 5120, "d_kv": 64, "num_heads": 32, "num_layers": 24},
        },
    ),
}
"""A golden pipeline, and what differs from it in the configurations of the hub's."""

RUN = {
    "Flux": (
        "flux-dev",
        "FluxTransformer2DModel",
        {
            "attention_head_dim": 64,
            "axes_dims_rope": [16, 24, 24],
            "num_attention_heads": 8,
            "num_layers": 6,
            "num_single_layers": 12,
        },
    ),
    "SD3.5 (6 dual blocks)": (
        "sd35-medium",
        "SD3Transformer2DModel",
        {
            "attention_head_dim": 64,
            "caption_projection_dim": 512,
            "num_attention_heads": 8,
            "num_layers": 12,
            "dual_attention_layers": list(range(6)),
            "pos_embed_max_size": 64,
        },
    ),
    "HunyuanDiT": (
        "hunyuan-v1.2",
        "HunyuanDiT2DModel",
        {"attention_head_dim": 64, "hidden_size": 512, "num_attention_heads": 8, "num_layers": 24, "mlp_ratio": 4.0},
    ),
}
"""A golden pipeline, its transformer's class, and how that is made wider."""


def change(file: Path, fields: dict) -> dict:
    config = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps(config))
    return config


def planned(folder: Path, base: str, components: dict):
    """A folder of configurations only."""
    shutil.copytree(GOLDEN / base, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    for component, fields in {"vae": VAE, **components}.items():
        change(folder / component / "config.json", fields)


def widened(folder: Path, base: str, family: str, fields: dict, dtype: str):
    """A golden pipeline with a wider transformer of random weights."""
    import diffusers
    import torch

    shutil.copytree(GOLDEN / base, folder, ignore=shutil.ignore_patterns("diffusion_pytorch_model*"))
    shutil.copytree(GOLDEN / base / "vae", folder / "vae", dirs_exist_ok=True)
    config = change(folder / "transformer" / "config.json", fields)
    config = {name: value for name, value in config.items() if not name.startswith("_")}
    torch.manual_seed(0)
    model = getattr(diffusers, family)(**config).to({"f32": torch.float32, "bf16": torch.bfloat16}[dtype])
    model.save_pretrained(folder / "transformer")


def shown(count: float) -> str:
    """Bytes in binary units, three digits."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1000:
            break
        count /= 1024
    else:
        unit = "GiB"
    return f"{count:.3g} {unit}" if count else "0"


def span(values) -> str:
    """One value, or the least and the most."""
    least, most = min(values), max(values)
    return shown(most) if shown(least) == shown(most) else f"{shown(least)} – {shown(most)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=ROOT / "target/release/xdit-cli", type=Path)
    parser.add_argument("--dtype", default="bf16", choices=["f32", "bf16"])
    parser.add_argument("--model", nargs="+", help="only the models whose names begin so")
    args = parser.parse_args()

    def wanted(models):
        asked = tuple(args.model or [""])
        return enumerate((name, of) for name, of in models.items() if name.startswith(asked))

    def json_of(command, folder, words):
        line = [str(args.binary), command, "--model", str(folder), "--json", "--dtype", args.dtype, *words.split()]
        done = subprocess.run(line, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ)
        return json.loads(done.stdout)

    def bytes_of(ranks):
        return [[rank[field] for rank in ranks] for field in ("parameter_bytes", "kv_bytes")]

    with tempfile.TemporaryDirectory() as temporary:
        temporary = Path(temporary)
        print("| model | plan | parameters a rank, planned | measured | keys and values, planned | measured | process at most, planned | peak resident |")
        print("|---|---|---|---|---|---|---|---|")
        for number, (name, (base, family, fields)) in wanted(RUN):
            folder = temporary / f"run{number}"
            widened(folder, base, family, fields, args.dtype)
            call = "--height 256 --width 256 --num-inference-steps 3"
            hunyuan = base.startswith("hunyuan")
            call += " --no-use-resolution-binning" if hunyuan else " --max-sequence-length 16"
            for plan, words in {**PLANS, **CFG, **(LINEAR if hunyuan else {})}.items():
                if plan in CFG and base == "flux-dev":
                    words, plan = f"{words} {TRUE_CFG}", f"{plan}, true CFG"
                foretold = json_of("plan", folder, f"{call} {words}")
                output = temporary / f"{number} {plan}.png".replace(" ", "-")
                done = json_of("generate", folder, f"{call} {words} --prompt circle --output {output}")
                told, seen = bytes_of(foretold["ranks"]), bytes_of(done["ranks"]["memory"])
                cells = [span(told[0]), span(seen[0]), span(told[1]), span(seen[1])]
                cells += [shown(foretold["memory"]["total"]), shown(done["peak_memory_bytes"])]
                print(f"| {name} | {plan} | " + " | ".join(cells) + " |", flush=True)
        print("\n| model, 1024×1024, 28 steps | plan | parameters a rank | keys and values | all ranks |")
        print("|---|---|---|---|---|")
        for number, (name, (base, components)) in wanted(REAL):
            folder = temporary / f"real{number}"
            planned(folder, base, components)
            call = "--height 1024 --width 1024 --num-inference-steps 28"
            more = {"flux-dev": {}, "hunyuan-v1.2": {**CFG, **LINEAR}}.get(base, CFG)
            for plan, words in {**PLANS, **more}.items():
                foretold = json_of("plan", folder, f"{call} {words}")
                told, totals = bytes_of(foretold["ranks"]), foretold["totals"]
                cells = [span(told[0]), span(told[1]), shown(totals["parameter_bytes"] + totals["kv_bytes"])]
                print(f"| {name} | {plan} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
