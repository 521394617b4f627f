// Convolution of channels-last pictures as an implicit GEMM: out[pixel][oc] = sum over k of input[pixel][k] weight[oc][k].
//
// k counts the channels of the taps, tap after tap, each tap padded with zeros to chunks of eight channels and the whole to
// 32. The weights lie in memory in this form (`cuda.rs` packs them). The matrix of inputs is never stored: each thread that
// copies a chunk of it works out which pixel the tap reaches. So one walk serves every kernel size, stride, padding, band of
// rows and the doubling of the picture before the convolution, and 1x1 kernels cost nothing extra.
//
// Tiles, bf16 and f16 (128 threads, k in steps of 32):
//     conv2d_*         128 pixels x 128 channels, a warp 64 x 64, aligned inputs: chunks are copied by cp.async, 16 bytes each
//     conv2d_narrow_*  128 pixels x 32 channels, a warp 32 x 32: for few channels out, such as the three of a picture
//     conv2d_gather_*  the first with any channels and strides: chunks are gathered element by element
// f32 (256 threads, k in steps of 16): 128 pixels x 64 channels, a thread 8 x 4, every product an FMA in f32.
//
// Pipeline: three stages of shared memory. While the warps multiply step t, the copies of t + 1 and t + 2 are in flight:
//     wait until step t has arrived | barrier | issue the copies of t + 2 into the stage of t - 1 | multiply step t
// The barrier orders both ways: everybody's copies of t are visible, and everybody has finished with the stage of t - 1.
//
// Shared memory, 16 bits: stage s is rows of 64 bytes, first the pixels, then the channels out; 48 KiB in all for 128 x 128,
// so two blocks fit on a multiprocessor of sm_86, 89 and 120 too. Chunk c of row r lies at c ^ (r / 2 % 4): eight rows of one
// ldmatrix, and the rows that a quarter of a warp copies, fall into different banks. After the last step the stages hold the
// offsets of the pixels and a strip of 16 rows for each warp, through which the sums pass from the layout of the tensor units
// to whole rows: residual and output move 16 bytes a thread.
// Shared memory, f32: stage s is [k][pixel] and [k][channel], rows padded by four words.
//
// Bound: tensor units. A step of a warp takes 64 mma.sync (512 cycles of a tensor unit on sm_80) for 16 ldmatrix (8 KiB) and
// 8 cp.async a thread, so four warps need half of the bandwidth of shared memory. From L2 a block reads 16 KiB for 2 * 128 *
// 128 * 32 FLOP, which is 64 FLOP a byte: neighbouring taps and blocks read the same pixels and weights, and the blocks of one
// strip of pixels follow each other. f32 is bound by FMAs: three shared loads of 16 bytes for 32 of them.
#include "../cuda/matrix.cuh"

// Where a convolution's numbers lie.
template <typename T>
struct Memory {
    const T* x;
    const T* weights;   // [oc][pitch]
    const float* bias;  // padded with zeros to a multiple of 8
    const T* residual;  // or null
    T* out;
};

// Sizes and strides, in elements. `cuda.rs` holds its twin.
struct ConvLaunch {
    int64_t x_strides[3], residual_strides[3], out_strides[3]; // of pictures, rows, columns
    int pixels, oh, ow;        // of the output, and its rows and columns
    int h, w;                  // rows and columns of the input, doubled if `shift` is 1
    int top, left;             // of the padding, above and before the input of the first output
    int stride, shift;         // shift: from doubled coordinates to those in memory
    int kh, kw, ic, oc;
    int chunks;                // of a tap: ic / 8, rounded up
    int pitch;                 // elements of a row of weights: a multiple of 32
    int wide;                  // whether output and residual can be accessed 16 bytes at a time
};

constexpr int TILE_M = 128, STAGES = 3, CHUNK = 8;

// An output, as the input sees it: the picture it lies in and where its first tap is.
template <typename T>
struct Pixel {
    const T* picture;
    int y, x;

    // Pixels past the last one lie in the padding, whatever the tap.
    __device__ Pixel(const ConvLaunch& call, const T* x_first, int pixel) {
        bool inside = pixel < call.pixels;
        int row = inside ? pixel / call.ow : 0;
        picture = x_first + row / call.oh * call.x_strides[0];
        y = inside ? row % call.oh * call.stride - call.top : -(1 << 30);
        x = inside ? pixel % call.ow * call.stride - call.left : 0;
    }
};

// Where a thread is in k: the chunk of channels, and the tap.
struct TapWalk {
    int chunk, ky = 0, kx = 0;

    __device__ TapWalk(const ConvLaunch& call, int first) : chunk(first) { wrap(call); }

    // Goes `step` chunks on. Whether the tap is another one.
    __device__ bool advance(const ConvLaunch& call, int step) {
        chunk += step;
        return wrap(call);
    }

