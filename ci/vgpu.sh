#!/usr/bin/env bash
# Runs the tests that need a GPU, which `cargo test` ignores, on the virtual GPU (tests/vgpu): those of xdit-kernels on one of compute
# capability 8.0 under a lazy schedule, and of 9.0, which has kernels of its own, under a random one; and tests/gpu with small operands
# under a random schedule. Whatever it reports fails them: races, leaks, reads of memory that nothing wrote.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/doubles.sh

# All library tests of the workspace, so that the build of `cargo test --workspace` serves. A test fills the memory, so it is small.
ignored() {
    VGPU_POLICY=$policy VGPU_CC=$capability VGPU_MEM_MB=512 LD_LIBRARY_PATH=$doubles cargo test -q --workspace --lib -- --ignored "$@"
}
broken=ptx_that_the_driver_refuses # the virtual GPU reports such a kernel, as it should
for device in "lazy 80" "random 90"; do
    read -r policy capability <<<"$device"
    echo "the kernels' GPU tests, $policy, capability $capability"
    VGPU_EXITCODE=86 VGPU_LEAKS=1 ignored cuda gpu --skip "$broken"
    ignored "$broken"
    # Where GPUs do not reach each other's memory.
    VGPU_PEERS=0 VGPU_EXITCODE=86 VGPU_LEAKS=1 ignored one_gpu_to_another
done

echo "kernels, goldens and ranks, random"
VGPU_POLICY=random VGPU_SEED=7 VGPU_EXITCODE=86 VGPU_LEAKS=1 XDIT_GPU_TESTS=small LD_LIBRARY_PATH=$doubles \
    cargo test -q --workspace --test gpu -- --ignored --test-threads 2
