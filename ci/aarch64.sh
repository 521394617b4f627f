#!/usr/bin/env bash
# The kernels' tests and the demo image on aarch64, emulated: not part of `.ci/run`, which only compiles for it.
#
# Debian: apt-get install gcc-aarch64-linux-gnu qemu-user; rustup target add aarch64-unknown-linux-gnu.
# Where the target cannot be added, the standard library can be built from its sources: pass `-Zbuild-std=std,panic_unwind,test`
# (RUSTC_BOOTSTRAP=1, the component rust-src) as arguments.
set -euo pipefail
cd "$(dirname "$0")/.."

arm=aarch64-unknown-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"

cargo clippy "$@" --target "$arm" --workspace --all-targets -- -D warnings
cargo test "$@" --target "$arm" -p xdit-kernels --lib
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# About two minutes. The host replays it without fused multiply-adds, so a few pixels may differ by one level.
cargo run "$@" --target "$arm" -p xdit-cli -- generate --prompt "a red circle on a blue background" --output "$out/image.png"
cargo run --release -p xdit-cli -- replay "$out/image.png" || test $? = 1
