#!/usr/bin/env bash
# Words that are misspelt, by `typos` (typos.toml says what is none): the one in the path, else the one that PyPI has.
set -euo pipefail
cd "$(dirname "$0")/.."
version=1.52.0
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}/ci/typos-$version")
if ! command -v typos >/dev/null; then
    export PATH=$tools/bin:$PATH PYTHONPATH=
    command -v typos >/dev/null ||
        python3 -m pip install -q --no-deps --target "$tools" "typos==$version" 2>/dev/null ||
        { echo "left out: there is no typos, and pip cannot install it here"; exit; }
fi
typos
