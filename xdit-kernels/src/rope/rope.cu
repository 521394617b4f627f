// The norm of each head's row and its rotation, for the queries and keys of a projection, whose values it copies: one launch.
//
// The work. Up to three streams of [b, l, h, d], each with its own input, output, norm and parameters: out = rope(norm(x)). Outputs
// may be parts of longer tensors, so that text and image rows of a joint attention are written side by side, in the layout that
// attention reads. blockIdx.y is the stream.
//
// Tiles. A head's row belongs to `lanes` lanes, a power of two: the fewest that hold it by one vector of 16 bytes each, 16 for
// 128 elements in bf16. Rows of more than 32 vectors, and rows that are not whole vectors, go through several rounds, two
// elements a lane and round in the latter case. A block of 128 threads has 128/lanes rows.
//
// Over time. (1) The row is loaded, once. (2) RMS norm: the sum of squares; layer norm: the mean, then the deviations and their
// squares. Sums are log2(lanes) shuffles; there is no barrier. (3) Gain, bias, cos and sin are loaded (the tables come from the L2
// cache for all heads of a token but the first), pairs turn inside a thread, and the row is stored.
//
// Shared memory. None.
//
// The bound. Memory: 4 bytes an element in bf16 for queries, keys and values together with the tables' 8 bytes for each element of
// a head, read from memory once for h heads. About 30 instructions for an element, a third of what the units do in that time.
//
// Everything between the load and the store is f32. The order of sums aside, each operation is rounded as the processor rounds
// it: the turned part is a product, which the second product joins in one fused step.
#include "../cuda/prelude.cuh"

enum Norm : uint32_t {
    COPY,  // bit for bit, without a rotation
    NO_NORM,
    RMS,
    LAYER,
};

// One stream, as its blocks see it.
struct Stream {
    const void* x;
    void* out;
    Operand gain, bias;
    uint32_t norm;
};

struct Tables {
    Operand cos, sin;  // [tokens, d], or absent
    uint32_t heads, tokens;
};

// What each of the streams is done to. The third has no norm with parameters.
struct Norms {
    uint32_t norm[3], gain_kind[2], bias_kind[2], heads, tokens, unused;
};

// KEPT vectors a lane stay in registers, and are the longest row; with KEPT = 0 each pass reads the row again.
template <typename T, int V, bool ALIGNED, int KEPT>
__device__ __forceinline__ void head_row(const Stream& stream, uint64_t x_at, uint64_t out_at, uint32_t d, bool inside, const Tables& tables, uint32_t row, float eps, uint32_t lanes) {
    const T* x = (const T*)stream.x + x_at;
    T* out = (T*)stream.out + out_at;
    uint32_t lane = threadIdx.x % lanes, end = inside ? d : 0;
    float kept[V];
    if (KEPT > 0 && lane * V < end) load_row<ALIGNED>(x, lane * V, d, kept);
    auto each = [&](auto f) {
        if constexpr (KEPT > 0) {
            if (lane * V < end) f(lane * V, kept);
        } else {
            for (uint32_t at = lane * V; at < end; at += lanes * V) {
                float v[V];
                load_row<ALIGNED>(x, at, d, v);
                f(at, v);
            }
        }
    };
    float mean = 0, scale = 1, offset = 0;
    if (stream.norm == RMS) {
        float square = 0;
        each([&](uint32_t, const float(&v)[V]) {
#pragma unroll
            for (int j = 0; j < V; j++) square = __fmaf_rn(v[j], v[j], square);
        });
        scale = 1.0f / sqrtf(lanes_sum(square, lanes) / (float)d + eps);
    } else if (stream.norm == LAYER) {
        float sum = 0, rest = 0, squares = 0;
        each([&](uint32_t, const float(&v)[V]) {
#pragma unroll
            for (int j = 0; j < V; j++) sum += v[j];
        });
        mean = lanes_sum(sum, lanes) / (float)d;
        each([&](uint32_t at, const float(&v)[V]) {
#pragma unroll
            for (int j = 0; j < V; j++)
                if (ALIGNED || at + j < d) {
                    float from = v[j] - mean;
                    rest += from;
                    squares = __fmaf_rn(from, from, squares);
                }
        });
        float off = lanes_sum(rest, lanes) / (float)d;
        scale = 1.0f / sqrtf(lanes_sum(squares, lanes) / (float)d - off * off + eps);
        offset = -off * scale;
    }
    uint32_t token = row / tables.heads % tables.tokens;
    each([&](uint32_t at, const float(&v)[V]) {
        float gain[V], y[V];
        load_operand<ALIGNED, T>(stream.gain, 0, at, d, 1.0f, gain);
        if (stream.norm == LAYER) {
            float bias[V];
            load_operand<ALIGNED, T>(stream.bias, 0, at, d, 0.0f, bias);
#pragma unroll
            for (int j = 0; j < V; j++) y[j] = __fmaf_rn(__fmaf_rn(v[j] - mean, scale, offset), gain[j], bias[j]);
        } else {
#pragma unroll
            for (int j = 0; j < V; j++) y[j] = __fmul_rn(__fmul_rn(v[j], scale), gain[j]);
        }
        if (tables.cos.kind != ABSENT) {
            float cos[V], sin[V];
            load_operand<ALIGNED, T>(tables.cos, token * tables.cos.stride, at, d, 1.0f, cos);
            load_operand<ALIGNED, T>(tables.sin, token * tables.sin.stride, at, d, 0.0f, sin);
#pragma unroll
            for (int j = 0; j < V; j += 2) {
                float first = y[j], second = y[j + 1];
                y[j] = __fmaf_rn(first, cos[j], __fmul_rn(-second, sin[j]));
                y[j + 1] = __fmaf_rn(second, cos[j + 1], __fmul_rn(first, sin[j + 1]));
            }
        }
        store_row<ALIGNED>(out, at, d, y);
    });
}

