// Attention by plain multiply-adds in f32, for what the tensor units (flash.cu) cannot do: exact f32, head dims over 128 (the
// decoder's 512) or not of whole 16-byte chunks, any strides, a bias, a scale that is not positive.
//
// Tiles. A block of 256 threads, 16 x 16, has 64 queries of one head. Keys come in tiles of 64, of which a thread has 4 x 4
// scores: d passes through shared memory 32 columns at a time, each number read by a thread serving 4 multiply-adds. Weights go
// through shared memory to the second product, where a thread has 4 rows and 8 columns of the output. The output has 128
// columns at a time: a head dim above that repeats the scores for each slice of 128.
//
//     shared memory, bytes     0            8704         17408          34816       43008
//                              | q, 32 x 68 | k, 32 x 68 | weights, 64 x 68 | v, 16 x 128 |
//
// No pipeline: barriers surround each copy to shared memory, and the second block of an SM computes meanwhile.
//
// Softmax is online, exact in f32: references are the maxima so far. A row's bits do not depend on other rows.
//
// The bound: multiply-adds, 64 · 64 · (d + 128) a tile and slice; with shared memory at half of its bandwidth (2 loads of 16 bytes
// for 16 multiply-adds). At best about half of an A100's 19.5 TFLOP/s.
#include "call.cuh"

constexpr int THREADS = 256, QUERIES = 64, KEYS = 64, DEPTH = 32, COLUMNS = 128, VALUES = 16, PITCH = 68;

struct Shared {
    float q[DEPTH][PITCH], k[DEPTH][PITCH], weights[KEYS][PITCH], v[VALUES][COLUMNS];
};

// Columns first.. of 64 rows, transposed; rows from `rows` on and columns from d on are 0.
template <class T>
__device__ __forceinline__ void
load_columns(float (&to)[DEPTH][PITCH], const T* from, int64_t stride, int64_t column_stride, int rows, int first, int d) {
    int column = threadIdx.x % DEPTH;
#pragma unroll
    for (int row = threadIdx.x / DEPTH; row < 64; row += THREADS / DEPTH) {
        bool inside = row < rows && first + column < d;
        to[column][row] = inside ? widen(from[row * stride + (first + column) * column_stride]) : 0.0f;
    }
}

// Values first.. of all columns of a slice; a hidden value may be NaN, and 0 times NaN is NaN: it is 0.
template <class T>
__device__ __forceinline__ void
load_values(float (&to)[VALUES][COLUMNS], const T* from, const FlashCall& call, const uint8_t* seen, int first, int slice) {
    int column = threadIdx.x % COLUMNS;
#pragma unroll
    for (int row = threadIdx.x / COLUMNS; row < VALUES; row += THREADS / COLUMNS) {
        int key = first + row;
        bool inside = key < call.lk && slice + column < call.d;
        if (seen != nullptr && inside) inside = seen[key * call.key_mask_strides[1]] != 0;
        to[row][column] = inside ? widen(from[key * call.v_strides[1] + (slice + column) * call.v_strides[3]]) : 0.0f;
    }
}

// The largest of the 16 threads of a row.
__device__ __forceinline__ float greatest(float x) {
#pragma unroll
    for (int step = 8; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
    return x;
}

__device__ __forceinline__ float4 four(const float* at) {
    return *(const float4*)at;
}

__device__ __forceinline__ void add(float& sum, float x, float y) {
    sum = fmaf(x, y, sum);
}

// sums[i][j] += x[i] y[j]
__device__ __forceinline__ void add_products(float* sums, int pitch, float4 x, float4 y) {
    const float left[4] = {x.x, x.y, x.z, x.w}, right[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) add(sums[i * pitch + j], left[i], right[j]);
}

template <class T>
struct Attend {
    const Buffers& at;
    const FlashCall& call;
    Shared& shared;
    Place place;
    const T *q, *k, *v;
    const uint8_t* seen;
    const float* bias;
    int first, x, y; // the block's first query; the thread's place: keys and columns, rows
    float most[4], sum[4], out[4][8];

    __device__ __forceinline__ Attend(const Buffers& at, const FlashCall& call, Shared& shared)
        : at(at), call(call), shared(shared), place(place_of(call, blockIdx.x)), first(place.tile * QUERIES), x(threadIdx.x % 16 * 4),
          y(threadIdx.x / 16 * 4) {
        q = (const T*)at.q + place.batch * call.q_strides[0] + first * call.q_strides[1] + place.head * call.q_strides[2];
        k = (const T*)at.k + place.batch * call.k_strides[0] + place.kv_head * call.k_strides[2];
        v = (const T*)at.v + place.batch * call.v_strides[0] + place.kv_head * call.v_strides[2];
        seen = at.key_mask ? at.key_mask + place.batch * call.key_mask_strides[0] : nullptr;
        bias = at.bias ? at.bias + place.batch * call.bias_strides[0] + place.head * call.bias_strides[1] : nullptr;
    }

    __device__ __forceinline__ void score(float (&scores)[4][4], int key) {
        for (int c = 0; c < call.d; c += DEPTH) {
            __syncthreads();
            load_columns(shared.q, q, call.q_strides[1], call.q_strides[3], call.lq - first, c, call.d);
            load_columns(shared.k, k + key * call.k_strides[1], call.k_strides[1], call.k_strides[3], call.lk - key, c, call.d);
            __syncthreads();
#pragma unroll 8
            for (int i = 0; i < DEPTH; i++) add_products(scores[0], 4, four(&shared.q[i][y]), four(&shared.k[i][x]));
        }
    }

    // Scale, bias and masks: scores are exponents of 2 afterwards.
    __device__ __forceinline__ void mask(float (&scores)[4][4], int first_key) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int key = first_key + x + j;
            bool inside = key < call.lk;
            bool visible = inside && (seen == nullptr || seen[key * call.key_mask_strides[1]] != 0);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int row = first + y + i;
                float score = scores[i][j] * call.scale;
                if (bias != nullptr && inside && row < call.lq)
                    score = fmaf(bias[row * call.bias_strides[2] + key], LOG2_E, score);
                scores[i][j] = visible && (!call.causal || key <= row) ? score : minus_infinity();
            }
        }
    }

    // Scores become weights in shared memory; references, sums and the output follow.
    __device__ __forceinline__ void weigh(const float (&scores)[4][4]) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float top = fmaxf(fmaxf(scores[i][0], scores[i][1]), fmaxf(scores[i][2], scores[i][3]));
            float next = fmaxf(most[i], greatest(top)), shift = shift_of(next), shrink = exp2f(most[i] - shift);
            most[i] = next, sum[i] *= shrink;
