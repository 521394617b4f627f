#!/usr/bin/env bash
# The archives of a release: xdit-cli for x86-64 and aarch64, for every Linux with glibc 2.17 (2012) or newer.
#
#     ci/release.sh [TARGET…]     writes target/release-archives/xdit-cli-VERSION-TARGET.tgz and .sha256
#
# The binaries contain everything but the C library. musl would make them wholly static, but keep_freed_memory of xdit-kernels
# is a setting of glibc's allocator.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/zigbuild.sh
targets=("${@:-x86_64-unknown-linux-gnu}")
[ $# -gt 0 ] || targets+=(aarch64-unknown-linux-gnu)

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' xdit-cli/Cargo.toml | head -1)
archives=$build/release-archives
mkdir -p "$archives"

# Runs a binary of this target, emulated if the machine is another one. Fails if that is impossible.
run() {
    local target=$1 arch=${1%%-*}
    shift
    if [ "$arch" = "$(uname -m)" ]; then
        "$@"
    else
        "qemu-$arch" -L "/usr/${target/-unknown/}" "$@"
    fi
}

for target in "${targets[@]}"; do
    rustup target add "$target" >/dev/null 2>&1 || true
    cargo zigbuild --locked --profile dist -p xdit-cli --target "$target.$glibc"
    binary=$build/$target/dist/xdit-cli
    needs_old_glibc "$target" "$binary"

    name=xdit-cli-$version-$target
    stage=$build/release-archives/$name
    rm -rf "$stage"
    mkdir -p "$stage"
    cp "$binary" LICENSE xdit-cli/README.md xdit-cli/CHANGELOG.md "$stage/"
    ci/licences.sh "$target" >"$stage/THIRD-PARTY-LICENCES.txt"

    # The binary itself writes its completions and man pages; then it draws a picture and repeats it.
    if [ "${target%%-*}" = "$(uname -m)" ] || command -v "qemu-${target%%-*}" >/dev/null; then
        run "$target" "$binary" --version
        mkdir "$stage/completions"
        for shell in bash elvish fish powershell zsh; do
            run "$target" "$binary" completions "$shell" >"$stage/completions/xdit-cli.$shell"
        done
        run "$target" "$binary" man --output-dir "$stage/man"
        picture=$stage/first.png
        run "$target" "$binary" generate --prompt "a yellow square in the top right on a blue background" --output "$picture"
        run "$target" "$binary" replay "$picture"
        rm "$picture"
    else
        echo "$target: not run, there is no qemu-${target%%-*} (Debian: apt-get install qemu-user)" >&2
    fi

    # The same files give the same archive.
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-0}" -C "$archives" -cf - "$name" |
        gzip -9n >"$archives/$name.tgz"
    rm -rf "$stage"
    (cd "$archives" && sha256sum "$name.tgz" >"$name.tgz.sha256" && cat "$name.tgz.sha256")
done
