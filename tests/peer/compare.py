"""Runs the engine's kernels and PyTorch's in turns, in one session, and prints ratios of medians.

    cargo build --release -p xdit-tests --bin peer
    python tests/peer/compare.py --suite linear attention      # or: all
    python tests/peer/compare.py --suite process               # whole processes, start to PNG
    python tests/peer/compare.py --suite ranks                 # several ranks beside one, without PyTorch
    python tests/peer/compare.py --suite pipelines             # whole calls of the goldens' pipelines, and how alike they are
    python tests/peer/compare.py --suite demo blocks ranks pipelines --before OLD/target/release/peer  # two versions of the engine
    python tests/peer/compare.py --tier avx2                   # as on a processor that has nothing wider than AVX2

A ratio above 1 means that the engine is faster. With `--before` an older build of the engine takes PyTorch's place. Both sides have the same number of threads. Between samples the driver
sleeps, so that the other side's idle threads have stopped spinning.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAUSE = 0.03

PEERS = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "avx512": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
    "avx512-bf16": {},
}
"""For each tier of ours, the environment that keeps PyTorch and the libraries that it calls to the same instructions."""


class Server:
    """The Rust side: makes operations and runs them, one JSON object a line each way."""

    def __init__(self, binary, args):
        self.tier = {"tier": args.tier} if args.tier else {}
        command = [str(binary), str(args.threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, request):
        self.process.stdin.write(json.dumps({**self.tier, **request}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the server ended at {request}")
        answer = json.loads(line)
        if "error" in answer:
            sys.exit(f"{request}: {answer['error']}")
        return answer

    def sample(self, made, reps):
        return self.call({"op": "run", "id": made["id"], "reps": reps})["ns"] / 1e9 / reps


def torch_sample(call, reps):
    start = time.perf_counter()
    for _ in range(reps):
        call()
    return (time.perf_counter() - start) / reps


def enough(sample):
    """Calls that take a tenth of a second, after a third of one: threads that slept need some milliseconds to be at speed,
    and the system some more to give each a core of its own."""
    began = time.perf_counter()
    while time.perf_counter() - began < 0.3:
        seconds = sample(1)
    return max(1, round(0.1 / seconds))


def compare(servers, request, make, rounds):
    """Median seconds of each side, sampled in turns."""
    import torch

    with torch.inference_mode():
        call = make()
        sides = []
        for server in servers:
            made = server.call(request)
            sides.append(lambda n, s=server, m=made: s.sample(m, n))
        sides.append(lambda n: torch_sample(call, n))
        reps = [enough(side) for side in sides]
        samples = [[] for _ in sides]
        for _ in range(rounds):
            for times, side, n in zip(samples, sides, reps):
                time.sleep(PAUSE)
                side(-(-n // 4))  # not counted: threads that slept are on cores of their own again after it
                times.append(side(n))
    for server in servers:
        server.call({"op": "drop"})
    return [statistics.median(t) for t in samples]


PYTHON_RUN = """
import sys, torch
from diffusers import FluxPipeline
torch.set_num_threads(int(sys.argv[3]))
pipe = FluxPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
image = pipe("a red circle on a blue background", height=256, width=256, num_inference_steps=20,
             max_sequence_length=24, generator=torch.Generator("cpu").manual_seed(42)).images[0]
