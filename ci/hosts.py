#!/usr/bin/env python3
"""Pictures over two hosts, started by mpirun, and what travels between them. ci/netns.sh makes the hosts.

    ci/hosts.py PROGRAM            PROGRAM is mpi-pictures (tests/mpi): the picture is that of threads, the bytes those of the formulas
    ci/hosts.py PROGRAM measure    the time of a step of each plan, in turns, as a table (docs/benchmarks/processes.md)

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
import signal
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.abspath(sys.argv[1])
# What is between the hosts.
AXES = {"ring": "ring across hosts", "ulysses": "ulysses across hosts", "pipe": "stages on both hosts"}
# What a link carries beside the messages, at most. TCP, IP and Ethernet put 66 bytes before each packet of up to 8948 bytes, and
# answer each with 66: 1.5 %. Where a message ends, a packet is not full; Open MPI precedes each message and each of its pieces by
# less than 100 bytes and asks before it sends a long one: less than 2 KiB a message and its answers. Of the control plane, a rank
# tells rank 0 each call in less than 200 bytes.
PARTS, EACH = 0.02, 2048
# Of the demo (`xdit-cli info`, `xdit-cli plan`): blocks and width of the transformer, tokens of the text, channels of a token's latents.
BLOCKS, WIDTH, TEXT, LATENTS = 8, 128, 24, 64


def netns(*words):
    return subprocess.run([f"{HERE}/netns.sh", *words], check=True, capture_output=True, text=True).stdout.strip()


def draw(axis, size, steps):
    """Draws over both hosts. Returns what rank 0 says, and the bytes that the link carried."""
    mpirun = ["mpirun.openmpi", "-H", "one:2,two:2", "-n", "4", "--mca", "plm_rsh_agent", f"{HERE}/netns.sh agent"]
    before = int(netns("bytes"))
    done = subprocess.run(
        [f"{HERE}/netns.sh", "on", "one", *mpirun, PROGRAM, "link", axis, str(size), str(steps), "10.77.0.1"],
        capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise SystemExit(f"{AXES[axis]}: {done.stderr}{done.stdout}")
    said = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    return json.loads(said), int(netns("bytes")) - before


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
    for axis, name in AXES.items():
        (a, before), (b, after) = draw(axis, size, few), draw(axis, size, many)
        expected = (many - few) * of_a_step(axis, size)
        counted, calls = b["bytes"] - a["bytes"], b["calls"] - a["calls"]
        most = expected * (1 + PARTS) + EACH * calls
        carried = after - before
        line = f"{name}: {of_a_step(axis, size)} bytes a step by the formula; the link carried {carried / expected - 1:+.2%}"
        print(line, flush=True)
        if counted != expected or not expected <= carried <= most:
            raise SystemExit(f"{name}: counted {counted}, expected {expected}, carried {carried}, allowed {most} for {calls} calls")


def measure():
    few, many, size, turns = 2, 8, 512, 3
    seconds = {axis: [] for axis in AXES}
    for _ in range(turns):
        for axis in AXES:
            # The difference of two runs has no start in it.
            a, b = draw(axis, size, few)[0], draw(axis, size, many)[0]
            seconds[axis].append((b["seconds"] - a["seconds"]) / (many - few))
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {size}×{size}, {turns} turns; load {os.getloadavg()[0]:.1f}")
    print("| plan | s a step, median (least to most) | MB a step over the link |\n|---|---|---|")
    for axis, times in seconds.items():
        times.sort()
        carried = of_a_step(axis, size) / 1e6
        print(f"| {AXES[axis]} | {statistics.median(times):.3f} ({times[0]:.3f} to {times[-1]:.3f}) | {carried:.2f} |")


def main():
    # The hosts go whatever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.setdefault("XDIT_NETNS", f"xdit{os.getpid()}")
    up = subprocess.run([f"{HERE}/netns.sh", "up"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if up.returncode == 3:
        print(f"two hosts: left out, {up.stderr.strip()}")
        return
    if up.returncode != 0:
        netns("down")
        raise SystemExit(up.stderr)
    print(f"two hosts: the link is {up.stdout.strip()}", flush=True)
    try:
        (measure if "measure" in sys.argv[2:] else check)()
    finally:
        netns("down")


if __name__ == "__main__":
    main()
