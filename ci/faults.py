#!/usr/bin/env python3
"""Faults of ranks that are processes: at a random moment one of four is killed (SIGKILL) or stopped (SIGSTOP), two are cut off (the link
between two hosts goes down), or one cannot load its weights: a file cannot be read, ends too soon, or has a damaged header.

    ci/faults.py PROGRAM [--runs N] [--seed N]        PROGRAM is xdit-cli with MPI
    ci/processes.sh faults [--runs N] [--seed N]      builds it first, and lets root use mpirun

Each time, what is left says which rank is lost, all other processes end in time, none remains, the launcher's exit code is not 0, and
no part of a picture is left. The moments begin when the ranks have come together: before, the launcher alone knows them.
"""

import argparse
import collections
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

from two_hosts import HERE, mpirun, netns, two_hosts

RANKS = 4
# A process that has ended is lost at once; one that says nothing, after the control plane's 4 s of silence.
SILENCE, TOLD = 4.0, 5.0
TOGETHER, WRITTEN = "the ranks send tensors", "INFO written"
MODEL = f"{HERE}/../tests/golden/pipelines/flux-dev"
WEIGHTS = "transformer/diffusion_pytorch_model-00002-of-00003.safetensors"
KINDS = [("killed", "mpirun"), ("stopped", "launch"), ("cut off", "hosts"), ("without weights", "mpirun")]
KINDS += [("killed", "launch"), ("stopped", "mpirun"), ("cut off", "hosts"), ("without weights", "mpirun")]


def launcher(name, program, before):
    """The words that start the program on all ranks. `before` are those that start each of them."""
    words = [*before, program, "generate"]
    return {
        "mpirun": ["mpirun.openmpi", "-n", str(RANKS), *words],
        "launch": [program, "launch", "--nproc", str(RANKS), "--", "generate"],
        "hosts": [*mpirun(), *words],
    }[name]


