// Sums in f64 of a tensor's elements: distances of two tensors, moments, and the sums of sums.
//
// Tiles. A block of 256 threads adds up a chunk of CHUNK elements of the walk (its rows one after another), and stores the
// chunk's two sums. add_partials then adds the chunks, one warp for each number. So the order of additions follows from shapes
// alone: nothing is atomic, and every run gives the same bits.
//
// Over time. A thread adds every 256th vector of the chunk in f64, lanes add by shuffles, warps over shared memory. Chunks are
// small enough that a latent's tensor fills the device.
//
// Shared memory. Two f64 a warp.
//
// The bound. Memory on devices with full f64 units: 2 bytes an element in bf16 (4 for distances) for 2 fused steps in f64. Where
// f64 has 1/64 of the rate of f32, these steps are the bound: 16 million elements take about 0.1 ms.
#include "../cuda/prelude.cuh"

constexpr uint32_t CHUNK = 8192, THREADS = 256;

// The sums of a block, stored as partials[number · chunks + chunk] for number = 2 · entry and 2 · entry + 1.
__device__ __forceinline__ void store_sums(double first, double second, double* partials) {
    __shared__ double values[2][THREADS / 32];
    first = lanes_sum(first);
    second = lanes_sum(second);
    uint32_t lane = threadIdx.x % 32;
    if (lane == 0) values[0][threadIdx.x / 32] = first, values[1][threadIdx.x / 32] = second;
    __syncthreads();
    if (threadIdx.x >= 2) return;
    double sum = 0;
    for (uint32_t w = 0; w < THREADS / 32; w++) sum += values[threadIdx.x][w];
    partials[(2 * blockIdx.y + threadIdx.x) * gridDim.x + blockIdx.x] = sum;
}

// Calls f(offsets of the row, first element in the row) for each V elements of this thread in its block's chunk.
template <int V, int N, typename F>
__device__ __forceinline__ void each_of_chunk(const Walk<N>& walk, F f) {
    uint64_t vectors = (walk.len + V - 1) / V, all = walk.rows * vectors;
    uint64_t end = (uint64_t)(blockIdx.x + 1) * (CHUNK / V);
    for (uint64_t i = (uint64_t)blockIdx.x * (CHUNK / V) + threadIdx.x; i < end && i < all; i += THREADS) {
        uint64_t at[N];
        uint64_t row = i / vectors;
        walk.offsets((uint32_t)row, at);
        f(at, (i - row * vectors) * V);
    }
}

// Σ(fresh − stale)² and Σfresh².
template <typename T, int V, bool ALIGNED>
__device__ __forceinline__ void distance(const Walk<2>& walk, const T* fresh, const Operand& stale, double* partials) {
    double moved = 0, norm = 0;
    each_of_chunk<V>(walk, [&](const uint64_t(&at)[2], uint64_t first) {
        float x[V], y[V];
        load_row<ALIGNED>(fresh + at[0], first, walk.len, x);
        load_operand<ALIGNED, T>(stale, at[1], first, walk.len, 0.0f, y);
#pragma unroll
        for (int j = 0; j < V; j++) {
            double fresh_value = x[j], far = fresh_value - (double)y[j];
            moved += far * far;
            norm += fresh_value * fresh_value;
        }
    });
    store_sums(moved, norm, partials);
}

// Σx and Σx² of entry blockIdx.y, which begins that many strides behind the first.
template <typename T, int V, bool ALIGNED>
__device__ __forceinline__ void moments(const Walk<1>& walk, const T* x, uint64_t entry_stride, double* partials) {
    double sum = 0, squares = 0;
    each_of_chunk<V>(walk, [&](const uint64_t(&at)[1], uint64_t first) {
        float v[V];
        load_row<ALIGNED>(x + blockIdx.y * entry_stride + at[0], first, walk.len, v);
#pragma unroll
        for (int j = 0; j < V; j++) {
            double value = v[j];
            sum += value;
            squares += value * value;
        }
    });
    store_sums(sum, squares, partials);
}

#define SUMS(type, T)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                   \
        distance_##type(Walk<2> walk, const T* fresh, OPERAND(stale), double* partials, uint32_t aligned) {                  \
        if (aligned)                                                                                                        \
            distance<T, VECTOR<T>, true>(walk, fresh, OPERAND_OF(stale), partials);                                                     \
        else                                                                                                                \
            distance<T, 1, false>(walk, fresh, OPERAND_OF(stale), partials);                                                            \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                   \
        moments_##type(Walk<1> walk, const T* x, uint64_t entry_stride, double* partials, uint32_t aligned) {               \
        if (aligned)                                                                                                        \
            moments<T, VECTOR<T>, true>(walk, x, entry_stride, partials);                                                   \
        else                                                                                                                \
            moments<T, 1, false>(walk, x, entry_stride, partials);                                                          \
    }
SUMS(f32, float)
SUMS(bf16, bf16)
SUMS(f16, f16)

// numbers[blockIdx.x] += the sum of its `chunks` partials. One warp.
extern "C" __global__ void __launch_bounds__(32) add_partials(const double* partials, uint32_t chunks, double* numbers) {
    double sum = 0;
    for (uint32_t i = threadIdx.x; i < chunks; i += 32) sum += partials[(uint64_t)blockIdx.x * chunks + i];
    sum = lanes_sum(sum);
    if (threadIdx.x == 0) numbers[blockIdx.x] += sum;
}

// numbers[i] += more[i].
extern "C" __global__ void __launch_bounds__(THREADS) add_numbers(double* numbers, const double* more, uint32_t count) {
    uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i < count) numbers[i] += more[i];
}