#pragma unroll
            for (int j = 0; j < 8; j++) out[i][j] *= shrink;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float weight = exp2f(scores[i][j] - shift);
                sum[i] += weight;
                shared.weights[x + j][y + i] = weight;
            }
        }
    }

    __device__ __forceinline__ void add_values(int key, int slice) {
        for (int c = 0; c < KEYS; c += VALUES) {
            __syncthreads();
            load_values(shared.v, v, call, seen, key + c, slice);
            __syncthreads();
#pragma unroll 4
            for (int i = 0; i < VALUES; i++) {
                float4 weights = four(&shared.weights[c + i][y]);
                add_products(out[0], 8, weights, four(&shared.v[i][x]));
                add_products(out[0] + 4, 8, weights, four(&shared.v[i][COLUMNS / 2 + x]));
            }
        }
    }

    // Writes the columns of a slice, or merges them with what is there. The last slice writes the log-sum-exp, which all read.
    __device__ __forceinline__ void finish(int slice) {
        int64_t base = place.batch * call.out_strides[0] + place.head * call.out_strides[2];
        float* lse_base = at.lse + place.batch * call.lse_strides[0] + place.head * call.lse_strides[1];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float total = lanes_sum(sum[i], 16);
            int row = first + y + i;
            bool writes = x == 0 && row < call.lq;
            float* lse_at = lse_base + row * call.lse_strides[2];
            float lse = (shift_of(most[i]) + log2f(total)) * LN_2;
            // A row that has seen no key is 0. NaN is not 0 and stays.
            float factor = total == 0.0f ? 0.0f : 1.0f / total, old = 0.0f, share = 1.0f;
            if (call.accumulate) {
                float before = writes ? *lse_at : 0.0f;
                Merged both = merged(__shfl_sync(ALL_LANES, before, 0, 16), lse);
                old = both.first, share = both.second, lse = both.lse;
            }
            if (writes && slice + COLUMNS >= call.d) *lse_at = lse;
            // Without a share, what is there keeps its bits.
            if (row >= call.lq || share == 0.0f) continue;
            factor *= share;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                int column = slice + j / 4 * (COLUMNS / 2) + x + j % 4;
                if (column >= call.d) continue;
                float value = out[i][j] * factor;
                float* wide = (float*)at.out + base + row * call.out_strides[1] + column;
                T* same = (T*)at.out + base + row * call.out_strides[1] + column;
                if (old != 0.0f) value = fmaf(call.out_f32 ? *wide : widen(*same), old, value);
                if (call.out_f32)
                    *wide = value;
                else
                    narrow(value, *same);
            }
        }
    }

    __device__ __forceinline__ void run() {
        int end = call.causal ? min(call.lk, first + QUERIES) : call.lk;
        for (int slice = 0; slice < call.d; slice += COLUMNS) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                most[i] = minus_infinity(), sum[i] = 0.0f;
#pragma unroll
                for (int j = 0; j < 8; j++) out[i][j] = 0.0f;
            }
            for (int key = 0; key < end; key += KEYS) {
                float scores[4][4] = {};
                score(scores, key);
                mask(scores, key);
                weigh(scores);
                add_values(key, slice);
            }
            finish(slice);
        }
    }
};

#define FLASH(NAME, TYPE)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                     \
        NAME(const void* q, const void* k, const void* v, void* out, float* lse, const uint8_t* key_mask, const float* bias,     \
             const __grid_constant__ FlashCall call) {                                                                           \
        __shared__ __align__(16) Shared shared;                                                                                  \
        Attend<TYPE>({q, k, v, out, lse, key_mask, bias}, call, shared).run();                                                   \
    }

FLASH(flash_f32, float)
FLASH(flash_bf16, bf16)
FLASH(flash_f16, f16)
