#!/usr/bin/env bash
# The threads backend under miri: data races, leaks, undefined behaviour. Needs a nightly toolchain:
#     rustup toolchain install nightly --component miri rust-src
# The fault injections (`anywhere`) are left out: they count on time, which miri slows down.
set -euo pipefail
cd "$(dirname "$0")/.."
MIRIFLAGS="-Zmiri-disable-isolation" cargo +nightly miri test -p xdit-comm --lib -- threads::tests --skip anywhere
