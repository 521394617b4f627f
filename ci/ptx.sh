#!/usr/bin/env bash
# Compiles CUDA kernels to the PTX beside them, with the pinned NVRTC of PyPI: FOLDER/NAME.cu to FOLDER/NAME.ptx.
#     ci/ptx.sh            writes them
#     ci/ptx.sh --check    fails, with the differences, if one is not as committed
# The first line of a .ptx holds the hash of its sources, and the first line of a .cu the architecture.
set -euo pipefail
cd "$(dirname "$0")/.."
folders=(tests/ptx-interp/kernels)
nvrtc=12.0.140   # emits PTX 8.0, which every driver from 525 on reads
headers=12.0.146

tools=$(realpath -m "${CARGO_TARGET_DIR:-target}/ci/nvrtc-$nvrtc")
if [ ! -d "$tools/nvidia/cuda_nvrtc" ]; then
    python3 -m pip install -q --no-deps --target "$tools" \
        "nvidia-cuda-nvrtc-cu12==$nvrtc" "nvidia-cuda-runtime-cu12==$headers" 2>/dev/null ||
        { echo "left out: pip cannot install NVRTC here"; exit; }
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for folder in "${folders[@]}"; do
    for source in "$folder"/*.cu; do
        name=$(basename "$source" .cu)
        python3 ci/nvrtc.py "$tools/nvidia" "$source" "$out/$name.ptx"
        if [ "${1-}" = --check ]; then
            diff -u "$folder/$name.ptx" "$out/$name.ptx" || failed=1
        else
            cp "$out/$name.ptx" "$folder/$name.ptx"
        fi
    done
done
[ -z "${failed-}" ] || { echo "the PTX is not up to date: run ci/ptx.sh and commit it" >&2; exit 1; }
