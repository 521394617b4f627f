#!/usr/bin/env python3
"""Pictures over two hosts, started by mpirun, and what travels between them.

    ci/hosts.py PROGRAM            PROGRAM is xdit-cli with MPI: the picture is that of threads, the bytes those of the formulas
    ci/hosts.py PROGRAM measure    the time of a step of each plan, in turns, as a table (docs/benchmarks/processes.md)

`ci/processes.sh hosts [measure]` builds the program and lets root use mpirun.

The formulas, for one step of one picture of L tokens of width D in f32, through B blocks (one attention each), over 2 × 2 ranks:

    ring across hosts       each of 4 ranks passes on keys and values of half the tokens for half the heads, once a block:
                            4 · B · 2 · L/2 · D/2 · 4 bytes
    ulysses across hosts    each of 4 ranks gives away half of its quarter of q, k, v, and later of the output:
                            4 · B · 4 · L/4 · D/2 · 4 bytes
    stages on both hosts    the rows of all tokens to the next stage (of 2), the noise of the image's tokens back:
                            (L · D + 64 · image tokens) · 4 bytes

The difference of two runs with different numbers of steps counts only steps: starting, encoding and the picture are the same in both.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from two_hosts import mpirun, netns, two_hosts

PROGRAM = os.path.abspath(sys.argv[1])
# What is between the hosts, and the plan that makes it so: the outer axis is.
PLANS = {
    "ring": ("ring across hosts", "--ulysses-degree 2 --ring-degree 2"),
    "ulysses": ("ulysses across hosts", "--ulysses-degree 2 --ring-degree 2 --mesh-order data,cfg,pipe,ulysses,ring"),
    "pipe": ("stages on both hosts", "--pipefusion-parallel-degree 2 --ulysses-degree 2 --num-pipeline-patch 2"),
}
# What a link carries beside the messages, at most. TCP, IP and Ethernet put 66 bytes before each packet of up to 8948 bytes, and
# answer each with 66: 1.5 %. Where a message ends, a packet is not full; Open MPI precedes each message and each of its pieces by
# less than 100 bytes and asks before it sends a long one: less than 2 KiB a message and its answers. Of the control plane, a rank
# tells rank 0 each call in less than 200 bytes.
PARTS, EACH = 0.02, 2048
# Of the demo (`xdit-cli info`, `xdit-cli plan`): blocks and width of the transformer, tokens of the text, channels of a token's latents.
BLOCKS, WIDTH, TEXT, LATENTS = 8, 128, 24, 64


def run(words, **options):
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}{done.stdout}")
    return json.loads(done.stdout)


def draw(axis, size, steps, compare=False):
    """Draws over both hosts. Returns what rank 0 reports, and the bytes that the link carried."""
    words = [PROGRAM, "generate", "--json", "--threads", "1", "--prompt", "a red circle on a blue background"]
    words += ["--height", str(size), "--width", str(size), "--num-inference-steps", str(steps), *PLANS[axis][1].split()]
    with tempfile.TemporaryDirectory() as folder:
        before = int(netns("bytes"))
        report = run([*mpirun(), *words, "--output", f"{folder}/hosts.png"])
        carried = int(netns("bytes")) - before
        if {it["host"] for it in report["processes"]} != {"one", "two"}:
            raise SystemExit(f"{axis}: the ranks are not on two hosts: {report['processes']}")
        if compare:
            run([*words, "--output", f"{folder}/threads.png"])
            with open(f"{folder}/hosts.png", "rb") as hosts, open(f"{folder}/threads.png", "rb") as threads:
                if hosts.read() != threads.read():
                    raise SystemExit(f"{PLANS[axis][0]}: the picture differs from that of threads")
    return report, carried


def sent(report, axis, what):
    """The bytes or the calls of all ranks on this axis."""
    return sum(it[what] for it in report["ranks"]["communication"] if it["axis"] == axis)


def of_a_step(axis, size):
    image = (size // 16) ** 2
    tokens = TEXT + image
    each = {
        "ring": 4 * BLOCKS * 2 * tokens // 2 * WIDTH // 2,
        "ulysses": 4 * BLOCKS * 4 * tokens // 4 * WIDTH // 2,
        "pipe": tokens * WIDTH + image * LATENTS,
    }
    return 4 * each[axis]


def check():
    few, many, size = 3, 9, 256
    for axis, (name, _) in PLANS.items():
        (a, before), (b, after) = draw(axis, size, few, compare=True), draw(axis, size, many)
        expected = (many - few) * of_a_step(axis, size)
        counted, calls = (sent(b, axis, what) - sent(a, axis, what) for what in ["bytes", "calls"])
        most = expected * (1 + PARTS) + EACH * calls
        carried = after - before
        print(
            f"{name}: the picture of threads; {of_a_step(axis, size)} bytes a step by the formula; "
            f"the link carried {carried / expected - 1:+.2%}", flush=True,
        )
        if counted != expected or not expected <= carried <= most:
            raise SystemExit(f"{name}: counted {counted}, expected {expected}, carried {carried}, allowed {most} for {calls} calls")


def measure():
    few, many, size, turns = 2, 8, 512, 3
    seconds = {axis: [] for axis in PLANS}
    for _ in range(turns):
        for axis in PLANS:
            # The difference of two runs has no start in it.
            a, b = (sum(draw(axis, size, steps)[0]["step_seconds"]) for steps in [few, many])
            seconds[axis].append((b - a) / (many - few))
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {size}×{size}, {turns} turns; load {os.getloadavg()[0]:.1f}")
    print("| plan | s a step, median (least to most) | MB a step over the link |\n|---|---|---|")
    for axis, times in seconds.items():
        times.sort()
        carried = of_a_step(axis, size) / 1e6
        print(f"| {PLANS[axis][0]} | {statistics.median(times):.3f} ({times[0]:.3f} to {times[-1]:.3f}) | {carried:.2f} |")


def main():
    with two_hosts() as link:
        if link:
            print(f"two hosts: the link is {link}", flush=True)
            (measure if "measure" in sys.argv[2:] else check)()


if __name__ == "__main__":
    main()
