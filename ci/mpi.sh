#!/usr/bin/env bash
# The MPI transport of xdit-comm between processes, under Open MPI and under MPICH: the conformance suite and tests of its own on 1, 2, 4
# and 5 processes, with counts that are too small, and ranks that disagree, fail or are killed.
#
#     ci/mpi.sh [PART...]
#
# runs these parts of tests/mpi on 2 processes instead, for example `huge`, which needs 16 GiB of memory.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/mpi-setup.sh
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
# Open MPI last: ci/processes.sh goes on from there.
for mpi in mpich openmpi; do
    build_with "$mpi" mpi-ranks
    cp "$built/mpi-ranks" "$programs/$mpi"
done

flags=() # of mpirun
# start MPI PROCESSES ARGUMENTS...
start() {
    timeout 100 "mpirun.$1" "${flags[@]}" -n "$2" "$programs/$1" "${@:3}"
}
late=124 # the exit code of timeout
# fault MPI PART RANKS FAILS [TEXT]: a rank fails, so many say what they learned, and the launcher fails (1) or does not (0). The text is
# in what all have said.
fault() {
    local mpi=$1 part=$2 ranks=$3 fails=$4 text=${5-} said code=0
    said=$(start "$mpi" 3 "$part" 2>&1) || code=$?
    if [ "$code" = "$late" ] || [ "$((code != 0))" != "$fails" ] || ! grep -q "$text" <<<"$said" ||
        [ "$(grep -c "^$part: rank" <<<"$said")" -lt "$ranks" ]; then
        local expected=("success" "failure")
        printf '%s\n%s, %s: exit code %s; expected: %s, and at least %s ranks that say what they learned%s\n' \
            "$said" "$mpi" "$part" "$code" "${expected[fails]}" "$ranks" "${text:+, and \"$text\"}" >&2
        exit 1
    fi
    printf '%s, %s: %s ranks learned of it\n' "$mpi" "$part" "$ranks"
}
for mpi in openmpi mpich; do
    if [ $# -gt 0 ]; then
        start "$mpi" 2 "$@"
        continue
    fi
    echo "$mpi:"
    for processes in 1 2 4 5; do
        start "$mpi" "$processes" conformance own
    done
    start "$mpi" 3 --largest-count 7 conformance own
    start "$mpi" 2 alone groups
    fault "$mpi" disagree 3 1
    fault "$mpi" failed 3 1
    # Launchers name the signal, and kill the others, perhaps before they can say anything.
    fault "$mpi" killed 0 1 'signal 9'
done
# This one lets them live. (UCX, below MPICH, ends each process that reads the memory of one that is killed.)
flags=(--enable-recovery)
fault openmpi killed 2 0
fault openmpi killed-busy 2 0
fault openmpi killed-early 2 0