class Run:
    """A run of the program on all ranks."""

    def __init__(self, name, program, folder, model="demo", before=()):
        self.mark = f"XDIT_FAULT={os.getpid()}-{time.monotonic_ns()}"
        self.lines, self.together = [], threading.Event()
        self.foreign = set()
        words = ["-v", "--prompt", "a red circle", "--model", model, "--threads", "1"]
        words += ["--height", "256", "--width", "256", "--num-inference-steps", "20", "--output", f"{folder}/a.png"]
        words += ["--ulysses-degree", "2", "--ring-degree", "2"]
        key, value = self.mark.split("=")
        self.launcher = subprocess.Popen(
            [*launcher(name, program, before), *words], env={**os.environ, key: value}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.launcher.stdout:
            self.lines.append((time.monotonic(), line.rstrip("\n")))
            if TOGETHER in line:
                self.together.set()

    def text(self):
        return "\n".join(line for _, line in self.lines)

    def processes(self):
        """All processes of the run: number and rank, which is None for those of launchers."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if pid in self.foreign:
                continue
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    environ = file.read().split(b"\0")
                with open(f"/proc/{pid}/stat") as file:
                    _, name, state = re.split(r"[()]+", file.read(), maxsplit=2)
            except OSError:
                continue
            # One that has just been started has its environment a moment later.
            if self.mark.encode() not in environ and environ != [b""]:
                self.foreign.add(pid)
            elif self.mark.encode() in environ and state.split()[0] not in "ZX":
                ranks = [it for it in environ if re.match(rb"(OMPI_COMM_WORLD_)?RANK=", it)]
                is_rank = ranks and name == "xdit-cli"
                found[int(pid)] = int(ranks[0].split(b"=")[1]) if is_rank else None
        return found

    def ranks(self):
        return {rank: pid for pid, rank in self.processes().items() if rank is not None}

    def ended(self, seconds):
        """The exit code of the launcher, after all that was said has been read. None, if it does not end."""
        try:
            code = self.launcher.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self.reader.join(5)
        return code

    def end(self):
        for pid in self.processes():
            # It may just have ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.launcher.kill()
        self.launcher.wait()


def wait_until(holds, seconds):
    """How long it took until this held, or None."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if holds():
            return time.monotonic() - began
        time.sleep(0.02)
    return None


def unfaulted(name, program, folder):
    """How long a run takes once its ranks are together."""
    run = Run(name, program, folder)
    try:
        code = run.ended(100)
    finally:
        run.end()
    times = [at for at, line in run.lines if TOGETHER in line or WRITTEN in line]
    if code != 0 or len(times) != 2:
        raise SystemExit(f"a run without a fault fails ({name}):\n{run.text()}")
    os.remove(f"{folder}/a.png")
    return times[1] - times[0]


def strike(kind, lost, run):
    """Makes the fault. Returns whether it was not too late."""
    pids = run.ranks()
    if len(pids) < RANKS or WRITTEN in run.text():
        return False
    if kind == "cut off":
        netns("cut")
        return True
    try:
        os.kill(pids[lost], {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}[kind])
    except ProcessLookupError:
        return False
    return True


def damage(folder):
    """Files that one rank will find in place of its weights."""
    with open(f"{MODEL}/{WEIGHTS}", "rb") as file:
        whole = file.read()
    # The digest by which ranks compare their files does not read the second of these pages.
    assert int.from_bytes(whole[:8], "little") > 5000
    damaged = {"short": whole[:-1000], "bad": whole[:5000] + b"########" + whole[5008:]}
    for name, content in damaged.items():
        with open(f"{folder}.{name}", "wb") as file:
            file.write(content)
    # Memory of a process that has ended cannot be read.
    return ["/proc/self/mem", *(f"{folder}.{name}" for name in damaged)]


def fault(kind, name, lost, moment, program, folder, instead):
    """Runs once. Returns whether all was right and a line about it, without a line if the fault came too late."""
    before, model = [], "demo"
    if kind == "without weights":
        # For this rank alone the file is another one.
        model = MODEL
        script = f'[ "$OMPI_COMM_WORLD_RANK" != {lost} ] || mount --bind {instead} {MODEL}/{WEIGHTS} && exec "$@"'
        before = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if kind == "cut off":
        # What the other host says does not come over a link that is down.
        script = f'case $OMPI_COMM_WORLD_RANK in [23]) exec 2>{folder}.said.$OMPI_COMM_WORLD_RANK;; esac; exec "$@"'
        before = ["sh", "-c", script, "sh"]
    run = Run(name, program, folder, model, before)
    try:
        if not run.together.wait(100):
            return False, f"the ranks do not come together:\n{run.text()}"
        if kind == "without weights":
            # The rank ends when it finds out.
            if wait_until(lambda: len(run.ranks()) < RANKS, 60) is None:
                return False, f"nobody ends:\n{run.text()}"
        else:
            time.sleep(moment)
            if not strike(kind, lost, run):
                # The picture was complete, or soon is.
                code = run.ended(60)
                if code == 0 and WRITTEN in run.text():
                    return True, None
                return False, f"it fails without a fault, exit code {code}:\n{run.text()}"
        others = lambda: [rank for rank in run.ranks() if rank != lost or kind != "stopped"]
        limit = TOLD + (SILENCE if kind in ["stopped", "cut off"] else 0)
        took = wait_until(lambda: not others(), limit)
        if took is None:
            return False, f"ranks {others()} still run {limit:.0f} s later:\n{run.text()}"
        if kind == "cut off":
            # mpirun itself needs the link to end what it has started on the other host.
            netns("mend")
        code = run.ended(30)
        if code is None:
            return False, f"the launcher does not end:\n{run.text()}"
        if wait_until(lambda: not run.processes(), 5) is None:
            return False, f"processes remain: {run.processes()}\n{run.text()}"
        if WRITTEN in run.text():
            # The picture was complete.
            return True, None
        if code == 0:
            return False, f"the exit code is 0:\n{run.text()}"
        return judge(kind, lost, run, took, folder)
    finally:
        if kind == "cut off":
            netns("mend")
        run.end()


def judge(kind, lost, run, took, folder):
    """What was said, and what is left."""
    names = lambda lost: re.compile(rf"error: .*rank {lost} \(")
    # Whoever is cut off has lost rank 0, and rank 0 has lost it.
    said = next((line for _, line in run.lines if names("[23]" if kind == "cut off" else lost).search(line)), None)
    if said is None:
        return False, f"no error names rank {lost}:\n{run.text()}"
    if kind == "cut off":
        for rank in [2, 3]:
            with open(f"{folder}.said.{rank}") as file:
                if not names(0).search(text := file.read()):
                    return False, f"rank {rank} does not name rank 0:\n{text}"
    if left := os.listdir(folder):
        return False, f"{left} is left"
    return True, f"after {took:.1f} s: {said[:150]}"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program", type=os.path.abspath)
    arguments.add_argument("--runs", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=17)
    asked = arguments.parse_args()
    dice = random.Random(asked.seed)
    failures, late, done = 0, 0, []
    with two_hosts() as link, tempfile.TemporaryDirectory() as outer:
        folder = f"{outer}/pictures"
        os.mkdir(folder)
        kinds = [it for it in KINDS if link or it[0] != "cut off"]
        damaged = damage(folder)
        mounts = ["unshare", "--mount", "mount", "--bind", damaged[0], damaged[1]]
        if subprocess.run(mounts, capture_output=True).returncode != 0:
            kinds = [it for it in kinds if it[0] != "without weights"]
            print("a rank without weights: left out, this machine does not let me make mounts of its own")
        length = {name: unfaulted(name, asked.program, folder) for name in {name for _, name in kinds}}
        lengths = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in length.items())
        print(f"{asked.runs} faults, seed {asked.seed}; a run without one takes: {lengths}", flush=True)
        while len(done) < asked.runs:
            kind, name = kinds[len(done) % len(kinds)]
            # A rank whose weights are not those of rank 0 is the one that is named.
            lost = 2 if kind == "cut off" else dice.randrange(kind == "without weights", RANKS)
            moment = dice.uniform(0, 0.9 * length[name])
            instead = dice.choice(damaged)
            good, line = fault(kind, name, lost, moment, asked.program, folder, instead)
            for left in os.listdir(folder):
                os.remove(f"{folder}/{left}")
            if line is None:
                late += 1
                if late > 10 + asked.runs:
                    raise SystemExit("the faults come too late")
                continue
            done.append(kind)
            failures += not good
            what = "ranks 2 and 3 are" if kind == "cut off" else f"rank {lost} is"
            when = "" if kind == "without weights" else f" at {moment:.2f} s"
            print(f"{len(done)}: {what} {kind}{when} ({name}): {line}", flush=True)
    counts = ", ".join(f"{count} {kind}" for kind, count in collections.Counter(done).items())
    print(f"{len(done)} faults ({counts}), {failures} failures; {late} came too late")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
