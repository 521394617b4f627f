// Arithmetic on pairs of elements and on single ones, and gate and residual.
//
// Tiles. A thread has one vector of 16 bytes of the result, or one element where rows are not whole vectors; blocks of 256
// threads take vectors in the order of memory. Operands that lie one after another are one row, whose place needs no division.
//
// Over time. All loads, then the arithmetic in f32, then one store. Nothing is shared.
//
// The bound. Memory: two reads and a write (one read for operations on single elements), 6 bytes an element in bf16. At full
// occupancy 32 KiB a multiprocessor are in flight for each operand, more than latency times bandwidth asks for.
//
// Each operation is rounded as the processor's kernel rounds it, so f32 results are equal to the bit.
#include "../cuda/prelude.cuh"

enum Combine : uint32_t {
    ADD,
    SUB,
    MUL,
    ADD_SCALED,    // x + a·y
    WEIGHTED_SUM,  // a·x + b·y
    // From x alone, as all below.
    SCALE,
    SCALE_SHIFT,  // a·x + b
    DIVIDE,
    CLAMP,  // from a to b
};

__device__ __forceinline__ float combined(uint32_t combine, float x, float y, float a, float b) {
    switch (combine) {
        case ADD: return __fadd_rn(x, y);
        case SUB: return __fsub_rn(x, y);
        case MUL: return __fmul_rn(x, y);
        case ADD_SCALED: return __fadd_rn(x, __fmul_rn(a, y));
        case WEIGHTED_SUM: return __fadd_rn(__fmul_rn(a, x), __fmul_rn(b, y));
        case SCALE: return __fmul_rn(a, x);
        case SCALE_SHIFT: return __fadd_rn(__fmul_rn(a, x), b);
        case DIVIDE: return __fdiv_rn(x, a);
        default:  // CLAMP; no comparison with NaN is true
            x = a > x ? a : x;
            return x > b ? b : x;
    }
}

template <bool ALIGNED, typename T, int V>
__device__ __forceinline__ void combine_vector(const Walk<3>& walk, const T* x, const Operand& y, T* out, uint32_t combine, float a, float b) {
    uint32_t row;
    uint64_t first, at[3];
    if (!place<V>(walk, row, first)) return;
    walk.offsets(row, at);
    float u[V], v[V];
    load_row<ALIGNED>(x + at[0], first, walk.len, u);
    load_operand<ALIGNED, T>(y, at[1], first, walk.len, 0.0f, v);
#pragma unroll
    for (int j = 0; j < V; j++) u[j] = combined(combine, u[j], v[j], a, b);
    store_row<ALIGNED>(out + at[2], first, walk.len, u);
}

// out = residual + gate·x. The walk has x, residual and out; the gate has a row for each `rows_each` rows.
template <bool ALIGNED, typename T, int V>
__device__ __forceinline__ void gate_vector(const Walk<3>& walk, const Operand& x, const Operand& gate, uint32_t rows_each, const T* residual, T* out) {
    uint32_t row;
    uint64_t first, at[3];
    if (!place<V>(walk, row, first)) return;
    walk.offsets(row, at);
    float u[V], v[V], g[V];
    load_operand<ALIGNED, T>(x, at[0], first, walk.len, 0.0f, u);
    load_row<ALIGNED>(residual + at[1], first, walk.len, v);
    load_operand<ALIGNED, T>(gate, row / rows_each * gate.stride, first, walk.len, 0.0f, g);
#pragma unroll
    for (int j = 0; j < V; j++) u[j] = __fmaf_rn(g[j], u[j], v[j]);
    store_row<ALIGNED>(out + at[2], first, walk.len, u);
}

#define ELEMENTWISE(type, T)                                                                                               \
    extern "C" __global__ void __launch_bounds__(256) combine_##type(Walk<3> walk, const T* x, OPERAND(y), T* out,         \
                                                                     uint32_t combine, float a, float b, uint32_t aligned) { \
        if (aligned)                                                                                                       \
            combine_vector<true, T, VECTOR<T>>(walk, x, OPERAND_OF(y), out, combine, a, b);                                \
        else                                                                                                               \
            combine_vector<false, T, 1>(walk, x, OPERAND_OF(y), out, combine, a, b);                                       \
    }                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(256) gate_residual_##type(                                                \
        Walk<3> walk, OPERAND(x), OPERAND(gate), uint32_t rows_each, const T* residual, T* out, uint32_t aligned) {        \
        if (aligned)                                                                                                       \
            gate_vector<true, T, VECTOR<T>>(walk, OPERAND_OF(x), OPERAND_OF(gate), rows_each, residual, out);              \
        else                                                                                                               \
            gate_vector<false, T, 1>(walk, OPERAND_OF(x), OPERAND_OF(gate), rows_each, residual, out);                     \
    }
ELEMENTWISE(f32, float)
ELEMENTWISE(bf16, bf16)
ELEMENTWISE(f16, f16)
