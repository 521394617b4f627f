// Instructions of the tensor units and of asynchronous copies, and where a tile lies in shared memory.
#pragma once
#include "call.cuh"

__device__ __forceinline__ uint32_t shared_address(const void* p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

// Copies 16 bytes, or writes 16 bytes of 0.
__device__ __forceinline__ void copy_async(uint32_t to, const void* from, bool copies) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(copies ? 16 : 0) : "memory");
}

__device__ __forceinline__ void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most N groups of this thread's copies are not complete.
template <int N>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four matrices of 8 x 8; lane i names row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], uint32_t from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], uint32_t from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
}

// sums += a b: 16 rows, 8 columns, k = 16.
template <class T>
__device__ __forceinline__ void multiply(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void multiply<bf16>(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply<f16>(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A tile of rows of D numbers of 16 bits, without padding. The 16-byte chunks of a row are permuted within groups, so that
// eight rows of one chunk lie in eight different groups of four banks, for stores of a row as for `ldmatrix`.
template <int D>
struct Swizzled {
    static constexpr int PITCH = D * 2, CHUNKS = D / 8, GROUP = CHUNKS % 8 == 0 ? 8 : 4;
    static_assert(CHUNKS % GROUP == 0, "a row is whole groups");

    static __device__ __forceinline__ uint32_t address(uint32_t tile, int row, int chunk) {
        int turn = GROUP == 8 ? row & 7 : row >> 1 & 3;
        return tile + row * PITCH + (chunk ^ turn) * 16;
    }

    // From the address of one row and a chunk of 0 or 1: so many rows (of a multiple of 8) and chunks (of a multiple of 2) on.
    static __device__ __forceinline__ uint32_t further(uint32_t address, int rows, int chunks) {
        return (address ^ chunks % GROUP * 16) + chunks / GROUP * GROUP * 16 + rows * PITCH;
    }
};
