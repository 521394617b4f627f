// The rows of a warp in the softmax of attention on tensor units: references and sums, weights from scores, and the end.
//
// A thread has the numbers of a tile of 16 rows as `mma` gives them: (tile, half) names row tile * 16 + half * 8 + lane / 4,
// and of each 8 columns it has lane % 4 * 2 and the next.
#pragma once
#include "call.cuh"

// By how much a maximum may exceed the reference, in powers of 2.
constexpr float SLACK = 8.0f;

template <int TILES>
struct Rows {
    float most[TILES][2], sum[TILES][2];

    __device__ __forceinline__ Rows() {
#pragma unroll
        for (int i = 0; i < TILES * 2; i++) most[i / 2][i % 2] = minus_infinity(), sum[i / 2][i % 2] = 0.0f;
    }
};

// References follow the scores. Says whether one of the warp's grows; then sums have followed, and `shrink` was called with
// each tile and half, and what its weighted values are to be multiplied by.
template <int TILES, int N, class Shrink>
__device__ __forceinline__ bool references(const float (&scores)[TILES][N][4], Rows<TILES>& rows, float factor, Shrink shrink) {
    float most[TILES][2];
    bool grows = false;
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = minus_infinity();
#pragma unroll
            for (int j = 0; j < N; j++) top = fmaxf(top, fmaxf(scores[m][j][half * 2], scores[m][j][half * 2 + 1]));
            top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 1));
            top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 2)) * factor;
            most[m][half] = top > rows.most[m][half] + SLACK ? top : rows.most[m][half];
            grows |= most[m][half] != rows.most[m][half];
        }
    bool any = __any_sync(ALL_LANES, grows);
    if (any) {
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float by = exp2_fast(rows.most[m][half] - shift_of(most[m][half]));
                rows.most[m][half] = most[m][half];
                rows.sum[m][half] *= by;
                shrink(m, half, by);
            }
    }
    return any;
}

// Scores become weights, and sums grow by them.
template <int TILES, int N>
__device__ __forceinline__ void weigh(float (&scores)[TILES][N][4], Rows<TILES>& rows, float factor) {
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float shift = shift_of(rows.most[m][half]), sum = 0;
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float& score = scores[m][j][half * 2 + e];
                    score = exp2_fast(fmaf(score, factor, -shift));
                    sum += score;
                }
            rows.sum[m][half] += sum;
        }
}

// The weighted values of a row's earlier keys, relative to a new reference.
template <int M>
__device__ __forceinline__ void rescale(float (&out)[M][4], int half, float by) {
#pragma unroll
    for (int n = 0; n < M; n++) out[n][half * 2] *= by, out[n][half * 2 + 1] *= by;
}

// The weights of 16 keys of each tile as the left side of a product.
template <class T, int TILES, int N>
__device__ __forceinline__ void pack(const float (&scores)[TILES][N][4], uint32_t (&weights)[TILES][N / 2][4]) {
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            const float(&low)[4] = scores[m][2 * i], (&high)[4] = scores[m][2 * i + 1];
            weights[m][i][0] = narrow_pair(low[0], low[1], T()), weights[m][i][1] = narrow_pair(low[2], low[3], T());
            weights[m][i][2] = narrow_pair(high[0], high[1], T()), weights[m][i][3] = narrow_pair(high[2], high[3], T());
        }
}

// Writes a warp's rows, or merges them with what is there.
template <class T, int TILES, int M>
__device__ __forceinline__ void
finish(float (&out)[TILES][M][4], const Rows<TILES>& rows, const Buffers& at, const FlashCall& call, const Place& place, int first_row) {
    int lane = threadIdx.x % 32;
    int64_t base = place.batch * call.out_strides[0] + place.head * call.out_strides[2];
    float* lse_base = at.lse + place.batch * call.lse_strides[0] + place.head * call.lse_strides[1];
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = rows.sum[m][half];
            sum += __shfl_xor_sync(ALL_LANES, sum, 1);
            sum += __shfl_xor_sync(ALL_LANES, sum, 2);
            int row = first_row + m * 16 + half * 8 + lane / 4;
            bool writes = row < call.lq && lane % 4 == 0;
            float* lse_at = lse_base + row * call.lse_strides[2];
            float lse = (shift_of(rows.most[m][half]) + log2f(sum)) * LN_2;
            // A row that has seen no key is 0. NaN is not 0 and stays.
            float factor = sum == 0.0f ? 0.0f : 1.0f / sum, old = 0.0f, share = 1.0f;
            if (call.accumulate) {
                float before = writes ? *lse_at : 0.0f;
                Merged both = merged(__shfl_sync(ALL_LANES, before, lane & ~3), lse);
                old = both.first, share = both.second, lse = both.lse;
            }
            if (writes) *lse_at = lse;
            // Without a share, what is there keeps its bits.
            if (row >= call.lq || share == 0.0f) continue;
            factor *= share;
            int64_t place = base + row * call.out_strides[1] + lane % 4 * 2;
            float2* wide = (float2*)((float*)at.out + place);
            uint32_t* pairs = (uint32_t*)((T*)at.out + place);
#pragma unroll
            for (int n = 0; n < M; n++) {
                if (n * 8 >= call.d) break;
                float x = out[m][n][half * 2] * factor, y = out[m][n][half * 2 + 1] * factor;
                if (old != 0.0f) {
                    float2 before;
                    if (call.out_f32)
                        before = wide[n * 4];
                    else
                        widen_pair(pairs[n * 4], before.x, before.y, T());
                    x = fmaf(before.x, old, x), y = fmaf(before.y, old, y);
                }
                if (call.out_f32)
                    wide[n * 4] = make_float2(x, y);
                else
                    pairs[n * 4] = narrow_pair(x, y, T());
            }
        }
}
