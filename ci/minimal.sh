#!/usr/bin/env bash
# The lowest versions of dependencies that Cargo.toml asks for are enough: everything compiles with them.
# It needs no nightly toolchain, but an unstable option of Cargo, and a copy of the files, whose Cargo.lock it writes.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/ci/minimal
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# Files as they are now; one that is deleted but not yet committed so is left out.
git ls-files -z --cached --others --exclude-standard --deduplicate | tar --null --ignore-failed-read -T - -cf - | tar -xC "$copy"
source ci/registry.sh
cd "$copy"
# The lock file must fit the manifests as they are, before it is written anew.
from_registry Cargo.lock cargo metadata -q --locked --format-version 1
from_registry Cargo.lock cargo update -q --dry-run
RUSTC_BOOTSTRAP=1 cargo update -q -Z direct-minimal-versions
cargo check --locked --workspace --all-targets --target-dir "$target"
