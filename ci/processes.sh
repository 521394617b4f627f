#!/usr/bin/env bash
# Ranks that are processes, started by mpirun: the picture of every family and strategy has the bytes of threads, over the sockets that
# the program uses on one host and over MPI; two hosts; faults. Installs what is missing (Debian, Ubuntu).
#
#     ci/processes.sh [RUNS [PART...]]
#
# Not part of .ci/run yet. RUNS is the number of faults (20). Parts: program, faults, mpi, hosts; all without any.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-20}
parts=${*:2}
parts=${parts:-program faults mpi hosts}
missing=
for command in mpicc.openmpi mpirun.openmpi ip tc python3; do
    command -v "$command" >/dev/null || missing=1
done
if [ -n "$missing" ] || ! ldconfig -p | grep -q 'libclang.*\.so'; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends libopenmpi-dev openmpi-bin libclang1 iproute2 python3
fi
built=$(realpath -m "${CARGO_TARGET_DIR:-target}")/debug
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# There may be fewer cores than processes, and CI may be root.
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
start() { timeout 100 mpirun.openmpi -n "$@" </dev/null; }

# draw PROCESSES ARGUMENTS...: with threads and with processes.
draw() {
    local program=("$built/xdit-cli" generate --quiet --threads 1 --num-inference-steps 3 "${@:2}")
    "${program[@]}" --output "$folder/threads/"
    start "$1" "${program[@]}" --output "$folder/processes/"
    diff -r "$folder/threads" "$folder/processes"
    # Two pictures were compared.
    [ "$(find "$folder/threads" -name '*.png' | wc -l)" = 2 ]
    rm -r "$folder/threads" "$folder/processes"
}

# Number of processes and flags: every strategy, alone and with others. The stages of HunyuanDiT are folded unless a flag says linear.
plans='2 --ulysses-degree 2
2 --ring-degree 2
2 --pipefusion-parallel-degree 2 --num-pipeline-patch 3 --pipefusion-placement linear
2 --pipefusion-parallel-degree 2 --num-pipeline-patch 3
2 --cfg-degree 2
2 --data-parallel-degree 2
3 --ring-degree 3
4 --ulysses-degree 2 --ring-degree 2 --mesh-order data,cfg,pipe,ulysses,ring
4 --pipefusion-parallel-degree 2 --num-pipeline-patch 3 --cfg-degree 2
4 --data-parallel-degree 2 --ulysses-degree 2
8 --pipefusion-parallel-degree 2 --num-pipeline-patch 3 --cfg-degree 2 --ulysses-degree 2'

case " $parts " in *" program "* | *" faults "*)
    # With the features of the tests, so that what they have built is used again.
    cargo build -q --locked --workspace --bin xdit-cli --test tidy
    ;;
esac
for part in $parts; do
    echo "$part (${SECONDS}s)"
    case $part in
    program)
        models=tests/golden/pipelines
        small=(--height 112 --width 48 --num-images-per-prompt 2 --negative-prompt green)
        while read -r processes flags; do
            draw "$processes" --prompt 'a red circle' --model "$models/flux-dev" "${small[@]}" --true-cfg-scale 2 $flags
            draw "$processes" --prompt 'a red circle' --model "$models/sd35-medium" "${small[@]}" --guidance-scale 3 $flags
            draw "$processes" --prompt 一个红色的圆 --model "$models/hunyuan-v1.2" "${small[@]}" --guidance-scale 3 \
                --no-use-resolution-binning $flags
            draw "$processes" --prompt 'a red circle on blue' "${small[@]}" --true-cfg-scale 2 $flags
            echo "$processes processes draw as threads do: $flags"
        done <<<"$plans"
        ;;
    faults) ci/faults.py "$built/xdit-cli" "$runs" ;;
    mpi | hosts)
        if [ -z "${over_mpi-}" ]; then
            # libclang alone, without clang, has no <stddef.h>: the C compiler's serves as well.
            export BINDGEN_EXTRA_CLANG_ARGS="-I$(cc -print-file-name=include)"
            MPICC=mpicc.openmpi cargo build -q --locked --workspace --bin mpi-pictures --test tidy --features mpi-ranks/pictures
            over_mpi=1
        fi
        if [ "$part" = mpi ]; then
            for processes in 2 3 4 8; do
                RAYON_NUM_THREADS=1 start "$processes" "$built/mpi-pictures"
            done
        else
            ci/hosts.py "$built/mpi-pictures"
        fi
        ;;
    *) echo "no part $part" >&2; exit 2 ;;
    esac
done
echo "done (${SECONDS}s)"
