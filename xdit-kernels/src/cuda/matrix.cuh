// Asynchronous copies to shared memory, and the instructions of tensor units.
#pragma once
#include "prelude.cuh"

__device__ __forceinline__ uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// Copies 16 or 4 bytes to shared memory, or writes as many zeros.
__device__ __forceinline__ void copy_async_16(uint32_t to, const void* from, bool copies) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(copies ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy_async_4(uint32_t to, const void* from, bool copies) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(copies ? 4 : 0) : "memory");
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N groups of this thread's copies are not complete.
template <int N>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four matrices of 8 x 8 numbers of 16 bits, as they lie or transposed; lane i names row i % 8 of matrix i / 8.
#define LOAD_MATRICES(name, how)                                                                                       \
    __device__ __forceinline__ void name(uint32_t (&to)[4], uint32_t from) {                                           \
        asm volatile("ldmatrix.sync.aligned.m8n8.x4" how ".shared.b16 {%0,%1,%2,%3}, [%4];"                            \
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])                                              \
                     : "r"(from)                                                                                       \
                     : "memory");                                                                                      \
    }
LOAD_MATRICES(load_matrices, "")
LOAD_MATRICES(load_matrices_transposed, ".trans")

// Four floats of shared memory. Plain loads would do; but from these NVRTC makes the same PTX in every run.
__device__ __forceinline__ void load_shared_4(float* to, uint32_t from) {
    asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(to[0]), "=f"(to[1]), "=f"(to[2]), "=f"(to[3]) : "r"(from) : "memory");
}

// sums += a b: 16 rows, 8 columns, k = 16.
#define MULTIPLY(T, name)                                                                                              \
    __device__ __forceinline__ void multiply(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, T) {  \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name                                            \
                     ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                      \
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                      \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                  \
    }
MULTIPLY(bf16, "bf16")
MULTIPLY(f16, "f16")
