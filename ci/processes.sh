#!/usr/bin/env bash
# Ranks that are processes of mpirun and send tensors over MPI: the pictures have the bytes of threads, on one host and on two, and the
# link between hosts carries what the formulas say; ranks are killed, stopped, cut off, or cannot read their weights.
#
#     ci/processes.sh                           runs all that CI runs
#     ci/processes.sh pictures                  a part alone
#     ci/processes.sh hosts [measure]           ... or measures plans over two hosts
#     ci/processes.sh faults --runs 200         ... or with more faults
#     ci/processes.sh overhead [TURNS]          measures processes against threads
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
    # This waits for both, also if one fails.
    local failed=0
    timeout 100 "${words[@]}" --output "$folder/threads/" &
    timeout 100 mpirun.openmpi -n "$1" "${words[@]}" --output "$folder/processes/" </dev/null || failed=1
    wait $! || failed=1
    if [ "$failed" = 1 ]; then
        echo "$1 processes or threads fail: ${words[*]}" >&2
        exit 1
    fi
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
3 --ulysses-degree 3
4 --ulysses-degree 2 --ring-degree 2 --mesh-order data,cfg,pipe,ulysses,ring
4 --pipefusion-parallel-degree 2 --num-pipeline-patch 3 --cfg-degree 2
4 --data-parallel-degree 2 --ulysses-degree 2
4 --pipefusion-parallel-degree 2 --num-pipeline-patch 3 --pipefusion-placement linear --ring-degree 2
8 --cfg-degree 2 --ring-degree 2 --ulysses-degree 2
8 --pipefusion-parallel-degree 2 --num-pipeline-patch 3 --cfg-degree 2 --ulysses-degree 2'

pictures() {
    local processes flags
    while read -r processes flags; do
        draw "$processes" flux-dev 'a red circle' --true-cfg-scale 2 $flags
        draw "$processes" sd35-medium 'a red circle' --guidance-scale 3 $flags
        draw "$processes" hunyuan-v1.2 一个红色的圆 --guidance-scale 3 --no-use-resolution-binning $flags
        draw "$processes" demo 'a red circle on blue' --true-cfg-scale 2 $flags
        echo "$processes processes draw as threads do: $flags (${SECONDS}s)"
    done <<<"$plans"
}

case ${1-} in
'')
    pictures
    ci/hosts.py "$program"
    echo "(${SECONDS}s)"
    # Half of the time they wait. This waits for both, also if one fails.
    failed=0
    ci/faults.py "$program" --runs 8 --seed 17 &
    ci/faults.py "$program" --runs 8 --seed 18 || failed=1
    wait $! || failed=1
    echo "(${SECONDS}s)"
    exit "$failed"
    ;;
pictures) pictures ;;
hosts | faults | overhead) "ci/$1.py" "$program" "${@:2}" ;;
*)
    echo "no part $1" >&2
    exit 2
    ;;
esac
