#!/usr/bin/env bash
# Features are additive: each library crate builds without its default features and with each feature alone. The feature `mpi` needs
# an MPI installation: ci/mpi.sh builds it.
set -euo pipefail
cd "$(dirname "$0")/.."
for crate in xdit-kernels xdit-comm xdit-usp xdit-pipefusion xdit-cfg xdit-models xdit-cli; do
    cargo clippy -q -p "$crate" --no-default-features -- -D warnings
    features=$(sed -n '/^\[features\]/,/^\[/p' "$crate/Cargo.toml" | sed -n 's/^\([a-z0-9-]*\) *=.*/\1/p' | grep -vx 'default\|mpi' || true)
    for feature in $features; do
        cargo clippy -q -p "$crate" --no-default-features --features "$feature" -- -D warnings
    done
done
