#!/usr/bin/env bash
# Runs cudarc's own tests of the driver and of cuBLASLt on the virtual GPU (tests/vgpu), under an eager, a lazy and a random
# schedule; a report is a failure. Their source is the one that cargo fetched; the NVRTC that ci/nvrtc.txt pins compiles their
# kernels.
# Without the registry or PyPI the script says so and ends with 0 (ci/registry.sh). Everything else that goes wrong is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/registry.sh

# What is left out, and why: parts of the names of tests.
skipped=(
    # Tests that cudarc itself ignores stay so; of those for several devices the virtual GPU reports that two streams are not
    # ordered (peer_transfer_contexts).
    unified_memory                     # managed memory: no kernel of ours uses it
    non_primary from_raw_context       # contexts that are not primary
    test_matmul_f32                    # asks for TF32, to which the double rounds, and compares with f32
    faster                             # compares times, and the virtual GPU has none
    test_par_launch test_multi_stream  # so do these: kernels that run for long, to overlap
    test_launch_arrays test_launch_with_8bit test_launch_with_16bit test_launch_with_32bit test_launch_with_64bit
    test_launch_with_floats            # kernels that call assert(), which the interpreter refuses to load
    test_launch_with_half              # includes headers of CUDA that the pinned packages lack
)

source ci/doubles.sh
tools=$target/ci/nvrtc-$(sha256sum ci/nvrtc.txt | cut -c1-12)
if [ ! -d "$tools" ]; then
    rm -rf "$tools.part"
    from_pypi ci/nvrtc.txt python3 -m pip install -q --no-deps --target "$tools.part" -r ci/nvrtc.txt
    mv "$tools.part" "$tools"
fi

manifest=$(cargo metadata --format-version 1 | grep -oE '"manifest_path":"[^"]*/cudarc-[0-9.]+/Cargo.toml"' | head -1 | cut -d'"' -f4)
source=$target/ci/cudarc
mkdir -p "$source"
cp -r "$(dirname "$manifest")/." "$source"
printf '\n[workspace]\n' >>"$source/Cargo.toml" # it lies in this one's folder, and is no member
features=std,driver,nvrtc,f16,cublaslt,fallback-dynamic-loading,cuda-13000
build() {
    (cd "$source" && CARGO_TARGET_DIR=$source/target cargo test -q --lib --no-default-features --features "$features" "$@")
}
from_registry "$source/Cargo.lock" build --no-run

libraries=$doubles:$(find "$tools" -name 'libnvrtc.so.*' -printf '%h\n' | head -1)
skip=()
for name in "${skipped[@]}"; do skip+=(--skip "$name"); done
for policy in eager lazy random; do
    echo "cudarc's tests, $policy"
    VGPU_EXITCODE=86 VGPU_POLICY=$policy LD_LIBRARY_PATH=$libraries build -- --test-threads=1 driver:: cublaslt:: "${skip[@]}"
done
