#!/usr/bin/env bash
# Kernels, and the arithmetic of plans, with sizes that nobody means: in release mode, where a product that wraps is a panic.
# PROPTEST_CASES sets how many cases each property has (256).
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --profile checked -p xdit-kernels --test extreme
cargo test --profile checked -p xdit-comm -p xdit-usp -p xdit-pipefusion --lib -- wraps
