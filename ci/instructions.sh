#!/usr/bin/env bash
# Counts the instructions of kernels on an emulated aarch64 processor, for docs/benchmarks/neon.md, and fails where a tier takes
# more than its bound. `ci/aarch64.sh` runs it.
#
# ci/instructions.sh [CARGO ARGUMENT...]
#
# A count is the difference between three runs of a kernel and one, so that starting, packing weights and filling inputs do not
# count. The counter is a plugin of QEMU (ci/count/plugin.c): Debian's package qemu-user can load it.
set -euo pipefail
cd "$(dirname "$0")/.."

arm=aarch64-unknown-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
cargo build "$@" --release --target "$arm" -p xdit-kernels --example instructions
program=${CARGO_TARGET_DIR:-target}/$arm/release/examples/instructions

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count() { qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max -plugin "$work/plugin.so" -d plugin -D "$work/counts" "$program" "$@"; }
# The versions of the plugin interface, of which this QEMU takes some.
loaded=
for api in 1 2 3 4; do
    cc -shared -fPIC -O2 -DAPI=$api ci/count/plugin.c -o "$work/plugin.so"
    if count softmax-f32 neon 0 >"$work/out" 2>&1; then loaded=$api && break; fi
done
if [ -z "$loaded" ]; then
    echo "ci/instructions.sh: qemu-aarch64 cannot run the program with the plugin of ci/count/plugin.c:" >&2
    cat "$work/out" >&2
    exit 1
fi

# Case, tier and the most instructions for 1000 units of work; the bounds are 5 % above what was counted for the document.
failed=0
echo "| kernel | tier | instructions per 1000 | fmla | bfmmla | bound |"
echo "|---|---|--:|--:|--:|--:|"
while read -r case tier bound; do
    for runs in 1 3; do
        count "$case" "$tier" $runs >"$work/out"
        read -r _ units <"$work/out"
        read -r _ all _ fmla _ bfmmla <"$work/counts"
        if [ $runs = 1 ]; then before=("$all" "$fmla" "$bfmmla"); fi
    done
    line=$(awk -v n="$units" -v all=$((all - before[0])) -v fmla=$((fmla - before[1])) -v bfmmla=$((bfmmla - before[2])) 'BEGIN {
        printf "%.0f %.1f %.1f", 500 * all / n, 500 * fmla / n, 500 * bfmmla / n }')
    read -r all fmla bfmmla <<<"$line"
    echo "| $case | $tier | $all | $fmla | $bfmmla | $bound |"
    if [ "$bound" != - ] && [ "$all" -gt "$bound" ]; then
        echo "ci/instructions.sh: $case on $tier takes $all instructions per 1000 units of work, more than $bound" >&2
        failed=1
    fi
done <ci/count/bounds
exit $failed
