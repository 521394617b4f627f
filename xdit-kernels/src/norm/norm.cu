// Layer norm and RMS norm over rows, with what follows them: times a gain, plus a bias.
//
// The work. out = (x − mean)/√(variance + eps) · gain + bias, or out = x/√(mean of x² + eps) · gain. Gain and bias have a row
// for each `rows_each` rows of x: one for all (weight and bias), or one a batch entry (modulation, where 1 is added to the
// gain). They may be of another type than x, and absent.
//
// Tiles. A block has blockDim.x threads along a row; the host takes as few warps as keep the row in registers, 2 vectors of 16
// bytes a thread: 1 warp up to 1 KiB, 6 warps for 3072 elements in bf16, 32 warps for 32 KiB. Where one warp is enough, a block
// is blockDim.y such warps with a row each, and needs no barrier. Longer rows, and rows that are not whole vectors, go element
// by element and are read again in each pass, from the caches.
//
// Over time. (1) All loads of a row are issued, then added up. (2) The deviations from the mean and their squares are added
// up, in registers; what the mean is off by, rounded as it is, comes out as the mean of the deviations (Chan, Golub and
// LeVeque 1983). (3) Gain and bias are loaded, from the L2 cache after the first rows, and the row is stored. Each sum is 5
// shuffles in a warp, then one barrier and 5 more shuffles between warps.
//
// Shared memory. One float a warp for each sum: 3 · 128 bytes, for either way to go.
//
// The bound. Memory: each element is read once and written once, 4 bytes an element in bf16. A thread has 57 registers at most,
// so 32 warps a multiprocessor hold 32 KiB of loads in flight, several times what latency times bandwidth asks for.
//
// Against the processor's kernel: sums are added in another order, and the mean is that of the whole row, not of an eighth.
// The rest is equal: deviation · 1/√ and offset in one fused step, gain and bias in a second one.
#include "../cuda/prelude.cuh"

struct Affine {
    Operand gain, bias;
    uint32_t rows_each;
    float gain_plus;  // added to the gain: 1 where it is a scale
};

template <typename T, int V, bool ALIGNED, int KEPT, bool LAYER>
__device__ __forceinline__ void norm_row(const T* x, T* out, uint64_t len, const Affine& affine, uint64_t parameter, float eps) {
    __shared__ WarpValues<1> sums;
    __shared__ WarpValues<2> moments;
    Row<T, V, ALIGNED, KEPT> row(x, len);
    float mean = 0, off = 0, scale;
    if constexpr (LAYER) {
        float sum[1] = {0};
        row.each([&](uint64_t, const float(&v)[V]) {
#pragma unroll
            for (int j = 0; j < V; j++) sum[0] += v[j];
        });
        row_sums(sum, sums);
        mean = sum[0] / (float)len;
        float rest[2] = {0, 0};
        row.each([&](uint64_t, const float(&v)[V]) {
#pragma unroll
            for (int j = 0; j < V; j++) {
                float d = v[j] - mean;
                rest[0] += d;
                rest[1] = __fmaf_rn(d, d, rest[1]);
            }
        });
        row_sums(rest, moments);
        off = rest[0] / (float)len;
        scale = 1.0f / sqrtf(rest[1] / (float)len - off * off + eps);
    } else {
        float square[1] = {0};
        row.each([&](uint64_t, const float(&v)[V]) {
#pragma unroll
            for (int j = 0; j < V; j++) square[0] = __fmaf_rn(v[j], v[j], square[0]);
        });
        row_sums(square, sums);
        scale = 1.0f / sqrtf(square[0] / (float)len + eps);
    }
    float offset = -off * scale;
    row.each([&](uint64_t i, const float(&v)[V]) {
        float gain[V], bias[V], y[V];
        load_operand<ALIGNED, T>(affine.gain, parameter * affine.gain.stride, i, len, 1.0f, gain);
        if constexpr (LAYER) load_operand<ALIGNED, T>(affine.bias, parameter * affine.bias.stride, i, len, 0.0f, bias);
#pragma unroll
        for (int j = 0; j < V; j++) {
            if constexpr (LAYER)
                y[j] = __fmaf_rn(__fmaf_rn(v[j] - mean, scale, offset), __fadd_rn(gain[j], affine.gain_plus), bias[j]);
            else
                y[j] = __fmul_rn(__fmul_rn(v[j], scale), gain[j]);
        }
        store_row<ALIGNED>(out, i, len, y);
    });
}

template <typename T, bool LAYER>
__device__ __forceinline__ void norm(const Walk<2>& walk, const T* x, T* out, const Affine& affine, float eps, uint32_t aligned) {
    uint32_t row = blockIdx.x * blockDim.y + threadIdx.y;
    // Where rows share a block each is a whole warp, and nobody waits for it.
    if (row >= walk.rows) return;
    uint64_t at[2];
    walk.offsets(row, at);
    uint64_t parameter = row / affine.rows_each;
    if (aligned)
        norm_row<T, VECTOR<T>, true, KEPT_VECTORS, LAYER>(x + at[0], out + at[1], walk.len, affine, parameter, eps);
    else
        norm_row<T, 1, false, 0, LAYER>(x + at[0], out + at[1], walk.len, affine, parameter, eps);
}

#define NORM(name, T, layer)                                                                                          \
    extern "C" __global__ void __launch_bounds__(1024)                                                                \
        name(Walk<2> walk, const T* x, T* out, OPERAND(gain), OPERAND(bias), uint32_t rows_each, float gain_plus,     \
             float eps, uint32_t aligned) {                                                                           \
        norm<T, layer>(walk, x, out, Affine{OPERAND_OF(gain), OPERAND_OF(bias), rows_each, gain_plus}, eps, aligned); \
    }
NORM(layer_norm_f32, float, true)
NORM(layer_norm_bf16, bf16, true)
NORM(layer_norm_f16, f16, true)
NORM(rms_norm_f32, float, false)
NORM(rms_norm_bf16, bf16, false)
NORM(rms_norm_f16, f16, false)
