"""PyTorch's side of the benchmark of `ci/gpu.sh`: the cases of cases.json, measured as gpu-bench measures them.

    python bench_torch.py [--smoke] [--round N]

Prints one JSON line for each case and variant: attention by SDPA's cuDNN and flash backends, other kernels eagerly and
compiled, FLUX.1-dev's transformer by diffusers, compiled. What is not installed, or does not run here, is a line that says so.
Without a GPU only `--smoke` runs, on the processor.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from pathlib import Path

CASES = Path(__file__).resolve().parent / "cases.json"
WARM_UP, REPEATS = 3, 20
FLUSH = 64 << 20
"""Numbers that are written before each sample, more than any cache holds."""


def say(**line):
    print(json.dumps({"kind": "bench", "side": "torch", **line}), flush=True)


def skip_all(reason):
    say(skipped=reason)
    sys.exit(0)


try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    skip_all(f"torch is not installed in {sys.executable}: {error}")


def one_line(error):
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:400]


def version(name):
    try:
        return importlib.import_module(name).__version__
    except ImportError:
        return None


class Timer:
    """Takes samples on the GPU itself, or of the processor."""

    def __init__(self, device, smoke):
        self.device = device
        self.flush = torch.empty(64 if smoke else FLUSH, device=device)

    def sample(self, run):
        if self.device.type != "cuda":
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        self.flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def summary(samples):
    return {
        "median_s": statistics.median(samples),
        "least_s": min(samples),
        "greatest_s": max(samples),
        "repeats": len(samples),
    }


def attention(case, device):
    """A variant for each backend; torch's layout is [b, heads, tokens, d]."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    shape = (1, case["heads"], case["tokens"], case["d"])
    q, k, v = (torch.rand(shape, device=device, dtype=torch.bfloat16) * 2 - 1 for _ in range(3))

    def run(backend):
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v)

    if device.type != "cuda":
        return {"math": lambda: run(SDPBackend.MATH)}
    return {"cudnn": lambda: run(SDPBackend.CUDNN_ATTENTION), "flash": lambda: run(SDPBackend.FLASH_ATTENTION)}


def rotate(x, cos, sin):
    """As diffusers' apply_rotary_emb for Flux: neighbours are a pair."""
    real, imaginary = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack([-imaginary, real], dim=-1).flatten(3)
    return (x.float() * cos + turned.float() * sin).to(x.dtype)


def kernel(case, device):
    """A function of tensors, and the tensors."""

    def of(*shape, dtype=torch.bfloat16):
        return (torch.rand(shape, device=device) * 2 - 1).to(dtype)

    op = case["op"]
    if op == "linear":
        tensors = of(case["rows"], case["k"]), of(case["n"], case["k"]), of(case["n"])
        return F.linear, tensors
    if op == "conv2d":
        side, c = case["side"], case["c"]
        x = of(1, c, side, side).to(memory_format=torch.channels_last)
        weight = of(c, c, 3, 3).to(memory_format=torch.channels_last)
        return lambda x, w, b: F.conv2d(x, w, b, padding=1), (x, weight, of(c))
    if op == "group_norm_silu":
        side, c = case["side"], case["c"]
        x = of(1, c, side, side).to(memory_format=torch.channels_last)
        return lambda x, w, b: F.silu(F.group_norm(x, 32, w, b, 1e-6)), (x, of(c), of(c))
    if op == "qk_norm_rope":
        rows, heads, d = case["rows"], case["heads"], case["d"]
        tensors = of(1, rows, 3, heads, d), of(d), of(rows, 1, d, dtype=torch.float32)

        def run(qkv, weight, table):
            q, k, v = qkv.unbind(2)
            norm = lambda x: rotate(F.rms_norm(x, x.shape[-1:], weight, 1e-6), table, table)
            return norm(q), norm(k), v.contiguous()

        return run, tensors
    rows, c = case["rows"], case["c"]
    x = of(1, rows, c)
    if op == "copy":
        return lambda out, x: out.copy_(x), (torch.empty_like(x), x)
    if op == "layer_norm_modulate":
        run = lambda x, shift, scale: F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
        return run, (x, of(1, 1, c), of(1, 1, c))
    if op == "gate_residual":
        return lambda x, gate, y: y + gate * x, (x, of(1, 1, c), of(1, rows, c))
    if op == "gelu":
        return lambda x: F.gelu(x, approximate="tanh"), (x,)
    if op == "softmax":
        return lambda x: F.softmax(x, dim=-1), (x,)
    return None


