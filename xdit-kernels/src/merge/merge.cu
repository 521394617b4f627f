// Merges attention over two disjoint sets of keys: with l the log-sum-exp of each part, the parts weigh e^l.
//
// A warp has one row (batch, token, head) of d numbers; its lanes read neighbours. The parts and the result have strides of
// their own; the result may be one of the parts, element for element.
//
// The bound: bytes. Two rows are read and one is written, 3 d elements, with three numbers of the log-sum-exp.
#include "../attention/call.cuh"

// The parameters that are addresses; out is of a's type.
struct Parts {
    const void *a, *b;
    void* out;
    const float *a_lse, *b_lse;
    float* lse;
};

struct MergeCall {
    int64_t a_strides[3], b_strides[3], out_strides[3];             // [b, l, h]; neighbours along d
    int64_t a_lse_strides[3], b_lse_strides[3], lse_strides[3];     // [b, h, l]
    uint32_t rows, l, h, d;
    int b_f32; // whether b is f32; else it has a's type
};

__device__ __forceinline__ int64_t lse_place(const int64_t (&strides)[3], uint32_t batch, uint32_t token, uint32_t head) {
    return batch * strides[0] + head * strides[1] + token * strides[2];
}

__device__ __forceinline__ int64_t row_place(const int64_t (&strides)[3], uint32_t batch, uint32_t token, uint32_t head) {
    return batch * strides[0] + token * strides[1] + head * strides[2];
}

template <class T>
__device__ __forceinline__ void merge(const Parts& at, const MergeCall& call) {
    uint32_t row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= call.rows) return;
    uint32_t head = row % call.h, token = row / call.h % call.l, batch = row / call.h / call.l;
    Merged both = merged(at.a_lse[lse_place(call.a_lse_strides, batch, token, head)],
                         at.b_lse[lse_place(call.b_lse_strides, batch, token, head)]);
    // The log-sum-exp may be written where it was read.
    __syncwarp();
    if (lane == 0) at.lse[lse_place(call.lse_strides, batch, token, head)] = both.lse;
    const T* a = (const T*)at.a + row_place(call.a_strides, batch, token, head);
    int64_t at_b = row_place(call.b_strides, batch, token, head);
    T* out = (T*)at.out + row_place(call.out_strides, batch, token, head);
    for (uint32_t c = lane; c < call.d; c += 32) {
        // A part without a share may hold anything, and the other one keeps its bits.
        float value = 0.0f;
        if (both.first != 0.0f) value = widen(a[c]) * both.first;
        if (both.second != 0.0f) {
            float other = call.b_f32 ? ((const float*)at.b)[at_b + c] : widen(((const T*)at.b)[at_b + c]);
            value = both.first == 0.0f ? other * both.second : fmaf(other, both.second, value);
        }
        narrow(value, out[c]);
    }
}

#define MERGE(NAME, TYPE)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(256)                                                                            \
        NAME(const void* a, const void* b, void* out, const float* a_lse, const float* b_lse, float* lse,                        \
             const __grid_constant__ MergeCall call) {                                                                           \
        merge<TYPE>({a, b, out, a_lse, b_lse, lse}, call);                                                                       \
    }

MERGE(merge_f32, float)
MERGE(merge_bf16, bf16)
MERGE(merge_f16, f16)
