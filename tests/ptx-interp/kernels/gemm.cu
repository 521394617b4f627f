// compute_80
// c[m, n] = a[m, k] b[n, k]^T in bf16 with f32 sums. A block of four warps computes 64 x 64 numbers; a warp 16 rows of them.
// Two stages of shared memory: cp.async fills one while ldmatrix and mma read the other.
#include "prelude.h"

constexpr int TILE = 64, DEPTH = 32, PITCH = DEPTH + 8;

struct Stage {
    __nv_bfloat16 a[TILE][PITCH], b[TILE][PITCH];
};

__device__ void load_stage(Stage& stage, const __nv_bfloat16* a, const __nv_bfloat16* b, int m, int n, int k, int at) {
    int rows = blockIdx.y * TILE, columns = blockIdx.x * TILE;
    for (int i = threadIdx.x; i < TILE * DEPTH / 8; i += blockDim.x) {
        int r = i / (DEPTH / 8), c = i % (DEPTH / 8) * 8;
        bool in_a = rows + r < m && at + c < k, in_b = columns + r < n && at + c < k;
        copy_async_16(shared_address(&stage.a[r][c]), in_a ? a + (size_t)(rows + r) * k + at + c : a, in_a ? 16 : 0);
        copy_async_16(shared_address(&stage.b[r][c]), in_b ? b + (size_t)(columns + r) * k + at + c : b, in_b ? 16 : 0);
    }
    copy_commit();
}

extern "C" __global__ void __launch_bounds__(128) gemm_bf16(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int m, int n, int k) {
    __shared__ __align__(16) Stage stages[2];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float sums[8][4] = {};
    load_stage(stages[0], a, b, m, n, k, 0);
    int s = 0;
    for (int at = 0; at < k; at += DEPTH, s ^= 1) {
        if (at + DEPTH < k) {
            load_stage(stages[s ^ 1], a, b, m, n, k, at + DEPTH);
            copy_wait<1>();
        } else {
            copy_wait<0>();
        }
        __syncthreads();
#pragma unroll
        for (int kk = 0; kk < DEPTH; kk += 16) {
            uint32_t fa[4];
            load_matrix_x4(fa, shared_address(&stages[s].a[warp * 16 + lane % 16][kk + lane / 16 * 8]));
#pragma unroll
            for (int j = 0; j < 8; j++) {
                uint32_t fb[2];
                load_matrix_x2(fb, shared_address(&stages[s].b[j * 8 + lane % 8][kk + lane / 8 % 2 * 8]));
                mma_bf16(sums[j], fa, fb);
            }
        }
        __syncthreads();
    }
    int row = blockIdx.y * TILE + warp * 16 + lane / 4;
#pragma unroll
    for (int j = 0; j < 8; j++) {
        int column = blockIdx.x * TILE + j * 8 + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int r = row + i / 2 * 8, q = column + i % 2;
            if (r < m && q < n) c[(size_t)r * n + q] = sums[j][i];
        }
    }
}
