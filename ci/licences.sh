#!/usr/bin/env bash
# Prints the licences of the crates that are part of the binary xdit-cli: they ask to be with each copy of it. A text that
# several crates have is printed once, below their names. Fails if a crate has no file with its licence.
#
#     ci/licences.sh [TARGET]
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-$(rustc -vV | sed -n 's/^host: //p')}
sources=${CARGO_HOME:-$HOME/.cargo}/registry/src
tree=$(cargo tree --locked -p xdit-cli -e normal,no-proc-macro --target "$target" --prefix none --format '{p}')

declare -A crates files
order=()
while read -r name version where; do
    [ -z "$where" ] || continue # a crate of this workspace, whose licence is LICENSE
    found=0
    for file in "$sources"/*/"$name-${version#v}"/*; do
        case ${file##*/} in
            [Ll][Ii][Cc][Ee][Nn][CcSs][Ee]* | COPYING* | NOTICE* | UNLICENSE*) [ -f "$file" ] || continue ;;
            *) continue ;;
        esac
        found=1
        hash=$(sha256sum <"$file")
        [ -n "${files[$hash]-}" ] || order+=("$hash")
        files[$hash]=$file
        crates[$hash]+="$name $version"$'\n'
    done
    [ "$found" = 1 ] || { echo "$name $version: no file with its licence in $sources" >&2; exit 1; }
done < <(sed 's/ (\*)$//' <<<"$tree" | sort -u)
[ "${#order[@]}" -gt 0 ] || { echo "no crates in $sources" >&2; exit 1; }

for hash in "${order[@]}"; do
    printf '%s\n%s\n\n' "$(sort -u <<<"${crates[$hash]%$'\n'}")" "$(printf '=%.0s' {1..80})"
    cat "${files[$hash]}"
    printf '\n\n'
done
