// NaN and infinity: where the first is, and how many there are in each entry of dim 0.
//
// Tiles. The host launches as many blocks of 256 threads as there are vectors, 1024 at most in x; a thread takes every
// gridDim.x · 256-th vector of 16 bytes, and element by element where the start of the data is not a multiple of 16 bytes. For
// counts, blockIdx.y is the entry.
//
// Over time. One pass of loads and integer comparisons; then the lanes of a warp agree by shuffles, and one of them tells the
// result by an atomic minimum, or sum, of the warps that found something. Counts are whole numbers, exact in f64 in any order.
//
// The bound. Memory: each element is read once.
#include "../cuda/prelude.cuh"

// All bits of the exponent are set.
__device__ __forceinline__ bool not_finite(uint32_t word, float) { return (word & 0x7f800000u) == 0x7f800000u; }
__device__ __forceinline__ bool not_finite(uint32_t word, bf16) { return (word & 0x7f80u) == 0x7f80u; }
__device__ __forceinline__ bool not_finite(uint32_t word, f16) { return (word & 0x7c00u) == 0x7c00u; }

__device__ __forceinline__ uint32_t bits_of(float x) { return __float_as_uint(x); }
__device__ __forceinline__ uint32_t bits_of(bf16 x) { return x.bits; }
__device__ __forceinline__ uint32_t bits_of(f16 x) { return x.bits; }

// Calls f(index) for the elements of this thread that are NaN or infinite, in order.
template <typename T, typename F>
__device__ __forceinline__ void each_not_finite(const T* x, uint64_t n, F f) {
    uint64_t thread = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x, threads = (uint64_t)gridDim.x * blockDim.x;
    uint64_t vectors = ((uint64_t)x & 15) == 0 ? n / VECTOR<T> : 0;
    constexpr int HALVES = 4 / sizeof(T);
    for (uint64_t i = thread; i < vectors; i += threads) {
        Words<4> words = load_words<4>(x + i * VECTOR<T>);
#pragma unroll
        for (int j = 0; j < VECTOR<T>; j++)
            if (not_finite(words.word[j / HALVES] >> (j % HALVES * 16), T())) f(i * VECTOR<T> + j);
    }
    for (uint64_t i = vectors * VECTOR<T> + thread; i < n; i += threads)
        if (not_finite(bits_of(x[i]), T())) f(i);
}

// *first = min(*first, index of the first); the host sets it to the greatest number before.
template <typename T>
__device__ __forceinline__ void first_not_finite(const T* x, uint64_t n, uint64_t* first) {
    uint64_t found = ~0ull;
    each_not_finite(x, n, [&](uint64_t i) { found = i < found ? i : found; });
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        uint64_t other = __shfl_xor_sync(ALL_LANES, found, step);
        found = other < found ? other : found;
    }
    if (threadIdx.x % 32 == 0 && found != ~0ull) atomicMin(first, found);
}

// counts[entry] += how many; entries are `stride` elements apart.
template <typename T>
__device__ __forceinline__ void count_not_finite(const T* x, uint64_t n, uint64_t stride, double* counts) {
    double count = 0;
    each_not_finite(x + blockIdx.y * stride, n, [&](uint64_t) { count += 1; });
    count = lanes_sum(count);
    if (threadIdx.x % 32 == 0 && count > 0) atomicAdd(counts + blockIdx.y, count);
}

#define FINITE(type, T)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(256) first_not_finite_##type(const T* x, uint64_t n, uint64_t* first) {    \
        first_not_finite(x, n, first);                                                                                      \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(256)                                                                       \
        count_not_finite_##type(const T* x, uint64_t n, uint64_t stride, double* counts) {                                  \
        count_not_finite(x, n, stride, counts);                                                                             \
    }
FINITE(f32, float)
FINITE(bf16, bf16)
FINITE(f16, f16)
