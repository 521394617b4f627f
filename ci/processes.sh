#!/usr/bin/env bash
# Ranks that are processes, started by mpirun: pictures of every family and strategy with the bytes of threads, two hosts, and faults.
# Installs what is missing (Debian, Ubuntu).
#
#     ci/processes.sh [RUNS]
#
# RUNS is the number of faults (20).
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-20}
for program in mpicc.openmpi mpirun.openmpi ip tc python3; do
    command -v "$program" >/dev/null || missing=1
done
if [ -n "${missing-}" ] || ! ldconfig -p | grep -q 'libclang.*\.so'; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends libopenmpi-dev openmpi-bin libclang1 iproute2 python3
fi
# libclang alone, without clang, has no <stddef.h>: the C compiler's serves as well.
export BINDGEN_EXTRA_CLANG_ARGS="-I$(cc -print-file-name=include)"
MPICC=mpicc.openmpi cargo build -q --locked -p mpi-ranks -p xdit-cli --features mpi-ranks/pictures,xdit-cli/mpi
built=$(realpath -m "${CARGO_TARGET_DIR:-target}")/debug
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# There may be fewer cores than processes, and CI may be root.
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
start() { timeout 100 mpirun.openmpi -n "$@"; }

echo "tiny models of each family"
for processes in 2 3 4 8; do
    RAYON_NUM_THREADS=1 start "$processes" "$built/mpi-pictures"
done

echo "the demo, by the program"
while read -r processes flags; do
    draw=("$built/xdit-cli" generate --prompt 'a red circle on a blue background' --height 64 --width 64 --num-inference-steps 4 --quiet $flags)
    "${draw[@]}" --output "$folder/threads.png"
    start "$processes" "${draw[@]}" --output "$folder/processes.png"
    cmp "$folder/threads.png" "$folder/processes.png"
    rm "$folder"/*.png
    echo "$processes processes: $flags"
done <<'PLANS'
2 --ulysses-degree 2
2 --ring-degree 2
2 --pipefusion-parallel-degree 2 --num-pipeline-patch 4
2 --data-parallel-degree 2 --num-images-per-prompt 2
2 --cfg-degree 2 --true-cfg-scale 2 --negative-prompt green
3 --ring-degree 3
4 --ulysses-degree 2 --ring-degree 2 --mesh-order data,cfg,pipe,ulysses,ring
8 --pipefusion-parallel-degree 2 --cfg-degree 2 --ulysses-degree 2 --true-cfg-scale 2 --negative-prompt green
PLANS
