#!/usr/bin/env bash
# For scripts that need the registry of crates or PyPI, which some machines cannot reach, or which lacks a package there:
#     source ci/registry.sh
#     from_registry LOCK COMMAND…
#     from_pypi REQUIREMENTS COMMAND…
# Each runs the command and ends the script with 0 and "left out" where the network or the registry is the reason that it fails.
# Any other failure ends the script with an error: a broken manifest, a lock file that does not fit it, a full disk.
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

# REQUIREMENTS holds a package with its exact version on each line. A machine without pip cannot reach PyPI either.
from_pypi() {
    local requirements=$1 said missing
    shift
    said=$("$@" 2>&1) && return
    if grep -qE 'No module named pip$|python3: command not found$' <<<"$said"; then
        echo "left out: there is no Python with pip"
        exit 0
    fi
    missing=$(sed -nE 's/^ERROR: No matching distribution found for ([^ ]+).*/\1/p' <<<"$said")
    if grep -qE '^ERROR: (HTTP error|Could not install packages due to an OSError: HTTPS?ConnectionPool)' <<<"$said" ||
        { [ -n "$missing" ] && grep -q '^WARNING: Retrying' <<<"$said"; }; then
        echo "left out: PyPI cannot be reached"
        exit 0
    fi
    # A version that the file names was there when the file was written: this index lacks it, or it is for other machines.
    if [ -n "$missing" ] && grep -qxF "$missing" "$requirements"; then
        echo "left out: PyPI has no $missing for this machine"
        exit 0
    fi
    printf '%s\n' "$said" >&2
    exit 1
}