    __device__ bool wrap(const ConvLaunch& call) {
        bool moved = false;
        while (chunk >= call.chunks && ky < call.kh) {
            chunk -= call.chunks;
            if (++kx == call.kw) kx = 0, ky++;
            moved = true;
        }
        return moved;
    }

    // The pixel in memory that the tap reaches from an output; null in the padding and after the last tap.
    template <typename T>
    __device__ const T* source(const ConvLaunch& call, const Pixel<T>& pixel) const {
        int y = pixel.y + ky, x = pixel.x + kx;
        bool inside = ky < call.kh && (unsigned)y < (unsigned)call.h && (unsigned)x < (unsigned)call.w;
        return inside ? pixel.picture + (y >> call.shift) * call.x_strides[1] + (x >> call.shift) * call.x_strides[2] : nullptr;
    }
};

// Offset of an output in a tensor with these strides.
__device__ __forceinline__ int64_t offset_of(const ConvLaunch& call, int pixel, const int64_t (&strides)[3]) {
    int row = pixel / call.ow;
    return row / call.oh * strides[0] + row % call.oh * strides[1] + pixel % call.ow * strides[2];
}

// Byte offset of a chunk in a stage with rows of 64 bytes.
__device__ __forceinline__ uint32_t swizzled(int row, int chunk) {
    return row * 64 + ((chunk ^ (row / 2 % 4)) << 4);
}

// Copies chunks of one column of a stage: with four columns and 128 threads, row threadIdx.x / 4 and every 32nd after it.
template <typename T, int TILE_N, bool GATHER>
struct Copier {
    static constexpr int ROWS_M = TILE_M / 32, ROWS_N = TILE_N / 32;
    const ConvLaunch& call;
    const Memory<T>& memory;
    TapWalk walk;
    Pixel<T> pixels[ROWS_M];
    const T* sources[ROWS_M];
    const T* weights; // of the row of this thread, at its chunk of the next step
    int channels;     // of weights, from that row on
    uint32_t to;      // the thread's first chunk in stage 0

    __device__ Copier(const ConvLaunch& call, const Memory<T>& memory, int first_pixel, int first_channel, uint32_t stages)
        : call(call), memory(memory), walk(call, threadIdx.x % 4),
          pixels{{call, memory.x, first_pixel + (int)threadIdx.x / 4},
                 {call, memory.x, first_pixel + (int)threadIdx.x / 4 + 32},
                 {call, memory.x, first_pixel + (int)threadIdx.x / 4 + 64},
                 {call, memory.x, first_pixel + (int)threadIdx.x / 4 + 96}} {
        int row = threadIdx.x / 4;
        weights = memory.weights + (int64_t)(first_channel + row) * call.pitch + threadIdx.x % 4 * CHUNK;
        channels = call.oc - first_channel - row;
        to = stages + swizzled(row, threadIdx.x % 4);
        aim();
    }

    __device__ void aim() {
#pragma unroll
        for (int i = 0; i < ROWS_M; i++) sources[i] = walk.source(call, pixels[i]);
    }

    // Issues the copies of the next step into `stage`.
    __device__ void copy(int stage) {
        uint32_t at = to + stage * (TILE_M + TILE_N) * 64;
        int c = walk.chunk * CHUNK;
#pragma unroll
        for (int i = 0; i < ROWS_M; i++, at += 32 * 64) {
            if (GATHER) {
                gather(at, sources[i], c);
            } else {
                copy_async_16(at, sources[i] ? sources[i] + c : memory.x, sources[i] != nullptr);
            }
        }
#pragma unroll
        for (int i = 0; i < ROWS_N; i++, at += 32 * 64) {
            bool inside = i * 32 < channels;
            copy_async_16(at, inside ? weights + (int64_t)i * 32 * call.pitch : memory.weights, inside);
        }
        weights += 4 * CHUNK;
        if (walk.advance(call, 4)) aim();
    }

    // One chunk, element by element.
    __device__ void gather(uint32_t at, const T* source, int c) {
        const unsigned short* from = (const unsigned short*)source + c;
        Words<4> words;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t low = source && c + 2 * i < call.ic ? from[2 * i] : 0;
            uint32_t high = source && c + 2 * i + 1 < call.ic ? from[2 * i + 1] : 0;
            words.word[i] = low | high << 16;
        }
        store_words(__cvta_shared_to_generic(at), words);
    }
};

