// Doubles pictures by repeating each pixel. A copy, so one kernel a width of units serves all dtypes: 16 bytes where channels,
// addresses and strides fit, else the 2 or 4 bytes of an element.
//
// Tiles. A thread loads one unit of a pixel and stores it four times; neighbouring threads take neighbouring units, so a warp
// reads and writes whole sectors where channels are adjacent. Blocks of 256 threads; no shared memory.
//
// Bound. Memory: each element is read once and written four times.
#include "../cuda/prelude.cuh"

// Strides of pictures, rows, columns and channels, in units.
struct Upsample {
    uint64_t x_strides[4], out_strides[4];
    uint32_t h, w;   // of x
    uint32_t c;      // units of a pixel
    uint32_t count;  // units of x
};

template <typename T>
__device__ __forceinline__ void upsample(const T* x_first, T* out, const Upsample& call) {
    uint32_t i = blockIdx.x * 256 + threadIdx.x;
    if (i >= call.count) return;
    uint32_t unit = i % call.c, pixel = i / call.c, x = pixel % call.w, row = pixel / call.w, y = row % call.h, picture = row / call.h;
    const uint64_t(&from)[4] = call.x_strides;
    const uint64_t(&to)[4] = call.out_strides;
    T value = x_first[picture * from[0] + y * from[1] + x * from[2] + unit * from[3]];
    out += picture * to[0] + 2 * y * to[1] + 2 * x * to[2] + unit * to[3];
    out[0] = value;
    out[to[2]] = value;
    out[to[1]] = value;
    out[to[1] + to[2]] = value;
}

#define UPSAMPLE(name, T)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) name(const T* x, T* out, const __grid_constant__ Upsample call) {    \
        upsample<T>(x, out, call);                                                                                         \
    }
UPSAMPLE(upsample_bytes_16, uint4)
UPSAMPLE(upsample_bytes_4, uint32_t)
UPSAMPLE(upsample_bytes_2, uint16_t)
