#!/usr/bin/env bash
# Compiles CUDA kernels to the PTX beside them, with the NVRTC of PyPI that ci/nvrtc.txt pins.
#     ci/ptx.sh                writes them
#     ci/ptx.sh SOURCE.cu…     writes these only
#     ci/ptx.sh --check        fails, with the differences, if one is not as committed
# In xdit-kernels, NAME.cu becomes NAME.sm_80.ptx and NAME.sm_90a.cu becomes NAME.sm_90a.ptx. In tests/ptx-interp, NAME.cu
# becomes NAME.ptx, for the architecture in its first line. The first line of a .ptx holds the hash of its sources.
# Without PyPI the check says so and ends with 0 (ci/registry.sh). Everything else that goes wrong is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
check=
case "${1-}" in
--check) check=1 && shift ;;
-*) echo "usage: ci/ptx.sh [--check] [SOURCE.cu…]" >&2; exit 2 ;;
esac
sources=("$@")
if [ $# = 0 ]; then
    mapfile -t sources < <(find tests/ptx-interp/kernels xdit-kernels/src -name '*.cu' | sort)
fi

source ci/registry.sh
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}/ci/nvrtc-$(sha256sum ci/nvrtc.txt | cut -c1-12)")
if [ ! -d "$tools" ]; then
    rm -rf "$tools.part"
    install=(python3 -m pip install -q --no-deps --target "$tools.part" -r ci/nvrtc.txt)
    if [ -n "$check" ]; then
        from_pypi ci/nvrtc.txt "${install[@]}"
    else
        "${install[@]}"
    fi
    mv "$tools.part" "$tools"
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# The PTX of a source, and the architecture that it is for.
target_of() {
    case "$1" in
    *tests/ptx-interp/*) echo "${1%.cu}.ptx $(sed -n '1s|^// *||p' "$1")" ;;
    *.sm_90a.cu) echo "${1%.cu}.ptx compute_90a" ;;
    *) echo "${1%.cu}.sm_80.ptx compute_80" ;;
    esac
}

for source in "${sources[@]}"; do
    read -r ptx architecture < <(target_of "$source")
    python3 ci/nvrtc.py "$tools/nvidia" "$architecture" "$source" "$out/kernels.ptx"
    if [ -n "$check" ]; then
        diff -u "$ptx" "$out/kernels.ptx" || failed=1
    else
        cp "$out/kernels.ptx" "$ptx"
    fi
done
if [ -n "$check" ]; then
    # A PTX without a source is a kernel that somebody removed or renamed.
    while read -r ptx; do
        source=${ptx%.ptx}.cu
        [ -f "$source" ] || [ -f "${source%.sm_80.cu}.cu" ] || { echo "$ptx has no source" >&2; failed=1; }
    done < <(find tests/ptx-interp/kernels xdit-kernels/src -name '*.ptx')
fi
[ -z "${failed-}" ] || { echo "the PTX is not up to date: run ci/ptx.sh and commit it" >&2; exit 1; }