// Adds bias and residual to the sums of eight channels of a pixel, and stores them.
template <typename T>
__device__ void finish(const ConvLaunch& call, const Memory<T>& memory, float (&sums)[8], int channel, int64_t to, int64_t residual) {
    T* out = memory.out + to + channel;
    const T* more = memory.residual ? memory.residual + residual + channel : nullptr;
    float bias[8];
    load_vector(memory.bias + channel, bias);
#pragma unroll
    for (int i = 0; i < 8; i++) sums[i] += bias[i];
    if (call.wide) {
        if (more) {
            float values[8];
            load_vector(more, values);
#pragma unroll
            for (int i = 0; i < 8; i++) sums[i] += values[i];
        }
        store_vector(out, sums);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (channel + i < call.oc) narrow(more ? sums[i] + widen(more[i]) : sums[i], out[i]);
    }
}

template <typename T, int TILE_N, bool GATHER>
__device__ __forceinline__ void convolve(const ConvLaunch& call, const Memory<T>& memory) {
    // Four warps share the tile as two by two, or one below the other.
    constexpr int WARPS_N = TILE_N == 128 ? 2 : 1, WARP_N = TILE_N / WARPS_N, WARP_M = TILE_M * WARPS_N / 4;
    constexpr int MI = WARP_M / 16, NI = WARP_N / 8;
    constexpr int STAGE = (TILE_M + TILE_N) * 64, STRIP_PITCH = WARP_N + 8;
    __shared__ __align__(128) unsigned char shared[STAGES * STAGE];
    static_assert(TILE_M * 16 + 4 * 16 * STRIP_PITCH * 4 <= STAGES * STAGE, "the stages have room for offsets and strips");
    uint32_t stages = shared_address(shared);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int strips = (call.oc + TILE_N - 1) / TILE_N;
    int first_pixel = blockIdx.x / strips * TILE_M, first_channel = blockIdx.x % strips * TILE_N;
    int warp_m = warp / WARPS_N * WARP_M, warp_n = warp % WARPS_N * WARP_N;

    Copier<T, TILE_N, GATHER> copier(call, memory, first_pixel, first_channel, stages);
    int steps = call.pitch / 32;
#pragma unroll 1
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) copier.copy(s);
        copy_commit();
    }
    float sums[MI][NI][4] = {};
    int stage = 0;
    for (int step = 0; step < steps; step++) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        if (step + STAGES - 1 < steps) copier.copy(stage == 0 ? STAGES - 1 : stage - 1);
        copy_commit();
        uint32_t m_rows = stages + stage * STAGE, n_rows = m_rows + TILE_M * 64;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t a[MI][4], b[NI / 2][4];
#pragma unroll
            for (int i = 0; i < MI; i++) load_matrices(a[i], m_rows + swizzled(warp_m + i * 16 + lane % 16, half * 2 + lane / 16));
#pragma unroll
            for (int j = 0; j < NI / 2; j++)
                load_matrices(b[j], n_rows + swizzled(warp_n + j * 16 + lane / 16 * 8 + lane % 8, half * 2 + lane / 8 % 2));
#pragma unroll
            for (int i = 0; i < MI; i++)
#pragma unroll
                for (int j = 0; j < NI; j++) multiply(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], T());
        }
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    // Only empty groups are left; but other warps may still read the last stage.
    __syncthreads();
    longlong2* offsets = (longlong2*)shared;
    float* strip = (float*)(shared + TILE_M * 16) + warp * 16 * STRIP_PITCH;
    int pixel = first_pixel + threadIdx.x;
    if (pixel < call.pixels)
        offsets[threadIdx.x] = {offset_of(call, pixel, call.out_strides), offset_of(call, pixel, call.residual_strides)};
    __syncthreads();
#pragma unroll
    for (int i = 0; i < MI; i++) {
#pragma unroll
        for (int j = 0; j < NI; j++) {
            float* at = strip + lane / 4 * STRIP_PITCH + j * 8 + lane % 4 * 2;
            *(float2*)at = {sums[i][j][0], sums[i][j][1]};
            *(float2*)(at + 8 * STRIP_PITCH) = {sums[i][j][2], sums[i][j][3]};
        }
        __syncwarp();
#pragma unroll 1
        for (int k = lane; k < 16 * WARP_N / 8; k += 32) {
            int row = k / (WARP_N / 8), column = k % (WARP_N / 8) * 8;
            int m = warp_m + i * 16 + row, channel = first_channel + warp_n + column;
            if (first_pixel + m < call.pixels && channel < call.oc) {
                const float4* from = (const float4*)(strip + row * STRIP_PITCH + column);
                float4 low = from[0], high = from[1];
                float values[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
                longlong2 at = offsets[m];
                finish<T>(call, memory, values, channel, at.x, at.y);
            }
        }
        __syncwarp();
    }
}

#define CONVOLUTION(name, T, TILE_N, GATHER, BLOCKS)                                                                          \
    extern "C" __global__ void __launch_bounds__(128, BLOCKS) name(const T* x, const T* weights, const float* bias,           \
                                                                   const T* residual, T* out,                                 \
                                                                   const __grid_constant__ ConvLaunch call) {                   \
        convolve<T, TILE_N, GATHER>(call, {x, weights, bias, residual, out});                                                 \
    }
