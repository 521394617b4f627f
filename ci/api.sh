#!/usr/bin/env bash
# Writes the public items of each library crate, a line each, into docs/api/CRATE.txt: what a change does to users is its diff.
#     ci/api.sh            writes them
#     ci/api.sh --check    fails, with the differences, if one is not as committed
# Needs no nightly toolchain, but a rustdoc that writes the JSON that ci/api reads; with another one, or without the registry,
# it says so and ends with 0. Everything else that goes wrong is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
crates=(xdit-kernels xdit-comm xdit-usp xdit-pipefusion xdit-cfg xdit-models)
format=57 # of the JSON; changes with the version of public-api in ci/api/Cargo.toml

source ci/registry.sh
from_registry ci/api/Cargo.lock cargo fetch -q --locked --manifest-path ci/api/Cargo.toml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Only rustdoc is told that it may: Cargo would build the dependencies again.
printf '#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc "$@"\n' >"$work/rustdoc"
chmod +x "$work/rustdoc"
target=${CARGO_TARGET_DIR:-target}
# All features, but `mpi`, which needs an MPI installation.
features=$(for crate in "${crates[@]}"; do
    sed -n '/^\[features\]/,/^\[/p' "$crate/Cargo.toml" | sed -n "s/^\([a-z0-9-]*\) *=.*/\1/p" | grep -vx mpi | sed "s|^|$crate/|" || true
done)
RUSTDOC=$work/rustdoc RUSTDOCFLAGS="-Z unstable-options --output-format json" \
    cargo doc -q --no-deps --features "${features//$'\n'/,}" "${crates[@]/#/-p}"
cargo build -q --release --locked --manifest-path ci/api/Cargo.toml --target-dir "$target/ci"
for crate in "${crates[@]}"; do
    json=$target/doc/${crate//-/_}.json
    found=$(tail -c 40 "$json" | sed -n 's/.*"format_version":\([0-9]*\)}$/\1/p')
    [ -n "$found" ] || { echo "$json: no format_version at its end: is it rustdoc's JSON?" >&2; exit 1; }
    if [ "$found" != "$format" ]; then
        echo "left out: $(rustc --version) writes rustdoc's JSON in format $found, ci/api reads $format"
        exit
    fi
    "$target/ci/release/api" "$json" >"$work/$crate.txt"
done
if [ "${1-}" = --check ]; then
    for crate in "${crates[@]}"; do
        diff -u "docs/api/$crate.txt" "$work/$crate.txt" || failed=1
    done
    [ -z "${failed-}" ] || { echo "the API has changed: run ci/api.sh and commit docs/api" >&2; exit 1; }
else
    mkdir -p docs/api
    cp "$work"/*.txt docs/api/
fi
