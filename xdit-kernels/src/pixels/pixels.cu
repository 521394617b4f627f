// Planes as interleaved bytes: [images, 3, height · width] with values in [0, 1] to [images, height · width, 3], times 255, half to
// even, at most 255; NaN becomes 0.
//
// Tiles and time. A thread has 4 pixels: three loads of 16 bytes (8 in 16-bit dtypes), one from each plane, and three stores of 4
// bytes. Where a plane is no multiple of 4 pixels, or does not lie so, it has one pixel.
//
// The bound. Memory: 15 bytes a pixel in f32. The host then reads 3 bytes a pixel in place of 12.
#include "../cuda/prelude.cuh"

__device__ __forceinline__ uint32_t level(float value) { return min(__float2uint_rn(__fmul_rn(value, 255.0f)), 255u); }

template <typename T>
__device__ __forceinline__ void rgb8(const T* planes, uint8_t* out, uint64_t pixels, uint32_t aligned) {
    uint64_t each = aligned ? 4 : 1, at = ((uint64_t)blockIdx.x * blockDim.x + threadIdx.x) * each;
    if (at >= pixels) return;
    planes += blockIdx.y * 3 * pixels;
    out += blockIdx.y * 3 * pixels;
    if (!aligned) {
        for (int c = 0; c < 3; c++) out[3 * at + c] = level(widen(planes[c * pixels + at]));
        return;
    }
    float of[3][4];
#pragma unroll
    for (int c = 0; c < 3; c++) load_vector(planes + c * pixels + at, of[c]);
#pragma unroll
    for (int word = 0; word < 3; word++) {
        uint32_t bytes = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int value = 4 * word + i;
            bytes |= level(of[value % 3][value / 3]) << (8 * i);
        }
        ((uint32_t*)(out + 3 * at))[word] = bytes;
    }
}

#define RGB8(name, T)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(256) name(const T* planes, uint8_t* out, uint64_t pixels, uint32_t aligned) { \
        rgb8(planes, out, pixels, aligned);                                                                                 \
    }
RGB8(rgb8_f32, float)
RGB8(rgb8_bf16, bf16)
RGB8(rgb8_f16, f16)
