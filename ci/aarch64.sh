#!/usr/bin/env bash
# The kernels' tests, the models' goldens, an image of the demo and the counts of instructions on aarch64, emulated: not part of
# `.ci/run`, which only compiles for it. Each test runs every tier that the emulated processor has.
#
# ci/aarch64.sh [CARGO ARGUMENT...]
#
# Debian: apt-get install gcc gcc-aarch64-linux-gnu qemu-user; rustup target add aarch64-unknown-linux-gnu.
# Where the target cannot be added, the standard library can be built from its sources: pass `-Zbuild-std=std,panic_unwind,test`
# (RUSTC_BOOTSTRAP=1, the component rust-src) as arguments.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }

arm=aarch64-unknown-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"

step "clippy"
cargo clippy "$@" --target "$arm" --workspace --all-targets -- -D warnings
if rustup target list --installed | grep -qx aarch64-apple-darwin; then
    step "macOS: compiles, without a linker for it"
    cargo check --target aarch64-apple-darwin -p xdit-kernels
fi

# QEMU_CPU: the processor that qemu-aarch64 emulates. `max` has the bf16 instructions, and so every tier; neoverse-n1 (Graviton 2)
# lacks them. There, a few cases of each property show that no other tier needs them.
for run in "max 256" "neoverse-n1 4"; do
    read -r cpu cases <<<"$run"
    step "kernels on $cpu"
    QEMU_CPU=$cpu PROPTEST_CASES=${PROPTEST_CASES:-$cases} cargo test "$@" --target "$arm" -p xdit-kernels --lib
done

# One pipeline of each family: f32 agrees tensor by tensor, and bf16 draws nearly the same pictures.
step "models against diffusers, in each tier"
QEMU_CPU=max cargo test "$@" --target "$arm" -p xdit-tests --test models -- flux_schnell_agrees_with_diffusers \
    transformer_of_sd3_medium_agrees_with_diffusers transformer_with_sizes_and_style_agrees_with_diffusers \
    flux_schnell_in_bf16_is_near_diffusers sd3_medium_in_bf16_is_near_diffusers hunyuan_v1_1_in_bf16_is_near_diffusers

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
draw() {
    cargo run "$@" --target "$arm" -p xdit-cli -- generate --prompt "a yellow square in the top right on a blue background" --output "$image" \
        --cpu-tier "$tier" --dtype "$dtype"
}
for run in "max neon f32" "max neon-bf16 bf16" "neoverse-n1 neon bf16"; do
    read -r cpu tier dtype <<<"$run"
    step "the demo on $cpu in tier $tier, $dtype"
    image=$out/$cpu-$tier-$dtype.png
    QEMU_CPU=$cpu draw "$@"
    # The host draws it again: sums are in another order there, so a few pixels may differ by a level or two.
    cargo run -p xdit-cli -- replay "$image" || test $? = 1
done

step "instructions"
ci/instructions.sh "$@"

step "done"
