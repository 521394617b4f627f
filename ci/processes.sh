#!/usr/bin/env bash
# Ranks that are processes of mpirun and send tensors over MPI: the pictures have the bytes of threads, on one host and on two, and the
# link between hosts carries what the formulas say; ranks are killed, stopped, cut off, or cannot read their weights.
#
#     ci/processes.sh [PART...]
#
# Parts: pictures, hosts, faults; all without any. ci/faults.py runs more faults, and ci/hosts.py measures.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/mpi-setup.sh
build_with openmpi xdit-cli
program=$built/xdit-cli
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# draw PROCESSES MODEL PROMPT FLAGS...: with threads and with processes.
draw() {
    local words=("$program" generate --quiet --threads 1 --num-inference-steps 3 --height 112 --width 48 --num-images-per-prompt 2
        --negative-prompt green --prompt "$3" "${@:4}")
    [ "$2" = demo ] || words+=(--model "tests/golden/pipelines/$2")
    "${words[@]}" --output "$folder/threads/"
    timeout 100 mpirun.openmpi -n "$1" "${words[@]}" --output "$folder/processes/" </dev/null
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

parts=${*:-pictures hosts faults}
for part in $parts; do
    began=$SECONDS
    case $part in
    pictures)
        while read -r processes flags; do
            draw "$processes" flux-dev 'a red circle' --true-cfg-scale 2 $flags
            draw "$processes" sd35-medium 'a red circle' --guidance-scale 3 $flags
            draw "$processes" hunyuan-v1.2 一个红色的圆 --guidance-scale 3 --no-use-resolution-binning $flags
            draw "$processes" demo 'a red circle on blue' --true-cfg-scale 2 $flags
            echo "$processes processes draw as threads do: $flags"
        done <<<"$plans"
        ;;
    hosts) ci/hosts.py "$program" ;;
    # The moments differ from one run of CI to another; the seed, which is printed, repeats them.
    faults) ci/faults.py "$program" --runs 12 ;;
    *) echo "no part $part" >&2; exit 2 ;;
    esac
    echo "$part: $((SECONDS - began)) s"
done
