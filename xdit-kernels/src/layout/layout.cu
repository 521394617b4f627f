// Copies between any layouts, and casts.
//
// copy_W moves words of W bytes: the host takes the widest word that all strides, sizes and addresses are multiples of, so a
// copy of rows goes by 16 bytes whatever the dtype. The last dim may have a step on either side.
// cast_FROM_TO converts between floats, or a float and u8; 8 elements a thread where rows are whole vectors, else one.
// transpose_W is for a copy whose source is adjacent along one dim and whose destination along another.
//
// Tiles. Copies and casts: a thread has a word or a vector, blocks of 256 threads take them in the order of the output's rows.
// Transposition: a block of 32 × 8 threads has a tile of 32 × 32.
//
// Over time. Copies and casts: load, store. Transposition: 4 loads a thread along the source's adjacent dim into shared memory,
// a barrier, 4 stores along the destination's.
//
// Shared memory. The tile, whose rows are one word longer, so that a column lies in 32 banks (words of 4 bytes).
//
// The bound. Memory: each byte is read and written once, by segments of at least 32 bytes in a transposition too.
#include "../cuda/prelude.cuh"

template <typename Word>
__device__ __forceinline__ void copy_word(const Walk<2>& walk, const Word* x, Word* out, uint64_t x_step, uint64_t out_step) {
    uint32_t row;
    uint64_t first, at[2];
    if (!place<1>(walk, row, first)) return;
    walk.offsets(row, at);
    out[at[1] + first * out_step] = x[at[0] + first * x_step];
}

#define COPY(name, Word)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                                       \
        name(Walk<2> walk, const Word* x, Word* out, uint64_t x_step, uint64_t out_step) {                                  \
        copy_word(walk, x, out, x_step, out_step);                                                                          \
    }
COPY(copy_1, uint8_t)
COPY(copy_2, uint16_t)
COPY(copy_4, uint32_t)
COPY(copy_8, uint2)
COPY(copy_16, uint4)

constexpr int SIDE = 32, TILE_ROWS = 8;

// Of each row of the walk (the dims but two), out[j, i] = x[i, j]: i is adjacent in x, j in out.
template <typename Word>
__device__ __forceinline__ void transpose(const Walk<2>& walk, const Word* x, Word* out, uint32_t size_i, uint32_t size_j, uint64_t x_stride_j, uint64_t out_stride_i) {
    __shared__ Word tile[SIDE][SIDE + (sizeof(Word) == 4 ? 1 : 4 / sizeof(Word))];
    uint32_t tiles_i = (size_i + SIDE - 1) / SIDE, tiles_j = (size_j + SIDE - 1) / SIDE;
    uint32_t rest = blockIdx.x / tiles_i, i0 = (blockIdx.x - rest * tiles_i) * SIDE;
    uint32_t row = rest / tiles_j, j0 = (rest - row * tiles_j) * SIDE;
    uint64_t at[2];
    walk.offsets(row, at);
    uint32_t i = i0 + threadIdx.x;
#pragma unroll
    for (int k = 0; k < SIDE; k += TILE_ROWS) {
        uint32_t j = j0 + threadIdx.y + k;
        if (i < size_i && j < size_j) tile[threadIdx.y + k][threadIdx.x] = x[at[0] + i + j * x_stride_j];
    }
    __syncthreads();
    uint32_t j = j0 + threadIdx.x;
#pragma unroll
    for (int k = 0; k < SIDE; k += TILE_ROWS) {
        uint32_t i = i0 + threadIdx.y + k;
        if (i < size_i && j < size_j) out[at[1] + j + i * out_stride_i] = tile[threadIdx.x][threadIdx.y + k];
    }
}

#define TRANSPOSE(name, Word)                                                                                               \
    extern "C" __global__ void __launch_bounds__(SIDE* TILE_ROWS)                                                           \
        name(Walk<2> walk, const Word* x, Word* out, uint32_t size_i, uint32_t size_j, uint64_t x_stride_j, uint64_t out_stride_i) { \
        transpose(walk, x, out, size_i, size_j, x_stride_j, out_stride_i);                                                  \
    }
TRANSPOSE(transpose_1, uint8_t)
TRANSPOSE(transpose_2, uint16_t)
TRANSPOSE(transpose_4, uint32_t)

template <typename From, typename To>
__device__ __forceinline__ void cast(const Walk<2>& walk, const From* x, To* out, uint64_t x_step, uint64_t out_step, uint32_t aligned) {
    uint32_t row;
    uint64_t first, at[2];
    if constexpr (sizeof(From) > 1 && sizeof(To) > 1) {
        if (aligned) {
            if (!place<8>(walk, row, first)) return;
            walk.offsets(row, at);
            float v[8];
            load_vector(x + at[0] + first, v);
            store_vector(out + at[1] + first, v);
            return;
        }
    }
    if (!place<1>(walk, row, first)) return;
    walk.offsets(row, at);
    narrow(widen(x[at[0] + first * x_step]), out[at[1] + first * out_step]);
}

#define CAST(name, From, To)                                                                                                \
    extern "C" __global__ void __launch_bounds__(256)                                                                       \
        name(Walk<2> walk, const From* x, To* out, uint64_t x_step, uint64_t out_step, uint32_t aligned) {                  \
        cast(walk, x, out, x_step, out_step, aligned);                                                                      \
    }
CAST(cast_f32_bf16, float, bf16)
CAST(cast_f32_f16, float, f16)
CAST(cast_bf16_f32, bf16, float)
CAST(cast_bf16_f16, bf16, f16)
CAST(cast_f16_f32, f16, float)
CAST(cast_f16_bf16, f16, bf16)
CAST(cast_u8_f32, uint8_t, float)
CAST(cast_u8_bf16, uint8_t, bf16)
CAST(cast_u8_f16, uint8_t, f16)
CAST(cast_f32_u8, float, uint8_t)
CAST(cast_bf16_u8, bf16, uint8_t)
CAST(cast_f16_u8, f16, uint8_t)