CONVOLUTION(conv2d_bf16, bf16, 128, false, 2)
CONVOLUTION(conv2d_narrow_bf16, bf16, 32, false, 4)
CONVOLUTION(conv2d_gather_bf16, bf16, 128, true, 2)
CONVOLUTION(conv2d_f16, f16, 128, false, 2)
CONVOLUTION(conv2d_narrow_f16, f16, 32, false, 4)
CONVOLUTION(conv2d_gather_f16, f16, 128, true, 2)

// As `convolve`, without tensor units. Copies move single numbers, so channels and strides may be any.
extern "C" __global__ void __launch_bounds__(256, 2) conv2d_f32(const float* x, const float* weights, const float* bias,
                                                                      const float* residual, float* out,
                                                                      const __grid_constant__ ConvLaunch call) {
    constexpr int TILE_N = 64, DEPTH = 16, PITCH_M = TILE_M + 4, PITCH_N = TILE_N + 4, ROWS_M = TILE_M / 16, ROWS_N = TILE_N / 16;
    constexpr int STAGE = DEPTH * (PITCH_M + PITCH_N);
    __shared__ __align__(16) float stages[STAGES * STAGE];
    int strips = (call.oc + TILE_N - 1) / TILE_N;
    int first_pixel = blockIdx.x / strips * TILE_M, first_channel = blockIdx.x % strips * TILE_N;
    // Copies: k is threadIdx.x % 16, half a chunk column; row threadIdx.x / 16 and every 16th after it.
    int k = threadIdx.x % DEPTH, row = threadIdx.x / DEPTH;
    TapWalk walk(call, k / CHUNK);
    int pixel = first_pixel + row;
    Pixel<float> pixels[ROWS_M] = {{call, x, pixel},      {call, x, pixel + 16}, {call, x, pixel + 32}, {call, x, pixel + 48},
                                   {call, x, pixel + 64}, {call, x, pixel + 80}, {call, x, pixel + 96}, {call, x, pixel + 112}};
    const float* row_weights = weights + (int64_t)(first_channel + row) * call.pitch + k;
    int channels = call.oc - first_channel - row;
    auto copy = [&](int stage) {
        float* m_columns = stages + stage * STAGE + k * PITCH_M + row;
        float* n_columns = stages + stage * STAGE + DEPTH * PITCH_M + k * PITCH_N + row;
        int c = walk.chunk * CHUNK + k % CHUNK;
#pragma unroll
        for (int i = 0; i < ROWS_M; i++) {
            const float* source = c < call.ic ? walk.source(call, pixels[i]) : nullptr;
            copy_async_4(shared_address(m_columns + i * 16), source ? source + c : x, source != nullptr);
        }
#pragma unroll
        for (int i = 0; i < ROWS_N; i++) {
            bool inside = i * 16 < channels;
            const float* source = inside ? row_weights + (int64_t)i * 16 * call.pitch : weights;
            copy_async_4(shared_address(n_columns + i * 16), source, inside);
        }
        row_weights += DEPTH;
        walk.advance(call, DEPTH / CHUNK);
    };
    int steps = call.pitch / DEPTH;
#pragma unroll 1
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) copy(s);
        copy_commit();
    }
    float sums[8][4] = {};
    int m = threadIdx.x / 16 * 8, n = threadIdx.x % 16 * 4, stage = 0;
    for (int step = 0; step < steps; step++) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        if (step + STAGES - 1 < steps) copy(stage == 0 ? STAGES - 1 : stage - 1);
        copy_commit();
        uint32_t m_columns = shared_address(stages + stage * STAGE + m);
        uint32_t n_columns = shared_address(stages + stage * STAGE + DEPTH * PITCH_M + n);
#pragma unroll
        for (int kk = 0; kk < DEPTH; kk++) {
            float a[8], b[4];
            load_shared_4(a, m_columns + kk * PITCH_M * 4);
            load_shared_4(a + 4, m_columns + kk * PITCH_M * 4 + 16);
            load_shared_4(b, n_columns + kk * PITCH_N * 4);
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
        }
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    int channel = first_channel + n;
    if (channel >= call.oc) return;
    float biases[4];
    load_vector(bias + channel, biases);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        pixel = first_pixel + m + i;
        if (pixel >= call.pixels) return;
        float* to = out + offset_of(call, pixel, call.out_strides) + channel;
        const float* more = residual ? residual + offset_of(call, pixel, call.residual_strides) + channel : nullptr;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (channel + j < call.oc) to[j] = sums[i][j] + biases[j] + (more ? more[j] : 0.0f);
        }
    }
}
