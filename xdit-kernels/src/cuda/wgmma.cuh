// What only compute capability 9.0 has: barriers in shared memory, copies of tiles by the asynchronous unit (TMA), and products
// of warpgroups (wgmma) with a right side in shared memory.
#pragma once
#include "matrix.cuh"

// A tensor in global memory and the box of it that one copy moves: the host encodes it (cuda/tensor_map.rs).
struct alignas(64) TensorMap {
    uint64_t opaque[16];
};

// ---- Barriers: a phase ends when `count` threads have arrived and all bytes that they expect have come

__device__ __forceinline__ void barrier_init(uint32_t at, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count) : "memory");
}
// Makes initialised barriers visible to the asynchronous unit. Threads of the block need a __syncthreads besides.
__device__ __forceinline__ void barrier_init_done() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void barrier_arrive(uint32_t at) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint32_t at, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}
// Waits for the end of the phase with this parity. The phase before the first has ended: its parity is 1.
__device__ __forceinline__ void barrier_wait(uint32_t at, uint32_t parity) {
    asm volatile("{\n.reg .pred p;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra AGAIN;\n\t}" ::"r"(at),
                 "r"(parity)
                 : "memory");
}

// ---- A ring of SLOTS slots: which one is next, and in which round

template <int SLOTS>
struct Ring {
    uint32_t slot = 0, round = 0;

    __device__ __forceinline__ void advance() {
        if (++slot == SLOTS) slot = 0, round ^= 1;
    }
};

// ---- Copies of tiles

// Starts to copy the box at these coordinates, the innermost first, which the barrier expects. What lies outside of the tensor
// is 0.
__device__ __forceinline__ void load_box(uint32_t to, const TensorMap& map, uint32_t barrier, int c0, int c1, int c2, int c3) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
                 "l"(&map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
                 : "memory");
}

// ---- Products of a warpgroup. Sums of a thread: of rows lane / 4 and lane / 4 + 8 of its warp's 16, columns lane % 4 * 2 and the next
// of each 8.

// A matrix in shared memory whose rows are WIDTH numbers of 16 bits, with chunks of 16 bytes permuted as the copies do: within
// 128 bytes (WIDTH 64) or 64 bytes (WIDTH 32). `next` is the distance in bytes to the next WIDTH columns, for matrices that lie
// with k outside.
template <int WIDTH>
struct Matrix {
    static_assert(WIDTH == 64 || WIDTH == 32, "the swizzles of the copies");
    uint32_t low; // the half of the descriptor that differs between matrices

    __device__ __forceinline__ Matrix(uint32_t at, uint32_t next = 16) : low(at >> 4 | next >> 4 << 16) {}

    // The descriptor of the matrix `bytes` bytes further on.
    __device__ __forceinline__ uint64_t further(uint32_t bytes) const {
        constexpr uint64_t EIGHT_ROWS = 8 * WIDTH * 2, SWIZZLE = WIDTH == 64 ? 1 : 2;
        return (uint64_t)(low + (bytes >> 4)) | (EIGHT_ROWS >> 4 << 32 | SWIZZLE << 62);
    }
};

// Orders what a warp did to registers before products that use them.
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Ends a group of products.
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

#define FLOATS_4(d, j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define FLOATS_16(d, j) FLOATS_4(d, j), FLOATS_4(d, j + 1), FLOATS_4(d, j + 2), FLOATS_4(d, j + 3)
#define FLOATS_32(d, j) FLOATS_16(d, j), FLOATS_16(d, j + 4)
#define PLACES_16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define PLACES_32 PLACES_16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define PLACES_48 PLACES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define PLACES_64 PLACES_48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define SUMS_16(d) FLOATS_16(d, 0)
#define SUMS_32(d) FLOATS_32(d, 0)
#define SUMS_48(d) FLOATS_32(d, 0), FLOATS_16(d, 8)
#define SUMS_64(d) FLOATS_32(d, 0), FLOATS_32(d, 8)

// sums = a b^T (ADDS 0) or sums += a b^T: 64 rows of a, 128 of b, k = 16; both lie with k inside.
#define MULTIPLY_ROWS(T, name)                                                                                                   \
    template <int ADDS>                                                                                                          \
    __device__ __forceinline__ void multiply_rows(float (&sums)[16][4], uint64_t a, uint64_t b, T) {                             \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\nwgmma.mma_async.sync.aligned.m64n128k16.f32." name "." name      \
                     " {" PLACES_64 "}, %64, %65, p, 1, 1, 0, 0;\n\t}"                                                           \
                     : SUMS_64(sums)                                                                                             \
                     : "l"(a), "l"(b), "n"(ADDS));                                                                               \
    }
MULTIPLY_ROWS(bf16, "bf16")
MULTIPLY_ROWS(f16, "f16")

// sums += a b: 64 rows of a, which lie in registers as those of mma do, k = 16; b lies with k outside. N columns, NUMBERS sums
// a thread.
#define MULTIPLY_COLUMNS(T, name, N, NUMBERS, A0, A1, A2, A3, B)                                                                 \
    __device__ __forceinline__ void multiply_columns(float (&sums)[NUMBERS / 4][4], const uint32_t (&a)[4], uint64_t b, T) {     \
        asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\nwgmma.mma_async.sync.aligned.m64n" N "k16.f32." name "." name      \
                     " {" PLACES_##NUMBERS "}, {" A0 "," A1 "," A2 "," A3 "}, " B ", p, 1, 1, 1;\n\t}"                           \
                     : SUMS_##NUMBERS(sums)                                                                                      \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                                      \
    }
#define MULTIPLY_COLUMNS_OF(T, name)                                                                                             \
    MULTIPLY_COLUMNS(T, name, "32", 16, "%16", "%17", "%18", "%19", "%20")                                                       \
    MULTIPLY_COLUMNS(T, name, "64", 32, "%32", "%33", "%34", "%35", "%36")                                                       \
    MULTIPLY_COLUMNS(T, name, "96", 48, "%48", "%49", "%50", "%51", "%52")                                                       \
    MULTIPLY_COLUMNS(T, name, "128", 64, "%64", "%65", "%66", "%67", "%68")
MULTIPLY_COLUMNS_OF(bf16, "bf16")
MULTIPLY_COLUMNS_OF(f16, "f16")

// Waits until at most GROUPS groups of products are not complete. Naming the sums keeps the compiler from reading them before.
#define PRODUCTS_WAIT(NUMBERS)                                                                                                   \
    template <int GROUPS>                                                                                                        \
    __device__ __forceinline__ void products_wait(float (&sums)[NUMBERS / 4][4]) {                                               \
        asm volatile("wgmma.wait_group.sync.aligned %" #NUMBERS ";" : SUMS_##NUMBERS(sums) : "n"(GROUPS) : "memory");            \
    }
PRODUCTS_WAIT(16)
PRODUCTS_WAIT(32)
PRODUCTS_WAIT(48)
PRODUCTS_WAIT(64)

// Waits until THREADS threads have come to barrier `id` of the block, or comes without waiting.
template <int THREADS>
__device__ __forceinline__ void meet(int id) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(THREADS) : "memory");
}
template <int THREADS>
__device__ __forceinline__ void come(int id) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "n"(THREADS) : "memory");
}

// Changes how many registers a thread of the warpgroup may have.
template <int COUNT>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}
