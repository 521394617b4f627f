// Softmax over rows: e^(x − greatest) over the sum of these.
//
// Tiles and time. As the norms' (norm/norm.cu): as few warps as hold a row in registers, several rows a block where one warp
// holds a row. (1) Loads and the greatest, (2) the sum of the exponentials, (3) the exponentials once more, times 1 over the
// sum: what a 16-bit output could not hold in between stays out of the registers, which leaves them to more rows in flight.
//
// Shared memory. One float a warp for each of the two reductions.
//
// The bound. Memory, 4 bytes an element in bf16. Two exponentials an element are 1/8 of what the special units do in the time of
// these 4 bytes.
//
// −∞ gives 0; a row of nothing but −∞, or with NaN or +∞ in it, gives NaN.
#include "../cuda/prelude.cuh"

// e^x for x ≤ 0; exactly 0 below −87, where f32 has no normal number; NaN for NaN.
__device__ __forceinline__ float exp_of(float x) { return x < -87.0f ? 0.0f : expf(x); }

template <typename T, int V, bool ALIGNED, int KEPT>
__device__ __forceinline__ void softmax_row(const T* x, T* out, uint64_t len) {
    __shared__ WarpValues<1> greatest_values, sums;
    Row<T, V, ALIGNED, KEPT> row(x, len);
    float greatest = minus_infinity(), sum[1] = {0};
    row.each([&](uint64_t, const float(&v)[V]) {
#pragma unroll
        for (int j = 0; j < V; j++) greatest = fmaxf(greatest, v[j]);
    });
    greatest = row_max(greatest, greatest_values);
    row.each([&](uint64_t, const float(&v)[V]) {
#pragma unroll
        for (int j = 0; j < V; j++) sum[0] += exp_of(v[j] - greatest);
    });
    row_sums(sum, sums);
    float scale = 1.0f / sum[0];
    row.each([&](uint64_t i, const float(&v)[V]) {
        float y[V];
#pragma unroll
        for (int j = 0; j < V; j++) y[j] = exp_of(v[j] - greatest) * scale;
        store_row<ALIGNED>(out, i, len, y);
    });
}

template <typename T>
__device__ __forceinline__ void softmax(const Walk<2>& walk, const T* x, T* out, uint32_t aligned) {
    uint32_t row = blockIdx.x * blockDim.y + threadIdx.y;
    // Where rows share a block each is a whole warp, and nobody waits for it.
    if (row >= walk.rows) return;
    uint64_t at[2];
    walk.offsets(row, at);
    if (aligned)
        softmax_row<T, VECTOR<T>, true, KEPT_VECTORS>(x + at[0], out + at[1], walk.len);
    else
        softmax_row<T, 1, false, 0>(x + at[0], out + at[1], walk.len);
}

#define SOFTMAX(name, T)                                                                                                \
    extern "C" __global__ void __launch_bounds__(1024) name(Walk<2> walk, const T* x, T* out, uint32_t aligned) {       \
        softmax(walk, x, out, aligned);                                                                                 \
    }
SOFTMAX(softmax_f32, float)
SOFTMAX(softmax_bf16, bf16)
SOFTMAX(softmax_f16, f16)
