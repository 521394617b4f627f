#!/usr/bin/env bash
# Every published crate passes `cargo package` (built from its package alone) and stays under the registry's 10 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
dirty=()
[ "${1:-}" = --allow-dirty ] && dirty=(--allow-dirty)
# Cargo keeps what it unpacks by the path of the target folder, version by version, and never looks again. With a folder
# that an earlier run had, a crate would be verified against that run's version of the others.
target=$(mktemp -d)
home=${CARGO_HOME:-$HOME/.cargo}
clean() {
    # Registries of paths begin with a dash; those made by this run are of no use to any other.
    find "$home/registry" -mindepth 2 -maxdepth 2 -name '-*' -newer "$target/started" -exec rm -rf {} + || true
    rm -rf "$target"
}
# Only whether they compile is asked.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_OPT_LEVEL=0
touch "$target/started"
trap clean EXIT
cargo package --workspace --exclude xdit-tests --exclude mpi-ranks --exclude nccl-ranks --exclude ptx-interp --exclude vgpu --exclude vgpu-cuda --exclude vgpu-cublaslt --exclude vgpu-nccl --target-dir "$target" "${dirty[@]}"
for package in "$target"/package/xdit-*.crate; do
    bytes=$(stat -c %s "$package")
    echo "$(basename "$package"): $bytes bytes"
    [ "$bytes" -lt 10000000 ] || { echo "$package is too large" >&2; exit 1; }
done