template <typename T, int V, bool ALIGNED>
__device__ __forceinline__ void copy_row(const Stream& stream, uint64_t x_at, uint64_t out_at, uint32_t d, bool inside, uint32_t lanes) {
    const T* x = (const T*)stream.x + x_at;
    T* out = (T*)stream.out + out_at;
    for (uint32_t at = threadIdx.x % lanes * V; inside && at < d; at += lanes * V) {
        if constexpr (ALIGNED) {
            store_words(out + at, load_words<V * (int)sizeof(T) / 4>(x + at));
        } else {
#pragma unroll
            for (int j = 0; j < V; j++)
                if (at + j < d) out[at + j] = x[at + j];
        }
    }
}

// The walk has the inputs of the three streams, then their outputs.
template <typename T>
__device__ __forceinline__ void norm_rope(const Walk<6>& walk, const Stream& stream, const Tables& tables, float eps, uint32_t lanes, uint32_t aligned) {
    // The number of a thread may exceed 32 bits; that of its row does not.
    uint32_t row = blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes, d = walk.len;
    // All lanes of a warp take part in its sums.
    bool inside = row < walk.rows;
    uint64_t at[6];
    walk.offsets(inside ? row : 0, at);
    auto run = [&](uint64_t x_at, uint64_t out_at) {
        if (stream.norm == COPY) {
            if (aligned)
                copy_row<T, VECTOR<T>, true>(stream, x_at, out_at, d, inside, lanes);
            else
                copy_row<T, 2, false>(stream, x_at, out_at, d, inside, lanes);
        } else if (aligned && lanes * VECTOR<T> >= d) {
            head_row<T, VECTOR<T>, true, 1>(stream, x_at, out_at, d, inside, tables, row, eps, lanes);
        } else {
            head_row<T, 2, false, 0>(stream, x_at, out_at, d, inside, tables, row, eps, lanes);
        }
    };
    uint32_t s = blockIdx.y;
    run(s == 0 ? at[0] : s == 1 ? at[1] : at[2], s == 0 ? at[3] : s == 1 ? at[4] : at[5]);
}

#define NORM_ROPE(name, T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(128)                                                                        \
        name(Walk<6> walk, const T* q, const T* k, const T* v, T* q_out, T* k_out, T* v_out, const void* q_gain,             \
             const void* q_bias, const void* k_gain, const void* k_bias, OPERAND(cos), OPERAND(sin), Norms norms, float eps, \
             uint32_t lanes, uint32_t aligned) {                                                                             \
        uint32_t s = blockIdx.y;                                                                                             \
        Stream stream{s == 0 ? q : s == 1 ? k : v,                                                                           \
                      s == 0 ? q_out : s == 1 ? k_out : v_out,                                                               \
                      {s == 0 ? q_gain : k_gain, 0, s == 0 ? norms.gain_kind[0] : s == 1 ? norms.gain_kind[1] : ABSENT},     \
                      {s == 0 ? q_bias : k_bias, 0, s == 0 ? norms.bias_kind[0] : s == 1 ? norms.bias_kind[1] : ABSENT},     \
                      s == 0 ? norms.norm[0] : s == 1 ? norms.norm[1] : norms.norm[2]};                                      \
        Tables tables{OPERAND_OF(cos), OPERAND_OF(sin), norms.heads, norms.tokens};                                          \
        norm_rope<T>(walk, stream, tables, eps, lanes, aligned);                                                             \
    }
NORM_ROPE(norm_rope_f32, float)
NORM_ROPE(norm_rope_bf16, bf16)
NORM_ROPE(norm_rope_f16, f16)
