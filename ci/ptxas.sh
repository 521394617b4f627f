#!/usr/bin/env bash
# Assembles the PTX of xdit-kernels for every architecture, with the ptxas of PyPI that ci/ptxas.txt pins. It fails if a
# kernel spills registers or takes more of them than ci/registers.txt allows, and if that file has other kernels.
#     ci/ptxas.sh             checks
#     ci/ptxas.sh --write     writes what the kernels take to ci/registers.txt
# Without PyPI it says so and ends with 0 (ci/registry.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1-}" in
"" | --write) ;;
*) echo "usage: ci/ptxas.sh [--write]" >&2; exit 2 ;;
esac
source ci/registry.sh
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}/ci/ptxas-$(sha256sum ci/ptxas.txt | cut -c1-12)")
if [ ! -d "$tools" ]; then
    rm -rf "$tools.part"
    from_pypi ci/ptxas.txt python3 -m pip install -q --no-deps --target "$tools.part" -r ci/ptxas.txt
    mv "$tools.part" "$tools"
fi
python3 ci/registers.py "$tools/nvidia/cu13/bin/ptxas" ci/registers.txt "$@"
