// compute_80
// Flash attention for one head of 64 dims in bf16: o = softmax(q k^T scale) v, and the log-sum-exp of each row. A block of four
// warps has 64 queries, a warp 16 of them. Tiles of 32 keys pass through two stages of shared memory.
#include "prelude.h"

constexpr int DIM = 64, QUERIES = 64, KEYS = 32, PITCH = DIM + 8;

struct KeyStage {
    __nv_bfloat16 k[KEYS][PITCH], v[KEYS][PITCH];
};

template <int ROWS>
__device__ void load_rows(__nv_bfloat16 (&to)[ROWS][PITCH], const __nv_bfloat16* from, int first, int length) {
    for (int i = threadIdx.x; i < ROWS * DIM / 8; i += blockDim.x) {
        int r = i / (DIM / 8), c = i % (DIM / 8) * 8;
        bool inside = first + r < length;
        copy_async_16(shared_address(&to[r][c]), inside ? from + (size_t)(first + r) * DIM + c : from, inside ? 16 : 0);
    }
}

__device__ __forceinline__ uint32_t packed(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *(uint32_t*)&pair;
}

extern "C" __global__ void __launch_bounds__(128)
    attention(const __nv_bfloat16* q, const __nv_bfloat16* k, const __nv_bfloat16* v, float* o, float* lse, int queries, int keys, float scale) {
    __shared__ __align__(16) __nv_bfloat16 shared_q[QUERIES][PITCH];
    __shared__ __align__(16) KeyStage stages[2];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = blockIdx.x * QUERIES;
    load_rows(shared_q, q, first, queries);
    load_rows(stages[0].k, k, 0, keys);
    load_rows(stages[0].v, v, 0, keys);
    copy_commit();
    float sums[8][4] = {}, greatest[2] = {-1e30f, -1e30f}, total[2] = {0, 0};
    uint32_t fq[4][4];
    int tiles = (keys + KEYS - 1) / KEYS;
    for (int tile = 0; tile < tiles; tile++) {
        KeyStage& stage = stages[tile & 1];
        if (tile + 1 < tiles) {
            load_rows(stages[~tile & 1].k, k, (tile + 1) * KEYS, keys);
            load_rows(stages[~tile & 1].v, v, (tile + 1) * KEYS, keys);
            copy_commit();
            copy_wait<1>();
        } else {
            copy_wait<0>();
        }
        __syncthreads();
        if (tile == 0)
#pragma unroll
            for (int i = 0; i < 4; i++) load_matrix_x4(fq[i], shared_address(&shared_q[warp * 16 + lane % 16][i * 16 + lane / 16 * 8]));
        float scores[4][4] = {};
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t fk[2];
                load_matrix_x2(fk, shared_address(&stage.k[j * 8 + lane % 8][i * 16 + lane / 8 % 2 * 8]));
                mma_bf16(scores[j], fq[i], fk);
            }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = greatest[half];
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int key = tile * KEYS + j * 8 + lane % 4 * 2 + i;
                    float& score = scores[j][half * 2 + i];
                    score = key < keys ? score * scale * 1.4426950408889634f : -1e30f;
                    most = fmaxf(most, score);
                }
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
            float shrink = exp2f(greatest[half] - most), sum = 0;
            greatest[half] = most;
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int i = 0; i < 2; i++) sum += scores[j][half * 2 + i] = exp2f(scores[j][half * 2 + i] - most);
            total[half] = total[half] * shrink + sum;
#pragma unroll
            for (int n = 0; n < 8; n++) sums[n][half * 2] *= shrink, sums[n][half * 2 + 1] *= shrink;
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float(&low)[4] = scores[2 * i], (&high)[4] = scores[2 * i + 1];
            uint32_t fp[4] = {packed(low[0], low[1]), packed(low[2], low[3]), packed(high[0], high[1]), packed(high[2], high[3])};
#pragma unroll
            for (int n = 0; n < 8; n++) {
                uint32_t fv[2];
                load_matrix_x2_transposed(fv, shared_address(&stage.v[i * 16 + lane % 16][n * 8]));
                mma_bf16(sums[n], fp, fv);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = total[half];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        int row = first + warp * 16 + lane / 4 + half * 8;
        if (row >= queries) continue;
#pragma unroll
        for (int n = 0; n < 8; n++) *(float2*)(o + (size_t)row * DIM + n * 8 + lane % 4 * 2) = make_float2(sums[n][half * 2] / sum, sums[n][half * 2 + 1] / sum);
        if (lane % 4 == 0) lse[row] = (greatest[half] + log2f(sum)) * 0.6931471805599453f;
    }
}
