#!/usr/bin/env bash
# Puts new demo weights in place: demo/update.sh FOLDER, where FOLDER holds flux/ (and facts.json if that changed).
# Copies the pipeline to xdit-models/demo/flux, then draws the 64 prompts with diffusers to make demo/expected.json,
# tests/golden/demo.safetensors.gz and the demo tokenizers' part of tests/golden/tokens.json.gz again, and last the picture
# of README.md.
# Needs Python with tests/golden/requirements.txt; PYTHON names the interpreter, XDIT_DEMO_THREADS the threads (default 1).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
source=${1:?"usage: demo/update.sh FOLDER"}
python=${PYTHON:-python3}
target=$root/xdit-models/demo/flux

test -f "$source/flux/model_index.json" || { echo "$source/flux/model_index.json: not found" >&2; exit 1; }

# The copy is complete before the old folder goes.
staged=$(mktemp -d "$root/xdit-models/demo/.flux.XXXXXX")
trap 'rm -rf "$staged"' EXIT
cp -R "$source/flux/." "$staged/"
find "$staged" -type d -exec chmod 755 {} +
find "$staged" -type f -exec chmod 644 {} +
rm -rf "$target"
mv "$staged" "$target"

if [ -f "$source/facts.json" ]; then
    cp "$source/facts.json" "$root/demo/facts.json"
    chmod 644 "$root/demo/facts.json"
fi

# xdit-models is published with these files in it: the package may not exceed 10 MB.
bytes=$(find "$target" -type f -exec cat {} + | wc -c)
if [ "$bytes" -gt 9500000 ]; then
    echo "$target holds $bytes bytes: too many for the crate's 10 MB" >&2
    exit 1
fi

"$python" "$root/demo/check.py"
"$python" "$root/tests/golden/generate.py" --only tokens demo
# The picture of README.md, by its own command.
prompt=$(sed -n 's/^    cargo run --release .* generate --prompt "\(.*\)"$/\1/p' "$root/README.md" | head -1)
cargo run --release --manifest-path "$root/Cargo.toml" -p xdit-cli -- generate --prompt "$prompt" --output "$root/docs/first-picture.png"
