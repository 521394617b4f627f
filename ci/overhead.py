#!/usr/bin/env python3
"""The time of a step on two processes with one core each, and on two threads of one process, in turns.

    ci/overhead.py PROGRAM [TURNS]        PROGRAM is xdit-cli with MPI

prints the median of each and the ratios of the medians and of the least, for the demo at 512×512 with --ulysses-degree 2
(docs/benchmarks/processes.md). `ci/processes.sh overhead [TURNS]` builds the program and lets root use mpirun.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

PROGRAM, TURNS = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10


def step(before, threads, folder):
    words = [PROGRAM, "generate", "--prompt", "a red circle", "--height", "512", "--width", "512", "--num-inference-steps", "8"]
    words += ["--ulysses-degree", "2", "--threads", str(threads), "--json", "--output", f"{folder}/a.png"]
    done = subprocess.run([*before, *words], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    # The first step also starts what later ones reuse.
    return statistics.median(json.loads(done.stdout)["step_seconds"][1:])


def main():
    # Each process has a core of its own here, other than ci/mpi-setup.sh has it. (Open MPI 5 heeds --bind-to above its variable.)
    os.environ.pop("OMPI_MCA_hwloc_base_binding_policy", None)
    mpirun = ["mpirun.openmpi", "-n", "2", "--bind-to", "core"]
    kinds = {"2 processes, 1 core each": (mpirun, 1), "2 threads": ([], 2)}
    seconds = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(TURNS):
            # Each goes first as often as the other.
            for kind in list(kinds)[:: 1 if turn % 2 else -1]:
                seconds[kind].append(step(*kinds[kind], folder))
    (processes, threads) = seconds.values()
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {TURNS} turns, load {os.getloadavg()[0]:.1f}")
    for kind, times in seconds.items():
        print(f"{kind}: {statistics.median(times):.3f} s a step ({min(times):.3f} to {max(times):.3f})")
    ratio = lambda of: of(processes) / of(threads)
    print(f"ratio of the medians: {ratio(statistics.median):.3f}, of the least: {ratio(min):.3f}")


if __name__ == "__main__":
    main()
