#!/usr/bin/env bash
# For scripts that need the registry of crates, which some machines cannot reach, or which lacks a crate there:
#     source ci/registry.sh
#     from_registry LOCK COMMAND…
# runs the command and ends the script with 0 and "left out" where the network or the registry is the reason that it fails.
# Any other failure ends the script with an error: a broken manifest, or a lock file that does not fit it.
from_registry() {
    local lock=$1 said missing
    shift
    said=$("$@" 2>&1) && return
    if grep -qE '^error: failed to (get|fetch|download|load source|query|update)' <<<"$said" &&
        grep -qiE 'could not (connect|resolve)|failed to connect|timed? ?out|connection (reset|refused)|network|\b(403|404|407|5[0-9][0-9])\b|offline' <<<"$said"; then
        echo "left out: the registry cannot be reached"
        exit 0
    fi
    # A crate that the lock file names was there when the lock was written: this registry lacks it.
    missing=$(sed -n 's/^error: no matching package named `\([^`]*\)` found$/\1/p' <<<"$said")
    if [ -n "$missing" ] && grep -qxF "name = \"$missing\"" "$lock"; then
        echo "left out: the registry has no $missing"
        exit 0
    fi
    printf '%s\n' "$said" >&2
    exit 1
}
