// Activations of single elements, times another operand where there is one (gated units).
//
// Tiles, time and bound. As elementwise/elementwise.cu: a vector of 16 bytes a thread, no sharing; memory, 4 bytes an element in
// bf16, 6 where gated. GELU and SiLU take one power of 2 and one reciprocal an element from the special units, a quarter of what
// these do in the time of 4 bytes.
//
// The functions are those of the processor (activation/math.rs), term by term; only the power of 2 is the special unit's (good to
// 2 units in the last place) in place of a polynomial. NaN stays NaN; where torch gives a finite value so does this.
#include "../cuda/prelude.cuh"

enum Function : uint32_t { GELU_TANH, GELU_ERF, QUICK_GELU, SILU, RELU };

constexpr float LOG2_E = 1.44269504f, SQRT_2_OVER_PI = 0.797884561f;

// x·σ(−k·ln 2·x) as x / (1 + 2^(k·x)), for a k ≤ −1 that may depend on x. The power is at most 2^125, where the quotient is
// nothing for any x.
__device__ __forceinline__ float sigmoid_times(float x, float k) {
    float bounded = x < -256.0f ? -256.0f : x;
    return bounded * __frcp_rn(exp2_fast(fminf(__fmul_rn(x, k), 125.0f)) + 1.0f);
}

// x·σ(2u) with u = √(2/π)(x + 0.044715x³) (Hendrycks and Gimpel, arXiv:1606.08415, section 2).
__device__ __forceinline__ float gelu_tanh(float x) {
    constexpr float LINEAR = -2.0f * SQRT_2_OVER_PI * LOG2_E;
    return sigmoid_times(x, __fmaf_rn(__fmul_rn(x, x), LINEAR * 0.044715f, LINEAR));
}

// x·Φ(x) as max(x, 0) − |x|·Q(|x|), Q(z)·e^(z²/2) = t·P(t), t = 1/(1 + 0.35z): see activation/math.rs.
__device__ __forceinline__ float gelu_erf(float x) {
    float z = fminf(fabsf(x), 16.0f), t = __frcp_rn(__fmaf_rn(z, 0.35f, 1.0f));
    float p = -0.029145902f;
    p = __fmaf_rn(p, t, 0.14397158f);
    p = __fmaf_rn(p, t, -0.25571403f);
    p = __fmaf_rn(p, t, 0.15917394f);
    p = __fmaf_rn(p, t, -0.023109697f);
    p = __fmaf_rn(p, t, 0.105507955f);
    p = __fmaf_rn(p, t, 0.11983288f);
    p = __fmaf_rn(p, t, 0.13986187f);
    p = __fmaf_rn(p, t, 0.1396214f);
    float e = exp2_fast(__fmul_rn(__fmul_rn(z, z), -0.5f * LOG2_E));
    return __fmaf_rn(-__fmul_rn(__fmul_rn(z, t), p), e, x < 0.0f ? 0.0f : x);
}

__device__ __forceinline__ float activated(uint32_t function, float x) {
    switch (function) {
        case GELU_TANH: return gelu_tanh(x);
        case GELU_ERF: return gelu_erf(x);
        case QUICK_GELU: return sigmoid_times(x, -1.702f * LOG2_E);
        case SILU: return sigmoid_times(x, -LOG2_E);
        default: return x < 0.0f ? 0.0f : x;  // RELU
    }
}

// out = act(x)·y; y counts as 1 where it is absent. The walk has x, y and out.
template <bool ALIGNED, typename T, int V>
__device__ __forceinline__ void activation_vector(const Walk<3>& walk, const T* x, const Operand& y, T* out, uint32_t function) {
    uint32_t row;
    uint64_t first, at[3];
    if (!place<V>(walk, row, first)) return;
    walk.offsets(row, at);
    float u[V], v[V];
    load_row<ALIGNED>(x + at[0], first, walk.len, u);
    load_operand<ALIGNED, T>(y, at[1], first, walk.len, 1.0f, v);
#pragma unroll
    for (int j = 0; j < V; j++) u[j] = activated(function, u[j]) * v[j];
    store_row<ALIGNED>(out + at[2], first, walk.len, u);
}

#define ACTIVATION(name, T)                                                                                               \
    extern "C" __global__ void __launch_bounds__(256)                                                                     \
        name(Walk<3> walk, const T* x, OPERAND(y), T* out, uint32_t function, uint32_t aligned) {                          \
        if (aligned)                                                                                                      \
            activation_vector<true, T, VECTOR<T>>(walk, x, OPERAND_OF(y), out, function);                                             \
        else                                                                                                              \
            activation_vector<false, T, 1>(walk, x, OPERAND_OF(y), out, function);                                                    \
    }
ACTIVATION(activation_f32, float)
ACTIVATION(activation_bf16, bf16)
ACTIVATION(activation_f16, f16)
