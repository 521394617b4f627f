#!/usr/bin/env python3
"""Pictures over two hosts, started by mpirun, and what travels between them. ci/netns.sh makes the hosts.

    ci/hosts.py PROGRAM            the picture is that of threads, and the bytes on the link are those of the formulas
    ci/hosts.py PROGRAM measure    the time of a step of each plan, in turns, as a table (docs/benchmarks/processes.md)

The formulas, for one step of one picture of L tokens of width D in f32, through B blocks (one attention each), over 2 × 2 ranks:

    ring across hosts       each of 4 ranks passes on keys and values of half the tokens for half the heads, once a block:
                            4 · B · 2 · L/2 · D/2 · 4 bytes
    ulysses across hosts    each of 4 ranks gives away half of its quarter of q, k, v, and later of the output:
                            4 · B · 4 · L/4 · D/2 · 4 bytes
    stages on both hosts    the rows of all tokens to the next stage, the noise of the image's tokens back (`plan --json`)

The difference of two runs with different numbers of steps counts only steps: starting, encoding and the picture are the same in both.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.abspath(sys.argv[1])
USP = ["--ulysses-degree", "2", "--ring-degree", "2"]
TURNED = ["--mesh-order", "data,cfg,pipe,ulysses,ring"]
# Name, flags, the axis between hosts, and further flags of mpirun.
PLANS = [
    ("ring across hosts", USP, "ring", []),
    ("ring across hosts, ranks dealt round-robin", USP, "ring", ["--map-by", "node"]),
    ("ulysses across hosts", USP + TURNED, "ulysses", []),
    ("stages on both hosts", ["--pipefusion-parallel-degree", "2", "--ulysses-degree", "2", "--num-pipeline-patch", "2"], "pipe", []),
]
# What a link carries beside the messages, at most. TCP, IP and Ethernet put 66 bytes before each packet of up to 8948 bytes, and
# answer each with 66: 1.5 %. Where a message ends, a packet is not full; Open MPI precedes each message and each of its pieces by
# less than 100 bytes and asks before it sends a long one: less than 2 KiB a message and its answers. Of the control plane, a rank
# tells rank 0 each call in less than 200 bytes.
PARTS, EACH = 0.02, 2048
# Of the demo's transformer (`xdit-cli info`).
BLOCKS, WIDTH = 8, 128


def netns(*words):
    return subprocess.run([f"{HERE}/netns.sh", *words], check=True, capture_output=True, text=True).stdout.strip()


def command(size, steps, flags):
    words = [PROGRAM, "generate", "--prompt", "a red circle on a blue background", "--threads", "1", "--json"]
    return words + ["--height", str(size), "--width", str(size), "--num-inference-steps", str(steps)] + flags


def draw(words, mapping, picture):
    """Draws over both hosts. Returns the report of rank 0 and the bytes that the link carried."""
    # `-H` gives the slots of each host, in their order.
    mpirun = ["mpirun.openmpi", "-H", "one:2,two:2", "-n", "4", "--mca", "plm_rsh_agent", f"{HERE}/netns.sh agent", *mapping]
    before = int(netns("bytes"))
    done = subprocess.run(
        [f"{HERE}/netns.sh", "on", "one", *mpirun, *words, "--output", picture],
        capture_output=True, text=True, timeout=300,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}{done.stdout}")
    return json.loads(done.stdout), int(netns("bytes")) - before


def sent(report, axis):
    """Bytes and calls of all ranks on an axis."""
    of_axis = [entry for entry in report["ranks"]["communication"] if entry["axis"] == axis]
    return sum(entry["bytes"] for entry in of_axis), sum(entry["calls"] for entry in of_axis)


def formula(words, axis, steps):
    plan = [words[0], "plan", *(word for word in words[2:])]
    plan = json.loads(subprocess.run(plan, check=True, capture_output=True, text=True).stdout)
    tokens = plan["text_tokens"] + plan["image_tokens"]
    if axis == "pipe":
        # The latents of the last step are not sent back.
        step = plan["links"]["patched_step"]
        return steps * (step["forward"]["bytes"] + step["back"]["bytes"])
    part = {"ring": 2 * tokens / 2 * WIDTH / 2, "ulysses": 4 * tokens / 4 * WIDTH / 2}[axis]
    return steps * BLOCKS * 4 * part * 4


def check(folder):
    few, many, size = 3, 9, 256
    for name, flags, axis, mapping in PLANS:
        picture, alone = f"{folder}/two.png", f"{folder}/threads.png"
        runs = {}
        for steps in (few, many):
            words = command(size, steps, flags)
            runs[steps] = draw(words, mapping, picture)
        subprocess.run([*words, "--output", alone], check=True, capture_output=True)
        with open(picture, "rb") as ours, open(alone, "rb") as threads:
            if ours.read() != threads.read():
                raise SystemExit(f"{name}: the picture is not that of threads")
        expected = formula(words, axis, many - few)
        counted, calls = (b - a for a, b in zip(sent(runs[few][0], axis), sent(runs[many][0], axis)))
        carried = runs[many][1] - runs[few][1]
        most = expected * (1 + PARTS) + EACH * calls
        line = f"{name}: {expected / (many - few):.0f} bytes a step by formula, the link carried {carried / expected - 1:+.2%}"
        print(line, flush=True)
        if counted != expected or not expected <= carried <= most:
            raise SystemExit(f"{line}: counted {counted}, expected {expected}, carried {carried}, allowed {most} for {calls} calls")


def measure(folder):
    size, steps, turns = 512, 8, 5
    seconds = {name: [] for name, *_ in PLANS}
    for _ in range(turns):
        for name, flags, _, mapping in PLANS:
            report, carried = draw(command(size, steps, flags), mapping, f"{folder}/a.png")
            # The first step also starts what later ones reuse.
            seconds[name].append((statistics.median(report["step_seconds"][1:]), carried))
    print(f"{time.strftime('%Y-%m-%d')}, {size}×{size}, {steps} steps, {turns} turns; load {os.getloadavg()[0]:.1f}")
    print("| plan | s/step, median (least – most) | MB on the link |\n|---|---|---|")
    for name, runs in seconds.items():
        times = sorted(run[0] for run in runs)
        print(f"| {name} | {statistics.median(times):.3f} ({times[0]:.3f} – {times[-1]:.3f}) | {runs[-1][1] / 1e6:.1f} |")


def main():
    os.environ.setdefault("XDIT_NETNS", f"xdit{os.getpid()}")
    up = subprocess.run([f"{HERE}/netns.sh", "up"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if up.returncode == 3:
        print(f"two hosts: left out, {up.stderr.strip()}")
        return
    if up.returncode != 0:
        raise SystemExit(up.stderr)
    print(f"two hosts: the link is {up.stdout.strip()}", flush=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            (measure if "measure" in sys.argv[2:] else check)(folder)
    finally:
        netns("down")


if __name__ == "__main__":
    main()
