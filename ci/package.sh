#!/usr/bin/env bash
# Every published crate passes `cargo package` (built from its package alone) and stays under the registry's 10 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
dirty=()
[ "${1:-}" = --allow-dirty ] && dirty=(--allow-dirty)
cargo package --workspace --exclude xdit-tests "${dirty[@]}"
for package in "${CARGO_TARGET_DIR:-target}"/package/xdit-*.crate; do
    bytes=$(stat -c %s "$package")
    echo "$(basename "$package"): $bytes bytes"
    [ "$bytes" -lt 10000000 ] || { echo "$package is too large" >&2; exit 1; }
done
