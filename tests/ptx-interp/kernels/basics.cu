// compute_80
// Small kernels: one idea each.
#include "prelude.h"

__constant__ float scale[4] = {1.0f, 0.5f, 0.25f, 0.125f};

// c = a + b * scale[n % 4], four numbers a thread, the rest one by one.
extern "C" __global__ void vector_add(const float* a, const float* b, float* c, int n) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
    float s = scale[n & 3];
    if (i + 4 <= n) {
        float4 x = *(const float4*)(a + i), y = *(const float4*)(b + i);
        *(float4*)(c + i) = make_float4(x.x + y.x * s, x.y + y.y * s, x.z + y.z * s, x.w + y.w * s);
    } else {
        for (; i < n; i++) c[i] = a[i] + b[i] * s;
    }
}

// sums[block] = the sum of a block's part of x: within warps by shuffles, across warps by shared memory.
extern "C" __global__ void block_sums(const float* x, float* sums, int n) {
    __shared__ float partial[32];
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    float sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
    if (lane == 0) partial[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        sum = lane < blockDim.x / 32 ? partial[lane] : 0;
        for (int o = 16; o; o >>= 1) sum += __shfl_down_sync(~0u, sum, o);
        if (lane == 0) sums[blockIdx.x] = sum;
    }
}

// y = the transpose of x, which has h rows and w columns; blocks of (32, 8) threads.
extern "C" __global__ void transpose(const float* x, float* y, int h, int w) {
    __shared__ float tile[32][33];
    int column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 32 + threadIdx.y;
    for (int i = 0; i < 32; i += 8)
        if (row + i < h && column < w) tile[threadIdx.y + i][threadIdx.x] = x[(size_t)(row + i) * w + column];
    __syncthreads();
    column = blockIdx.y * 32 + threadIdx.x, row = blockIdx.x * 32 + threadIdx.y;
    for (int i = 0; i < 32; i += 8)
        if (row + i < w && column < h) y[(size_t)(row + i) * h + column] = tile[threadIdx.x][threadIdx.y + i];
}

// Softmax of rows of bf16, one warp a row, with a mask of bytes.
extern "C" __global__ void softmax_rows(const __nv_bfloat16* x, const uint8_t* mask, __nv_bfloat16* y, int rows, int columns) {
    int row = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x;
    if (row >= rows) return;
    const __nv_bfloat16* from = x + (size_t)row * columns;
    float greatest = __int_as_float(0xff800000), sum = 0;
    for (int i = lane; i < columns; i += 32)
        if (mask[i]) greatest = fmaxf(greatest, __bfloat162float(from[i]));
    for (int o = 16; o; o >>= 1) greatest = fmaxf(greatest, __shfl_xor_sync(~0u, greatest, o));
    for (int i = lane; i < columns; i += 32)
        if (mask[i]) sum += exp2f((__bfloat162float(from[i]) - greatest) * 1.4426950408889634f);
    for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
    for (int i = lane; i < columns; i += 32) {
        float p = mask[i] ? exp2f((__bfloat162float(from[i]) - greatest) * 1.4426950408889634f) / sum : 0.0f;
        y[(size_t)row * columns + i] = __float2bfloat16(p);
    }
}

// RMS norm of rows and a rotation of pairs, as for queries and keys; one warp a row of d numbers.
extern "C" __global__ void norm_rotary(const float* x, const float* weight, const float2* angles, float* y, int rows, int d, float eps) {
    int row = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x;
    if (row >= rows) return;
    const float2* from = (const float2*)(x + (size_t)row * d);
    float squares = 0;
    for (int i = lane; i < d / 2; i += 32) squares += from[i].x * from[i].x + from[i].y * from[i].y;
    for (int o = 16; o; o >>= 1) squares += __shfl_xor_sync(~0u, squares, o);
    float r = rsqrtf(squares / d + eps);
    for (int i = lane; i < d / 2; i += 32) {
        float2 v = from[i], a = angles[(size_t)row * (d / 2) + i];
        float p = v.x * r * weight[2 * i], q = v.y * r * weight[2 * i + 1];
        ((float2*)(y + (size_t)row * d))[i] = make_float2(p * a.x - q * a.y, p * a.y + q * a.x);
    }
}

// counts[v] += 1 for every byte v, by way of shared memory; greatest = the greatest byte.
extern "C" __global__ void histogram(const uint8_t* x, uint32_t* counts, int* greatest, int n) {
    __shared__ uint32_t local[256];
    for (int i = threadIdx.x; i < 256; i += blockDim.x) local[i] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        atomicAdd(&local[x[i]], 1u);
        atomicMax(greatest, (int)x[i]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += blockDim.x)
        if (local[i]) atomicAdd(&counts[i], local[i]);
}

// Numbers 0..1 as bytes of a picture.
extern "C" __global__ void to_bytes(const float* x, uint8_t* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = (uint8_t)rintf(fminf(fmaxf(x[i], 0.0f), 1.0f) * 255.0f);
}