def variants(case, device, compiled):
    """Functions to measure, by variant."""
    if case["op"] == "attention":
        return attention(case, device)
    found = kernel(case, device)
    if found is None:
        return {}
    run, tensors = found
    all_of_them = {"eager": lambda: run(*tensors)}
    # Products and copies are library calls, compiled or not.
    if compiled and case["op"] not in ("linear", "conv2d", "copy"):
        fused = torch.compile(run)
        all_of_them["compile"] = lambda: fused(*tensors)
    return all_of_them


def measure_kernels(cases, device, smoke, number):
    timer, runs = Timer(device, smoke), []
    for case in cases:
        try:
            for variant, run in variants(case, device, device.type == "cuda").items():
                runs.append((case, variant, run, []))
        except Exception as error:  # whatever it is, the other cases run
            say(case=case["name"], round=number, error=one_line(error))
    repeats = 2 if smoke else REPEATS
    for turn in range(WARM_UP + repeats):
        for entry in list(runs):
            case, variant, run, samples = entry
            try:
                sample = timer.sample(run)
            except Exception as error:  # a backend that does not take this shape or this GPU
                say(case=case["name"], variant=variant, round=number, skipped=one_line(error))
                runs.remove(entry)
                continue
            if turn >= WARM_UP:
                samples.append(sample)
    for case, variant, _, samples in runs:
        say(case=case["name"], variant=variant, round=number, **summary(samples))


def flux_step(case, device, smoke, number):
    from diffusers import FluxTransformer2DModel

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = FluxTransformer2DModel(**case["config"]).eval()
    finally:
        torch.set_default_dtype(before)
    config, side, text = case["config"], case["side"], case["text"]

    def of(*shape):
        return (torch.rand(shape, device=device) * 2 - 1).to(torch.bfloat16)

    positions = torch.arange(side * side, device=device)
    ids = torch.stack([torch.zeros_like(positions), positions // side, positions % side], dim=-1).to(torch.bfloat16)
    inputs = {
        "hidden_states": of(1, side * side, 64),
        "encoder_hidden_states": of(1, text, config["joint_attention_dim"]),
        "pooled_projections": of(1, config["pooled_projection_dim"]),
        "timestep": torch.tensor([0.7], device=device, dtype=torch.bfloat16),
        "guidance": torch.tensor([3.5], device=device, dtype=torch.float32),
        "img_ids": ids,
        "txt_ids": torch.zeros(text, 3, device=device, dtype=torch.bfloat16),
        "return_dict": False,
    }
    timer, (warm_up, repeats) = Timer(device, smoke), (1, 2) if smoke else (2, 7)
    models = {"eager": model}
    if device.type == "cuda":
        models["compile"] = torch.compile(model)
    for variant, module in models.items():
        try:
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            with torch.inference_mode():
                samples = [timer.sample(lambda: module(**inputs)) for _ in range(warm_up + repeats)][warm_up:]
            peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
            say(case=case["name"], variant=variant, round=number, peak_bytes=peak, **summary(samples))
        except Exception as error:  # without a compiler, the eager model still counts
            say(case=case["name"], variant=variant, round=number, skipped=one_line(error))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see whether it runs")
    parser.add_argument("--round", type=int, default=1)
    args = parser.parse_args()
    if not torch.cuda.is_available() and not args.smoke:
        skip_all("torch sees no GPU")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    versions = {name: version(name) for name in ("torch", "triton", "diffusers", "transformers")}
    print(json.dumps({"kind": "versions", "round": args.round, **versions, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}))
    torch.manual_seed(0)
    cases = json.loads(CASES.read_text())
    if args.smoke:
        cases = [{**case, **case["smoke"]} for case in cases]
    with torch.inference_mode():
        measure_kernels([case for case in cases if case["op"] != "flux_step"], device, args.smoke, args.round)
    for case in cases:
        if case["op"] != "flux_step":
            continue
        if versions["diffusers"] is None:
            say(case=case["name"], round=args.round, skipped="diffusers is not installed")
            continue
        try:
            flux_step(case, device, args.smoke, args.round)
        except Exception as error:  # out of memory, for example
            say(case=case["name"], round=args.round, error=one_line(error))


if __name__ == "__main__":
    main()
