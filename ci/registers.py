"""Registers and spills of the PTX of xdit-kernels: registers.py PTXAS TABLE [--write]

A line of the table is a PTX file, a kernel, and the most registers that a thread of it may take on any architecture.
"""

import pathlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

SOURCES = pathlib.Path("xdit-kernels/src")
ARCHITECTURES = {
    ".sm_80.ptx": ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"],
    ".sm_90a.ptx": ["sm_90a"],
}
ENTRY = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def assemble(ptxas, ptx, architecture):
    command = [ptxas, "-v", f"-arch={architecture}", ptx, "-o", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{ptx} for {architecture}: {done.stderr}{done.stdout}")
    found = [match.groupdict() for match in ENTRY.finditer(done.stderr + done.stdout)]
    if len(found) != ptx.read_text().count(".entry "):
        sys.exit(f"{ptx} for {architecture}: ptxas says nothing about some of its kernels\n{done.stderr}")
    return [(ptx.relative_to(SOURCES), architecture, entry) for entry in found]


def main():
    ptxas, table, write = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:] == ["--write"]
    jobs = []
    for suffix, architectures in ARCHITECTURES.items():
        for ptx in sorted(SOURCES.rglob(f"*{suffix}")):
            jobs += [(ptx, architecture) for architecture in architectures]
    with ThreadPoolExecutor() as pool:
        entries = sum(pool.map(lambda job: assemble(ptxas, *job), jobs), [])
    taken, faults = {}, []
    for ptx, architecture, entry in entries:
        key = (str(ptx), entry["kernel"])
        taken[key] = max(taken.get(key, 0), int(entry["registers"]))
        if entry["stores"] != "0" or entry["loads"] != "0":
            spills = f"{entry['stores']} bytes of spill stores and {entry['loads']} of spill loads"
            faults.append(f"{ptx} {entry['kernel']} on {architecture}: {spills}")
    lines = table.read_text().splitlines() if table.exists() else []
    head = [line for line in lines if line.startswith("#")]
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    allowed = {(ptx, kernel): int(most) for ptx, kernel, most in rows}
    if write:
        body = [f"{ptx} {kernel} {most}" for (ptx, kernel), most in sorted(taken.items())]
        table.write_text("\n".join(head + body) + "\n")
    else:
        for (ptx, kernel), most in sorted(taken.items()):
            if (ptx, kernel) not in allowed:
                faults.append(f"{ptx} {kernel}: {table} has no line for it")
            elif most > allowed[ptx, kernel]:
                faults.append(f"{ptx} {kernel}: {most} registers, {table} allows {allowed[ptx, kernel]}")
        faults += [f"{ptx} {kernel}: {table} names it, but there is none" for ptx, kernel in sorted(allowed.keys() - taken)]
    if faults:
        sys.exit("\n".join(faults + ["ci/ptxas.sh --write writes the table"]))
    print(f"{len(taken)} kernels on {len(set(job[1] for job in jobs))} architectures: no spills")


if __name__ == "__main__":
    main()