image.save(sys.argv[2])
"""


def process(args):
    """Whole processes from start to PNG: the binary against Python, in turns."""
    binary = ROOT / args.target / "release" / "xdit-cli"
    demo = ROOT / "xdit-models/demo/flux"
    with tempfile.TemporaryDirectory() as out:
        commands = [
            [str(binary), "generate", "--prompt", "a red circle on a blue background", "--threads", str(args.threads)]
            + ["--quiet", "--output", f"{out}/rust.png"]
            + (["--cpu-tier", args.tier] if args.tier else []),
            [sys.executable, "-c", PYTHON_RUN, str(demo), f"{out}/python.png", str(args.threads)],
        ]
        samples = [[], []]
        for _ in range(min(args.rounds, 7)):
            for times, command in zip(samples, commands):
                start = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                times.append(time.perf_counter() - start)
    ours, theirs = (statistics.median(t) for t in samples)
    print("| process start to PNG, f32 | xdit-cli s | Python s | ratio |\n|---|---|---|---|")
    print(f"| demo image, 256×256, 20 steps | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |")


def ranks(args):
    """The same work on one rank with all threads and on several that share them, in turns."""
    server = Server(ROOT / args.target / "release" / "peer", args)
    block = {"op": "flux_blocks", "image_tokens": 1024, "text_tokens": 256}
    works = [("demo, 512×512, 20 steps", {"op": "demo", "side": 512}), ("Flux double + single block, 1024 + 256 tokens", block)]
    plans = [("one rank", 1, 1), ("ulysses 2", 2, 1), ("ring 2", 1, 2)]
    print("| work | dtype | plan | ms | of one rank's |\n|---|---|---|---|---|")
    for label, request in works:
        for dtype in args.dtype:
            made = [server.call({**request, "dtype": dtype, "ulysses": u, "ring": r}) for _, u, r in plans]
            samples = [[] for _ in plans]
            for which in made:
                server.sample(which, 1)
            for _ in range(args.rounds):
                for times, which in zip(samples, made):
                    time.sleep(PAUSE)
                    times.append(server.sample(which, 1))
            server.call({"op": "drop"})
            medians = [statistics.median(t) for t in samples]
            for (plan, _, _), median in zip(plans, medians):
                print(f"| {label} | {dtype} | {plan} | {median * 1e3:.1f} | {median / medians[0]:.3f} |", flush=True)


def before(args, names):
    """Two builds of the engine on every row of the suites, in turns: the median of the pairs' ratios, and the quartiles."""
    import cases

    suites = cases.suites(str(ROOT / "xdit-models/demo/flux"))
    rows = {name: [(label, request) for label, request, _ in suites[name]] for name in suites}
    blocks = {"op": "flux_blocks", "image_tokens": 1024, "text_tokens": 256}
    rows["ranks"] = [
        (f"{label}, {plan}", {**request, "dtype": dtype, "ulysses": u, "ring": r})
        for label, request in [("demo 512×512", {"op": "demo", "side": 512}), ("Flux blocks", blocks)]
        for dtype in args.dtype
        for plan, u, r in [("one rank", 1, 1), ("ulysses 2", 2, 1), ("ring 2", 1, 2)]
    ]
    rows["pipelines"] = [
        (label, {"op": "pipeline", "dtype": dtype, "folder": folder, "call": call})
        for label, folder, call in cases.pipelines(ROOT / "tests/golden/pipelines")
        for dtype in args.dtype
    ]
    now = Server(ROOT / args.target / "release" / "peer", args)
    servers = [Server(args.before, args), now]
    print("| suite | row | dtype | before ms | now ms | before/now | quartiles |\n|---|---|---|---|---|---|---|")
    for name in names:
        for label, request in rows[name]:
            if request["dtype"] not in args.dtype:
                continue
            made = [server.call(request) for server in servers]
            sides = [lambda n, s=s, m=m: s.sample(m, n) for s, m in zip(servers, made)]
            reps = [enough(side) for side in sides]
            samples = [[] for _ in sides]
            for turn in range(args.rounds):
                for which in (0, 1) if turn % 2 == 0 else (1, 0):
                    time.sleep(PAUSE)
                    sides[which](-(-reps[which] // 4))  # not counted, as in `compare`
                    samples[which].append(sides[which](reps[which]))
            for server in servers:
                server.call({"op": "drop"})
            old, new = (statistics.median(times) for times in samples)
            ratios = [a / b for a, b in zip(*samples)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            shown = f"{old * 1e3:.3f} | {new * 1e3:.3f} | {middle:.3f} | {low:.3f}–{high:.3f}"
            print(f"| {name} | {label} | {request['dtype']} | {shown} |", flush=True)


def psnr(a, b):
    """dB between pictures whose values span [0, 1]."""
    import numpy as np

    error = np.mean((np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)) ** 2)
    return float("inf") if error == 0 else -10 * np.log10(error)


def pipelines(args):
    """Whole calls against diffusers' in turns, in each dtype; then how near both are to diffusers in f32, and to each other."""
    import torch

    import cases

    torch.set_num_threads(args.threads)
    server = Server(ROOT / args.target / "release" / "peer", args)
    print("| pipeline | dtype | xdit ms | torch ms | torch/xdit | PSNR xdit–torch | xdit–torch f32 | torch–torch f32 |")
    print("|---|---|---|---|---|---|---|---|")
    for label, folder, call in cases.pipelines(ROOT / "tests/golden/pipelines"):
        with torch.inference_mode():
            exact = cases.pipeline(torch.float32, folder, call)()
        for dtype in args.dtype:
            request = {"op": "pipeline", "dtype": dtype, "folder": folder, "call": call}
            theirs = cases.pipeline(cases.DTYPES[dtype], folder, call)
            medians = compare([server], request, lambda made=theirs: made, args.rounds)
            with torch.inference_mode():
                picture = theirs()
            values = server.call({**request, "op": "picture"})["values"]
            ours = torch.tensor(values).reshape(1, 3, call["height"], call["width"]).permute(0, 2, 3, 1).numpy()
            alike = [psnr(ours, picture), psnr(ours, exact), psnr(picture, exact)]
            shown = [f"{m * 1e3:.1f}" for m in medians] + [f"{medians[1] / medians[0]:.2f}"] + [f"{a:.1f} dB" for a in alike]
            print(f"| {label} | {dtype} | " + " | ".join(shown) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", nargs="+", default=["all"])
    parser.add_argument("--dtype", nargs="+", default=["f32", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--target", default="target", help="cargo's target folder")
    parser.add_argument("--before", help="the binary `peer` of an older build: compare the two builds, without PyTorch's times")
    parser.add_argument("--tier", choices=PEERS, help="the instructions that both sides use; the widest by default")
    parser.add_argument("--candle", help="the candle peer's binary, for the suite `blocks`")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ |= PEERS.get(args.tier, {})  # before torch is imported, which reads it

    tier = f", tier {args.tier}" if args.tier else ""
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    print(f"{time.strftime('%Y-%m-%d')}, {cpu}, {os.cpu_count()} cores, {args.threads} threads a side{tier}")
    names = ["linear", "attention", "rows", "conv", "blocks", "sd3", "hunyuan", "demo", "process", "ranks", "pipelines"] if "all" in args.suite else args.suite
    if args.before:
        before(args, [name for name in names if name != "process"])
        return
    for name, suite in (("process", process), ("ranks", ranks), ("pipelines", pipelines)):
        if name in names:
            suite(args)
    names = [name for name in names if name not in ("process", "ranks", "pipelines")]
    if not names:
        return

    import torch

    import cases

    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    suites = cases.suites(str(ROOT / "xdit-models/demo/flux"))
    binary = ROOT / args.target / "release" / "peer"
    for name in names:
        server = Server(binary, args)
        servers = [server]
        columns = ["xdit ms"]
        if name == "blocks" and args.candle:
            servers.append(Server(args.candle, args))
            columns.append("candle ms")
        ratios = ["torch/xdit"] + (["candle/xdit"] if len(servers) > 1 else [])
        print(f"\n| {name} | dtype | " + " | ".join(columns + ["torch ms"] + ratios) + " |")
        print("|---" * (3 + len(columns) + len(ratios)) + "|")
        for label, request, make in suites[name]:
            if request["dtype"] not in args.dtype:
                continue
            if args.tier == "avx2" and request["dtype"] == "bf16" and "NCHW" in label:
                # A minute a call.
                print(f"{label}, bf16: left out, oneDNN has no such kernel for AVX2", file=sys.stderr)
                continue
            medians = compare(servers, request, make, args.rounds)
            shown = [f"{m * 1e3:.3f}" for m in medians]
            shown.append(f"{medians[-1] / medians[0]:.2f}")
            if len(servers) > 1:
                shown.append(f"{medians[1] / medians[0]:.2f}")
            print(f"| {label} | {request['dtype']} | " + " | ".join(shown) + " |", flush=True)


if __name__ == "__main__":
    main()
