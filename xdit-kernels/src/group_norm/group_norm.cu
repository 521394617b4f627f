// Group normalisation of channels-last pictures, with SiLU, in four kernels:
//     group_sums_*    each channel's sum of x and of x^2 over a chunk of pixels, in f64
//     group_totals    each group's sums over chunks and channels; ranks that hold bands of a picture add theirs
//     group_affine_*  each channel's mean, scale and bias in f32 from its group's sums, its weight and its bias
//     group_norm_*    (x - mean) scale + bias, then x sigmoid(x) if asked for
// `*` is the dtype, of x or of weight and bias; `single_*` serves channels, addresses or strides that vectors of 16 bytes do not fit.
//
// Tiles. A block of 256 threads is blockDim.x vectors of channels wide, a power of two, and blockDim.y pixels high; a thread
// walks over `run` pixels, each blockDim.y behind the last. Blocks in y cover more channels than one is wide, blocks in x
// chunks of run * blockDim.y pixels, picture after picture. The host chooses `run`, at most 64, by the shape alone.
//
// Precision and order. A thread sums differences from its first pixel in f32, at most 64 of them, so that a large mean costs
// no digits; their sums become f64 once and stay so. GPUs for games have few units for f64: a thread converts two numbers
// a channel for 64 pixels. Threads, chunks and channels are added in an order that the shape alone decides; no atomics.
//
// Shared memory. group_sums: a pair of f64 for each thread and channel of its vector, [channel][thread], 32 KiB in 16 bits:
// the columns of a block are added up there. group_totals: a pair for each warp.
//
// Bound. Memory: x is read twice and written once, 6 bytes an element in 16 bits. In group_norm an element takes about 20
// instructions with SiLU, of which two are of the special unit; four loads of 16 bytes a thread are in flight.
#include "../cuda/prelude.cuh"

// Distances between elements of pictures whose channels are adjacent.
struct Strides {
    uint64_t picture, row, column;
};

struct Shape {
    uint32_t pixels;  // of a picture
    uint32_t w;       // of a row; `pixels` where rows follow each other without a gap
    uint32_t c;
    uint32_t chunks;  // of a picture
    uint32_t run;     // pixels of a thread
};

// Pixels that a thread loads before it uses the first, and the bits of one that it keeps so long.
constexpr int BATCH = 4;

template <typename T, int V>
struct Piece {
    Words<4> words;

    __device__ __forceinline__ void load(const T* from) { words = load_words<4>(from); }
    __device__ __forceinline__ void widen_to(float (&x)[V]) const { widen_words(words, x, T()); }
};
template <typename T>
struct Piece<T, 1> {
    T value;

    __device__ __forceinline__ void load(const T* from) { value = *from; }
    __device__ __forceinline__ void widen_to(float (&x)[1]) const { x[0] = widen(value); }
};

// The pixels of this thread.
template <typename T>
struct Run {
    T* picture;
    uint32_t first, count;

    __device__ Run(T* pictures, const Strides& strides, const Shape& shape) {
        picture = pictures + blockIdx.x / shape.chunks * strides.picture;
        first = blockIdx.x % shape.chunks * shape.run * blockDim.y + threadIdx.y;
        count = first < shape.pixels ? min(shape.run, (shape.pixels - first - 1) / blockDim.y + 1) : 0;
    }

    // The first channel of the run's i-th pixel.
    __device__ T* pixel(const Strides& strides, const Shape& shape, uint32_t i) const {
        uint32_t at = first + i * blockDim.y;
        if (shape.w == shape.pixels) return picture + at * strides.column;
        return picture + at / shape.w * strides.row + at % shape.w * strides.column;
    }
};

