#!/usr/bin/env python3
"""Faults of ranks that are processes, started by mpirun: at a random moment one of four is killed (SIGKILL) or stopped (SIGSTOP), or one
finds other weights than the others (a file that ends too soon).

    ci/faults.py PROGRAM [RUNS [SEED]]

Each time, what is left says which rank is lost, all other processes end in time, none remains, the launcher's exit code is not 0, and
no part of a picture is left. The moments begin when the ranks have come together: before, the launcher alone knows them.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
RANKS = 4
# A process that has ended is lost at once; one that says nothing, after the control plane's 4 s of silence.
IN_TIME = {"killed": 5.0, "stopped": 4.0 + 5.0, "without weights": 5.0}
TOGETHER, WRITTEN = "the ranks send tensors", "INFO written"
MODEL = f"{HERE}/../tests/golden/pipelines/flux-dev"
WEIGHTS = "transformer/diffusion_pytorch_model-00002-of-00003.safetensors"


class Run:
    """A run of the program on all ranks."""

    def __init__(self, program, folder, model, before=()):
        self.mark = f"XDIT_FAULT={os.getpid()}-{time.monotonic_ns()}"
        self.lines, self.together, self.began = [], threading.Event(), time.monotonic()
        words = [program, "generate", "-v", "--prompt", "a red circle", "--model", model, "--threads", "1"]
        words += ["--height", "256", "--width", "256", "--num-inference-steps", "20", "--output", f"{folder}/a.png"]
        words += ["--ulysses-degree", "2", "--ring-degree", "2"]
        name, value = self.mark.split("=")
        self.mpirun = subprocess.Popen(
            ["mpirun.openmpi", "-n", str(RANKS), *before, *words],
            env={**os.environ, name: value}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.mpirun.stdout:
            self.lines.append((time.monotonic(), line.rstrip("\n")))
            if TOGETHER in line:
                self.together.set()

    def text(self):
        return "\n".join(line for _, line in self.lines)

    def ranks(self):
        """The processes of the program, by rank."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    environ = file.read().split(b"\0")
                with open(f"/proc/{pid}/stat") as file:
                    state = file.read().rsplit(")", 1)[1].split()[0]
                with open(f"/proc/{pid}/comm") as file:
                    is_ours = file.read().startswith("xdit-cli")
            except OSError:
                continue
            if is_ours and state not in "ZX" and self.mark.encode() in environ:
                rank = next(it for it in environ if it.startswith(b"OMPI_COMM_WORLD_RANK="))
                found[int(rank.split(b"=")[1])] = int(pid)
        return found

    def end(self):
        for pid in self.ranks().values():
            # It may just have ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.mpirun.kill()


def wait_until(holds, seconds):
    """How long it took until this held, or None."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if holds():
            return time.monotonic() - began
        time.sleep(0.01)
    return None


def unfaulted(program, folder):
    """How long a run takes once its ranks are together."""
    run = Run(program, folder, "demo")
    run.mpirun.wait(300)
    run.reader.join()
    times = [at for at, line in run.lines if TOGETHER in line or WRITTEN in line]
    if run.mpirun.returncode != 0 or len(times) != 2:
        raise SystemExit(f"a run without a fault fails:\n{run.text()}")
    os.remove(f"{folder}/a.png")
    return times[1] - times[0]


def fault(kind, lost, moment, program, folder):
    """Runs once. Returns what went wrong, or a line about how it went, or None if the fault came too late."""
    before, model = [], "demo"
    if kind == "without weights":
        # For this rank alone the file is another one.
        model = MODEL
        script = f'[ "$OMPI_COMM_WORLD_RANK" != {lost} ] || mount --bind {folder}.damaged {MODEL}/{WEIGHTS} && exec "$@"'
        before = ["unshare", "--mount", "sh", "-c", script, "sh"]
    run = Run(program, folder, model, before)
    try:
        if not run.together.wait(100):
            return False, f"the ranks do not come together:\n{run.text()}"
        if kind == "without weights":
            # The rank ends when it finds out.
            if wait_until(lambda: len(run.ranks()) < RANKS, 60) is None:
                return False, "nobody ends"
        else:
            time.sleep(moment)
            pids = run.ranks()
            if len(pids) < RANKS or WRITTEN in run.text():
                run.mpirun.wait(60)
                return True, None
            try:
                os.kill(pids[lost], {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}[kind])
            except ProcessLookupError:
                run.mpirun.wait(60)
                return True, None
        others = lambda: [rank for rank in run.ranks() if rank != lost or kind == "without weights"]
        took = wait_until(lambda: not others(), IN_TIME[kind])
        if took is None:
            return False, f"ranks {others()} still run {IN_TIME[kind]:.0f} s later:\n{run.text()}"
        try:
            code = run.mpirun.wait(20)
        except subprocess.TimeoutExpired:
            return False, f"mpirun does not end:\n{run.text()}"
        run.reader.join(5)
        if run.ranks():
            return False, f"a process remains: {run.ranks()}"
        if code == 0:
            return False, f"mpirun's exit code is 0:\n{run.text()}"
        said = next((line for _, line in run.lines if f"rank {lost} (" in line and "error" in line), None)
        if said is None:
            return False, f"no error names rank {lost}:\n{run.text()}"
        left = os.listdir(folder)
        if left and not (left == ["a.png"] and WRITTEN in run.text()):
            return False, f"{left} is left"
        for name in left:
            os.remove(f"{folder}/{name}")
        return True, f"after {took:.1f} s: {said[:150]}"
    finally:
        run.end()


def main():
    program, runs = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else time.time_ns() % 10**6
    dice = random.Random(seed)
    kinds = ["killed", "stopped", "killed", "without weights"]
    if os.geteuid() != 0:
        kinds.remove("without weights")
        print("a rank without weights: left out, it needs root (a mount of its own)")
    failures = late = done = 0
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{MODEL}/{WEIGHTS}", "rb") as whole, open(f"{folder}.damaged", "wb") as damaged:
            damaged.write(whole.read()[:-1000])
        try:
            length = unfaulted(program, folder)
            print(f"{runs} faults of runs that take {length:.1f} s, seed {seed}", flush=True)
            while done < runs:
                kind, lost = kinds[done % len(kinds)], dice.randrange(RANKS)
                moment = dice.uniform(0, 0.9 * length)
                good, line = fault(kind, lost, moment, program, folder)
                if line is None:
                    late += 1
                    for name in os.listdir(folder):
                        os.remove(f"{folder}/{name}")
                    if late > 10 + runs:
                        raise SystemExit("the faults come too late")
                    continue
                done += 1
                failures += not good
                when = "" if kind == "without weights" else f" at {moment:.2f} s"
                print(f"{done}: rank {lost} is {kind}{when}: {line}", flush=True)
        finally:
            os.remove(f"{folder}.damaged")
    print(f"{runs} faults, {failures} failures; {late} came too late")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
