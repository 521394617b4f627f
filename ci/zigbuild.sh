# Sourced. Puts cargo-zigbuild in the path, which links against an old glibc, and sets $glibc to that version. Without one in the path,
# it takes it and zig from PyPI.
zigbuild=0.24.1
zig=0.17.1
glibc=2.17
build=$(realpath -m "${CARGO_TARGET_DIR:-target}")
if ! command -v cargo-zigbuild >/dev/null; then
    tools=$build/ci/zigbuild-$zigbuild-$zig
    [ -x "$tools/bin/cargo-zigbuild" ] || {
        python3 -m venv "$tools"
        "$tools/bin/pip" install -q "cargo-zigbuild==$zigbuild" "ziglang==$zig"
    }
    export PATH=$tools/bin:$PATH
fi

# Fails if a binary of this target needs symbols of a newer glibc.
needs_old_glibc() {
    local newest
    newest=$(grep -aoE 'GLIBC_[0-9]+\.[0-9]+' "$2" | sed 's/GLIBC_//' | sort -uV | tail -1)
    if [ "$(printf '%s\n' "$newest" "$glibc" | sort -V | tail -1)" != "$glibc" ]; then
        echo "$1: $(basename "$2") needs glibc $newest, not $glibc" >&2
        return 1
    fi
}
