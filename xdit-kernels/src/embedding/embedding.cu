// Rows of a table picked by ids.
//
// gather_W moves words of W bytes: the host takes the widest word that the length and the strides of rows and both addresses are
// multiples of.
//
// Tiles and time. A thread has a word of the output: it loads its row's id, then the word, and stores it. Threads of a row follow
// one another, so their ids come from one cache line.
//
// The bound. Memory: each byte of the picked rows is read and written once.
//
// An id that the table does not have gives a row of words whose bits are all 1, which is NaN in every float: a kernel cannot
// fail, and the check that results are finite finds it.
#include "../cuda/prelude.cuh"

__device__ __forceinline__ void all_ones(uint8_t& word) { word = 0xff; }
__device__ __forceinline__ void all_ones(uint16_t& word) { word = 0xffff; }
__device__ __forceinline__ void all_ones(uint32_t& word) { word = 0xffffffffu; }
__device__ __forceinline__ void all_ones(uint4& word) { word = make_uint4(0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu); }

// Strides and lengths are in words.
template <typename Word>
__device__ __forceinline__ void gather(const Word* table, uint64_t table_stride, uint32_t table_rows, const uint32_t* ids, uint64_t ids_step, Word* out, uint64_t out_stride, uint32_t rows, uint32_t len) {
    uint64_t index = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint64_t row = index / len, at = index - row * len;
    if (row >= rows) return;
    uint32_t id = ids[row * ids_step];
    Word word;
    if (id < table_rows)
        word = table[id * table_stride + at];
    else
        all_ones(word);
    out[row * out_stride + at] = word;
}

#define GATHER(name, Word)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                                       \
        name(const Word* table, uint64_t table_stride, uint32_t table_rows, const uint32_t* ids, uint64_t ids_step,         \
             Word* out, uint64_t out_stride, uint32_t rows, uint32_t len) {                                                 \
        gather(table, table_stride, table_rows, ids, ids_step, out, out_stride, rows, len);                                 \
    }
GATHER(gather_1, uint8_t)
GATHER(gather_2, uint16_t)
GATHER(gather_4, uint32_t)
GATHER(gather_16, uint4)
