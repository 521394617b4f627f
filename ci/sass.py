"""Counts instructions of a kernel's main loop in SASS: sass.py FOLDER_OF_CUDA_TOOLS PTX KERNEL…

Assembles the PTX for each architecture and disassembles it. The main loop is the first one with tensor instructions: behind it lie parts that jump back into it. Parts that
a branch skips and that neither copy nor multiply (masks, the rescale of sums) are left out: the usual pass does not run them.
"""

import collections
import pathlib
import re
import subprocess
import sys
import tempfile

ARCHITECTURES = {".sm_80.ptx": ["sm_80", "sm_90"], ".sm_90a.ptx": ["sm_90a"]}
CLASSES = {
    "tensor": r"HMMA|HGMMA",
    "exp": r"MUFU",
    "ldmatrix": r"LDSM",
    "copies": r"LDGSTS",
    "f32": r"FFMA|FMUL|FADD|FMNMX|FSETP|FSEL|F2FP",
    "shuffles": r"SHFL|VOTE",
    "barriers": r"BAR|DEPBAR|LDGDEPBAR|WARPSYNC|SYNCS|WARPGROUP",
}
LABEL = re.compile(r"^(\.L_x_\d+):")
LINE = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:\{\s*)?(?P<guard>@!?U?P\w+\s+)?(?P<opcode>[A-Z][\w.]*)(?P<rest>[^;]*);")
BRANCH = re.compile(r"`\((\.L_x_\d+)\)")


def instructions(sass):
    """(opcode, guarded, target of a branch) of each instruction, and where labels lie."""
    found, labels = [], {}
    for line in sass.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(found)
        elif line := LINE.match(line):
            target = BRANCH.search(line["rest"])
            guarded = bool(line["guard"]) or "!P" in line["rest"].split("`")[0]
            found.append((line["opcode"], guarded, target and target[1]))
    return found, labels


def usual_pass(sass):
    found, labels = instructions(sass)

    def holds(start, end, pattern):
        return any(re.match(pattern, opcode) for opcode, _, _ in found[start:end])

    loops = [
        (labels[target], at + 1)
        for at, (opcode, _, target) in enumerate(found)
        if opcode.startswith("BRA") and target and labels[target] <= at and holds(labels[target], at, CLASSES["tensor"])
    ]
    start, end = loops[0]
    at, taken = start, []
    while at < end:
        opcode, guarded, target = found[at]
        taken.append(opcode)
        to = labels.get(target, 0)
        plain = opcode == "BRA" and guarded and at < to <= end
        skips = plain and not holds(at + 1, to, f"{CLASSES['tensor']}|{CLASSES['copies']}")
        at = to if skips else at + 1
    return taken


def main():
    tools, ptx, kernels = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    print("| kernel | for | instructions | " + " | ".join(CLASSES) + " | registers |")
    print("|---" * (4 + len(CLASSES)) + "|")
    for architecture in next(names for suffix, names in ARCHITECTURES.items() if ptx.endswith(suffix)):
        with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
            done = subprocess.run(
                [tools / "ptxas", "-v", f"-arch={architecture}", ptx, "-o", cubin.name],
                check=True,
                capture_output=True,
                text=True,
            )
            sass = subprocess.run(
                [tools / "nvdisasm", "-c", cubin.name], check=True, capture_output=True, text=True
            ).stdout
        for kernel in kernels:
            registers = re.search(rf"'{kernel}' for.*?Used (\d+) registers", done.stderr + done.stdout, re.DOTALL)[1]
            body = sass.split(f".text.{kernel}:\n")[1].split("\n.section")[0].split("//--------------------- ")[0]
            taken = usual_pass(body)
            counts = collections.Counter()
            for opcode in taken:
                for name, pattern in CLASSES.items():
                    counts[name] += bool(re.match(pattern, opcode))
            row = [kernel, architecture, len(taken), *(counts[name] for name in CLASSES), registers]
            print("| " + " | ".join(str(cell) for cell in row) + " |")


if __name__ == "__main__":
    main()