template <typename T, int V>
__device__ __forceinline__ void sum_run(const T* x, const Strides& strides, const Shape& shape, double2* partial) {
    constexpr int THREADS = 256;
    __shared__ double2 sums[V][THREADS];
    uint32_t channel = (blockIdx.y * blockDim.x + threadIdx.x) * V, thread = threadIdx.y * blockDim.x + threadIdx.x;
    Run<const T> run(x, strides, shape);
    float shift[V] = {}, one[V] = {}, two[V] = {};
    if (channel < shape.c && run.count > 0) {
        load_row<(V > 1)>(run.pixel(strides, shape, 0), channel, shape.c, shift);
        for (uint32_t i = 0; i < run.count; i += BATCH) {
            Piece<T, V> pieces[BATCH];
#pragma unroll
            for (int k = 0; k < BATCH; k++)
                if (i + k < run.count) pieces[k].load(run.pixel(strides, shape, i + k) + channel);
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                if (i + k >= run.count) break;
                float values[V];
                pieces[k].widen_to(values);
#pragma unroll
                for (int v = 0; v < V; v++) {
                    float d = values[v] - shift[v];
                    one[v] += d;
                    two[v] = fmaf(d, d, two[v]);
                }
            }
        }
    }
#pragma unroll
    for (int v = 0; v < V; v++) {
        double s = shift[v], o = one[v], count = run.count;
        sums[v][thread] = {o + count * s, two[v] + 2.0 * s * o + count * s * s};
    }
    __syncthreads();
    for (uint32_t i = thread; i < blockDim.x * V; i += THREADS) {
        uint32_t to = blockIdx.y * blockDim.x * V + i;
        if (to >= shape.c) break;
        double2 total = {0.0, 0.0};
        for (uint32_t y = 0; y < blockDim.y; y++) {
            double2 more = sums[i % V][y * blockDim.x + i / V];
            total.x += more.x, total.y += more.y;
        }
        partial[(uint64_t)blockIdx.x * shape.c + to] = total;
    }
}

#define GROUP_SUMS(name, T, V)                                                                                             \
    extern "C" __global__ void __launch_bounds__(256) name(const T* x, double2* partial, const __grid_constant__ Strides strides, \
                                                           const __grid_constant__ Shape shape) {                          \
        sum_run<T, V>(x, strides, shape, partial);                                                                         \
    }
GROUP_SUMS(group_sums_f32, float, 4)
GROUP_SUMS(group_sums_bf16, bf16, 8)
GROUP_SUMS(group_sums_f16, f16, 8)
GROUP_SUMS(group_sums_single_f32, float, 1)
GROUP_SUMS(group_sums_single_bf16, bf16, 1)
GROUP_SUMS(group_sums_single_f16, f16, 1)

// Block b * groups + g adds up what `partial` [b][chunk][channel] holds of group g.
extern "C" __global__ void __launch_bounds__(256)
    group_totals(const double2* partial, double2* to, uint32_t groups, uint32_t chunks, uint32_t in_group) {
    __shared__ double2 warps[8];
    uint32_t group = blockIdx.x % groups, picture = blockIdx.x / groups, c = groups * in_group;
    const double2* from = partial + (uint64_t)picture * chunks * c + group * in_group;
    double2 total = {0.0, 0.0};
    for (uint64_t i = threadIdx.x; i < (uint64_t)chunks * in_group; i += 256) {
        double2 more = from[i / in_group * c + i % in_group];
        total.x += more.x, total.y += more.y;
    }
    total.x = lanes_sum(total.x), total.y = lanes_sum(total.y);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = total;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int warp = 1; warp < 8; warp++) total.x += warps[warp].x, total.y += warps[warp].y;
    to[blockIdx.x] = total;
}

struct AffineShape {
    double pixels;  // of a picture
    uint64_t weight_stride, bias_stride;
    uint32_t weight_kind, bias_kind;  // F32, or SAME for T
    uint32_t c, groups, count;
    float eps;
};

template <typename T>
__device__ __forceinline__ float parameter(const void* from, uint32_t kind, uint64_t at) {
    return kind == F32 ? ((const float*)from)[at] : widen(((const T*)from)[at]);
}

