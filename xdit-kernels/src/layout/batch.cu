// Many copies in one launch: parts of messages, of joined tensors, and of their places after a transfer.
//
// A box is the elements of a strided copy within one dtype: up to four dims, seen as words of 1 to 16 bytes, the widest that its
// strides, sizes and addresses are multiples of. A launch takes 8 boxes or 56 by value, in whatever memory they lie.
//
// Tiles. A block of 256 threads copies 1024 words of one box; a thread has four of them, 256 words apart, so that neighbours copy
// neighbours. The boxes have their blocks one after another; a block finds its box by halving.
//
// Over time. The four loads of a thread, then its four stores.
//
// The bound. Memory: each byte is read and written once. The parameters are 4 KB at most, which the constant cache holds.
#include "../cuda/prelude.cuh"

constexpr int BOX_DIMS = 4, THREADS = 256, EACH = 4;

struct Box {
    const void* x;
    void* out;
    // The innermost dim first; sizes of dims that are not there are 1. Strides are in words.
    uint32_t dims[BOX_DIMS], x_strides[BOX_DIMS], out_strides[BOX_DIMS];
    uint32_t first_block;
    uint32_t word;  // its bytes
};

template <int N>
struct Boxes {
    Box of[N];
    uint32_t count, unused;
};

template <typename Word>
__device__ __forceinline__ void copy_words(const Box& box, uint32_t block) {
    uint32_t total = box.dims[0] * box.dims[1] * box.dims[2] * box.dims[3];
    Word held[EACH];
    uint64_t to[EACH];
    bool there[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        // The host has fewer than 2^31 words in a box.
        uint32_t word = block * (THREADS * EACH) + i * THREADS + threadIdx.x;
        there[i] = word < total;
        if (!there[i]) continue;
        uint64_t from = 0;
        to[i] = 0;
#pragma unroll
        for (int d = 0; d < BOX_DIMS; d++) {
            uint32_t rest = d + 1 == BOX_DIMS ? 0 : word / box.dims[d], index = word - rest * box.dims[d];
            from += (uint64_t)index * box.x_strides[d];
            to[i] += (uint64_t)index * box.out_strides[d];
            word = rest;
        }
        held[i] = ((const Word*)box.x)[from];
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (there[i]) ((Word*)box.out)[to[i]] = held[i];
}

template <int N>
__device__ __forceinline__ void copy_boxes(const Boxes<N>& boxes) {
    // The last box whose first block is not behind this one.
    uint32_t low = 0, high = boxes.count;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (boxes.of[middle].first_block <= blockIdx.x)
            low = middle;
        else
            high = middle;
    }
    const Box& box = boxes.of[low];
    uint32_t block = blockIdx.x - box.first_block;
    switch (box.word) {
    case 16: copy_words<uint4>(box, block); break;
    case 8: copy_words<uint2>(box, block); break;
    case 4: copy_words<uint32_t>(box, block); break;
    case 2: copy_words<uint16_t>(box, block); break;
    default: copy_words<uint8_t>(box, block);
    }
}

#define COPY_BOXES(name, N)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) name(const __grid_constant__ Boxes<N> boxes) {                    \
        copy_boxes<N>(boxes);                                                                                               \
    }
COPY_BOXES(copy_boxes_8, 8)
COPY_BOXES(copy_boxes_56, 56)
