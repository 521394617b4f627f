// compute_90a
// c[m, n] = a[m, k] b[n, k]^T in bf16 with f32 sums, m and n multiples of 64, k of 64. One thread of the first warpgroup lets
// the copy unit fill a ring of stages; the second warpgroup multiplies. mbarriers pass the stages to and fro.
#include "prelude.h"

constexpr int STAGES = 3, DEPTH = 64, TILE = 64;

struct alignas(1024) Ring {
    __nv_bfloat16 a[STAGES][TILE * DEPTH], b[STAGES][TILE * DEPTH];
    float out[TILE * TILE];
    uint64_t full[STAGES], empty[STAGES];
};

__device__ __forceinline__ void barrier_init(uint32_t at, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count));
}

__device__ __forceinline__ void barrier_expect(uint32_t at, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint32_t at) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}

__device__ __forceinline__ void barrier_wait(uint32_t at, int parity) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "AGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
        "@p bra DONE;\n"
        "bra AGAIN;\n"
        "DONE:\n"
        "}" ::"r"(at), "r"(parity) : "memory");
}

__device__ __forceinline__ void load_tile(uint32_t to, const TensorMap* map, uint32_t barrier, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(x), "r"(y)
                 : "memory");
}

__device__ __forceinline__ void store_tile(const TensorMap* map, uint32_t from, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map), "r"(from), "r"(x), "r"(y)
                 : "memory");
}

// A matrix whose rows of 128 bytes are permuted within groups of eight rows.
__device__ __forceinline__ uint64_t descriptor(uint32_t at) {
    return (uint64_t)((at & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

__device__ __forceinline__ void multiply(float (&d)[32], uint64_t a, uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
        "%32, %33, 1, 1, 1, 0, 0;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),
          "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]),
          "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
          "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "l"(a), "l"(b));
}

extern "C" __global__ void __launch_bounds__(256, 1)
    gemm_wgmma(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap c, int k) {
    extern __shared__ uint8_t raw[];
    Ring& ring = *(Ring*)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
    int rows = blockIdx.y * TILE, columns = blockIdx.x * TILE, steps = k / DEPTH;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(shared_address(&ring.full[i]), 1);
            barrier_init(shared_address(&ring.empty[i]), 1);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) {
            for (int step = 0; step < steps; step++) {
                int s = step % STAGES, phase = step / STAGES & 1;
                barrier_wait(shared_address(&ring.empty[s]), phase ^ 1);
                barrier_expect(shared_address(&ring.full[s]), 2 * TILE * DEPTH * 2);
                load_tile(shared_address(ring.a[s]), &a, shared_address(&ring.full[s]), step * DEPTH, rows);
                load_tile(shared_address(ring.b[s]), &b, shared_address(&ring.full[s]), step * DEPTH, columns);
            }
        }
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    float sums[32] = {};
    for (int step = 0; step < steps; step++) {
        int s = step % STAGES, phase = step / STAGES & 1;
        barrier_wait(shared_address(&ring.full[s]), phase);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int kk = 0; kk < DEPTH; kk += 16)
            multiply(sums, descriptor(shared_address(ring.a[s]) + kk * 2), descriptor(shared_address(ring.b[s]) + kk * 2));
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        asm volatile("bar.sync 1, 128;" ::: "memory");
        if (threadIdx.x == 128) barrier_arrive(shared_address(&ring.empty[s]));
    }
    int t = threadIdx.x - 128, row = t / 32 * 16 + t % 32 / 4;
#pragma unroll
    for (int i = 0; i < 32; i++) ring.out[(row + i / 2 % 2 * 8) * TILE + i / 4 * 8 + t % 4 * 2 + i % 2] = sums[i];
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("bar.sync 1, 128;" ::: "memory");
    if (t == 0) {
        store_tile(&c, shared_address(ring.out), columns, rows);
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
}