// Thread i of `count`: channel i % c of picture i / c. Writes `affine` [picture][mean, scale, bias][channel]. T is the type of
// weight and bias where it is not f32.
template <typename T>
__device__ __forceinline__ void channel_affine(const double2* sums, const void* weight, const void* bias, float* affine,
                                               const AffineShape& shape) {
    uint32_t i = blockIdx.x * 256 + threadIdx.x, c = shape.c;
    if (i >= shape.count) return;
    uint32_t picture = i / c, channel = i % c, in_group = c / shape.groups;
    double2 sum = sums[picture * shape.groups + channel / in_group];
    double n = shape.pixels * in_group, mean = sum.x / n;
    double variance = fmax(sum.y / n - mean * mean, 0.0);
    float gain = parameter<T>(weight, shape.weight_kind, channel * shape.weight_stride);
    float* to = affine + (uint64_t)picture * 3 * c + channel;
    to[0] = (float)mean;
    to[c] = (float)(1.0 / sqrt(variance + (double)shape.eps) * (double)gain);
    to[2 * c] = parameter<T>(bias, shape.bias_kind, channel * shape.bias_stride);
}

#define GROUP_AFFINE(name, T)                                                                                               \
    extern "C" __global__ void __launch_bounds__(256) name(const double2* sums, const void* weight, const void* bias,       \
                                                           float* affine, const __grid_constant__ AffineShape shape) {      \
        channel_affine<T>(sums, weight, bias, affine, shape);                                                               \
    }
GROUP_AFFINE(group_affine_f32, float)
GROUP_AFFINE(group_affine_bf16, bf16)
GROUP_AFFINE(group_affine_f16, f16)

template <typename T, int V>
__device__ __forceinline__ void normalise_run(const T* x, T* out, const float* affine, const Strides& x_strides, const Strides& out_strides,
                                              const Shape& shape, bool silu) {
    uint32_t channel = (blockIdx.y * blockDim.x + threadIdx.x) * V;
    Run<const T> from(x, x_strides, shape);
    Run<T> to(out, out_strides, shape);
    if (channel >= shape.c) return;
    affine += (uint64_t)(blockIdx.x / shape.chunks) * 3 * shape.c;
    float mean[V], scale[V], bias[V];
    load_row<(V > 1)>(affine, channel, shape.c, mean);
    load_row<(V > 1)>(affine + shape.c, channel, shape.c, scale);
    load_row<(V > 1)>(affine + 2 * shape.c, channel, shape.c, bias);
    for (uint32_t i = 0; i < from.count; i += BATCH) {
        Piece<T, V> pieces[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; k++)
            if (i + k < from.count) pieces[k].load(from.pixel(x_strides, shape, i + k) + channel);
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            if (i + k >= from.count) break;
            float y[V];
            pieces[k].widen_to(y);
#pragma unroll
            for (int v = 0; v < V; v++) {
                y[v] = fmaf(y[v] - mean[v], scale[v], bias[v]);
                if (silu) y[v] = __fdividef(y[v], 1.0f + __expf(-y[v]));
            }
            store_row<(V > 1)>(to.pixel(out_strides, shape, i + k), channel, shape.c, y);
        }
    }
}

#define GROUP_NORM(name, T, V)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256)                                                                     \
        name(const T* x, const float* affine, T* out, const __grid_constant__ Strides x_strides,                          \
             const __grid_constant__ Strides out_strides, const __grid_constant__ Shape shape, uint32_t silu) {           \
        normalise_run<T, V>(x, out, affine, x_strides, out_strides, shape, silu != 0);                                    \
    }
GROUP_NORM(group_norm_f32, float, 4)
GROUP_NORM(group_norm_bf16, bf16, 8)
GROUP_NORM(group_norm_f16, f16, 8)
GROUP_NORM(group_norm_single_f32, float, 1)
GROUP_NORM(group_norm_single_bf16, bf16, 1)
GROUP_NORM(group_norm_single_f16, f16, 1)
