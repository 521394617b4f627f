#!/usr/bin/env bash
# A folder that tests and measures this version on a GPU machine which has neither Rust nor this source nor the internet.
#
#     ci/gpu.sh [FOLDER]     writes FOLDER (target/gpu); on the other machine, FOLDER/run.sh writes FOLDER/report/
#
# The binaries are for x86-64 with glibc 2.17 or newer. CI does not build the folder, which takes minutes; it checks these scripts.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/zigbuild.sh
folder=${1:-$build/gpu}
most_bytes=60000000
target=x86_64-unknown-linux-gnu
# Copied as they are; the programs look for each other's places as run.sh says.
files=(
    LICENSE
    tests/gpu-bench/run.sh
    tests/gpu-bench/bench_torch.py
    tests/gpu-bench/cases.json
)
goldens=(
    tests/golden/cases
    tests/golden/pipelines
)

if [ -e "$folder" ] && [ ! -e "$folder/run.sh" ]; then
    echo "$folder is there, and not from this script" >&2
    exit 1
fi
rm -rf "$folder"
mkdir -p "$build" "$folder/bin" "$folder/golden"
cp "${files[@]}" "$folder/"
cp -r "${goldens[@]}" "$folder/golden/"

rustup target add "$target" >/dev/null 2>&1 || true
# Where cargo puts a test is in its messages only.
cargo zigbuild --locked --release --target "$target.$glibc" -p xdit-cli -p xdit-tests --bin xdit-cli --bin gpu-bench --test gpu \
    --message-format json-render-diagnostics >"$build/gpu-messages.json"
executable() {
    python3 - "$build/gpu-messages.json" "$1" <<'PYTHON'
import json, sys

messages = map(json.loads, open(sys.argv[1]))
found = [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == sys.argv[2]]
print(found[0])
PYTHON
}
add() {
    local binary
    binary=$(executable "$1")
    strip -s -o "$folder/bin/$2" "$binary"
    needs_old_glibc "$target" "$folder/bin/$2"
}
add xdit-cli xdit-cli
add gpu-bench gpu-bench
add gpu gpu-tests
# Each of them holds the text of all kernels, which is a tenth when compressed. run.sh unpacks them.
tar -C "$folder" -c bin | gzip -9 >"$folder/bin.tar.gz"
rm -r "$folder/bin"

bytes=$(du -sb "$folder" | cut -f 1)
if [ "$bytes" -gt "$most_bytes" ]; then
    echo "$folder has $bytes bytes, more than $most_bytes" >&2
    exit 1
fi
echo "$folder: $bytes bytes"
