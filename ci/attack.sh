#!/usr/bin/env bash
# The fuzzers that damage files by structure, each for a number of seconds (60 if none is given):
#     ci/attack.sh [SECONDS [FIRST_CASE]]
# A failure names its case; XDIT_ATTACK_SEED, or the second argument, begins there.
set -euo pipefail
cd "$(dirname "$0")/.."
export XDIT_ATTACK_SECONDS=${1:-60} XDIT_ATTACK_SEED=${2:-${XDIT_ATTACK_SEED:-1000}}
# The whole workspace, so that what its tests have built is not built again.
cargo test --workspace --test attack -- --nocapture
