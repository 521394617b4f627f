// What all kernels share: element types and their conversions, loads and stores of several elements, sums of a warp and of a
// block, and the walk over rows of strided operands.
//
// Arithmetic is in f32 whatever the element type, and a result is rounded once, to nearest even. Where the processor's
// kernel rounds a product before a sum, the kernel says so by __fmul_rn and __fadd_rn, which the compiler never fuses; where
// it fuses them, by __fmaf_rn.
#pragma once

typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;

// ---- Element types

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((uint32_t)x.bits << 16); }
__device__ __forceinline__ float widen(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
__device__ __forceinline__ float widen(uint8_t x) { return (float)x; }

__device__ __forceinline__ void narrow(float x, float& y) { y = x; }
__device__ __forceinline__ void narrow(float x, bf16& y) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
__device__ __forceinline__ void narrow(float x, f16& y) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
// Towards zero, at most 255; NaN becomes 0.
__device__ __forceinline__ void narrow(float x, uint8_t& y) { y = (uint8_t)(uint32_t)(x > 0.0f ? fminf(x, 255.0f) : 0.0f); }

// Two elements in one word: the first in the low half.
__device__ __forceinline__ uint32_t narrow_pair(float first, float second, bf16) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}
__device__ __forceinline__ uint32_t narrow_pair(float first, float second, f16) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}
__device__ __forceinline__ void widen_pair(uint32_t pair, float& first, float& second, bf16) {
    first = __uint_as_float(pair << 16);
    second = __uint_as_float(pair & 0xffff0000u);
}
__device__ __forceinline__ void widen_pair(uint32_t pair, float& first, float& second, f16) {
    first = widen(f16{(uint16_t)pair});
    second = widen(f16{(uint16_t)(pair >> 16)});
}

// ---- Numbers and functions that several kernels need

__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

// 2^x by the special unit, good to 2 units in the last place; less than 2^-126 is 0.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// ---- Vectors: V adjacent elements that one thread loads or stores by instructions of up to 16 bytes

// How many elements of T are 16 bytes.
template <typename T>
constexpr int VECTOR = 16 / sizeof(T);

// COUNT words, which lie at a multiple of their size or of 16 bytes.
template <int COUNT>
struct Words {
    uint32_t word[COUNT];
};

template <int COUNT>
__device__ __forceinline__ Words<COUNT> load_words(const void* from) {
    static_assert(COUNT == 2 || COUNT % 4 == 0, "words that 8- or 16-byte instructions load");
    Words<COUNT> words;
    if constexpr (COUNT == 2) {
        uint2 pair = *(const uint2*)from;
        words.word[0] = pair.x, words.word[1] = pair.y;
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i += 4) {
            uint4 four = ((const uint4*)from)[i / 4];
            words.word[i] = four.x, words.word[i + 1] = four.y, words.word[i + 2] = four.z, words.word[i + 3] = four.w;
        }
    }
    return words;
}

template <int COUNT>
__device__ __forceinline__ void store_words(void* to, const Words<COUNT>& words) {
    static_assert(COUNT == 2 || COUNT % 4 == 0, "words that 8- or 16-byte instructions store");
    if constexpr (COUNT == 2) {
        *(uint2*)to = make_uint2(words.word[0], words.word[1]);
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i += 4)
            ((uint4*)to)[i / 4] = make_uint4(words.word[i], words.word[i + 1], words.word[i + 2], words.word[i + 3]);
    }
}

template <int COUNT, int V>
__device__ __forceinline__ void widen_words(const Words<COUNT>& words, float (&x)[V], float) {
#pragma unroll
    for (int i = 0; i < V; i++) x[i] = __uint_as_float(words.word[i]);
}
template <int COUNT, int V, typename T>
__device__ __forceinline__ void widen_words(const Words<COUNT>& words, float (&x)[V], T type) {
#pragma unroll
    for (int i = 0; i < V; i += 2) widen_pair(words.word[i / 2], x[i], x[i + 1], type);
}

// V elements from a vector's place on, as f32.
template <typename T, int V>
__device__ __forceinline__ void load_vector(const T* from, float (&x)[V]) {
    widen_words(load_words<V * (int)sizeof(T) / 4>(from), x, T());
}

template <int V>
__device__ __forceinline__ void store_vector(float* to, const float (&x)[V]) {
    Words<V> words;
#pragma unroll
    for (int i = 0; i < V; i++) words.word[i] = __float_as_uint(x[i]);
    store_words(to, words);
}
template <typename T, int V>
__device__ __forceinline__ void store_vector(T* to, const float (&x)[V]) {
    Words<V / 2> words;
#pragma unroll
    for (int i = 0; i < V; i += 2) words.word[i / 2] = narrow_pair(x[i], x[i + 1], T());
    store_words(to, words);
}

// Elements at .. at + V of a row of `len`: by vectors where ALIGNED, which the caller chooses if every row begins at a
// multiple of V elements and of 16 bytes and holds whole vectors; else one by one, and elements behind the row are 0.
template <bool ALIGNED, typename T, int V>
__device__ __forceinline__ void load_row(const T* row, uint64_t at, uint64_t len, float (&x)[V]) {
    if constexpr (ALIGNED) {
        load_vector(row + at, x);
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) x[i] = at + i < len ? widen(row[at + i]) : 0.0f;
    }
}
template <bool ALIGNED, typename T, int V>
__device__ __forceinline__ void store_row(T* row, uint64_t at, uint64_t len, const float (&x)[V]) {
    if constexpr (ALIGNED) {
        store_vector(row + at, x);
    } else {
#pragma unroll
        for (int i = 0; i < V; i++)
            if (at + i < len) narrow(x[i], row[at + i]);
    }
}

// ---- Operands whose type is known at the launch: parameters of norms, gates, tables, the other term of a sum

// SAME is the type of the kernel's data. The host converts an operand of a third type first.
enum Kind : uint32_t { ABSENT = 0, F32 = 1, SAME = 2 };

// Rows of adjacent elements, or none (ABSENT). A kernel takes the three as parameters of their own: a launch notes the addresses
// among its parameters.
struct Operand {
    const void* address;  // of the first element
    uint64_t stride;      // elements from row to row: 0 where all share one
    uint32_t kind;
};
#define OPERAND(name) const void *name, uint64_t name##_stride, uint32_t name##_kind
#define OPERAND_OF(name) Operand{name, name##_stride, name##_kind}

// Elements at .. at + V of the row that begins `offset` elements behind the first, or `absent`. T is the type of the kernel's
// data. All threads of a launch take the same branch.
template <bool ALIGNED, typename T, int V>
__device__ __forceinline__ void load_operand(const Operand& operand, uint64_t offset, uint64_t at, uint64_t len, float absent, float (&x)[V]) {
    if (operand.kind == ABSENT) {
#pragma unroll
        for (int i = 0; i < V; i++) x[i] = absent;
    } else if (sizeof(T) == 4 || operand.kind == F32) {
        load_row<ALIGNED>((const float*)operand.address + offset, at, len, x);
    } else {
        load_row<ALIGNED>((const T*)operand.address + offset, at, len, x);
    }
}

// ---- Rows of N strided operands of one shape

constexpr int OUTER_DIMS = 5;

template <int N>
struct Walk {
    uint64_t len;   // elements of a row
    uint32_t rows;
    uint32_t ndim;  // outer dims in use
    uint32_t dims[OUTER_DIMS], unused;  // their sizes, the innermost first
    uint64_t strides[N][OUTER_DIMS];

    // The element with which a row begins in each operand.
    __device__ __forceinline__ void offsets(uint32_t row, uint64_t (&at)[N]) const {
#pragma unroll
        for (int o = 0; o < N; o++) at[o] = 0;
#pragma unroll
        for (int d = 0; d < OUTER_DIMS; d++) {
            if (d >= ndim) break;
            bool last = d + 1 == ndim;
            uint32_t rest = last ? 0 : row / dims[d], index = row - rest * dims[d];
            if (last) index = row;
#pragma unroll
            for (int o = 0; o < N; o++) at[o] += index * strides[o][d];
            row = rest;
        }
    }
};

// The place of the thread where each takes V adjacent elements, row after row: its row, and its first element there. False
// for threads behind the last row. A launch has one thread for each V elements of a row, rounded up, and threadIdx.x alone.
template <int V, int N>
__device__ __forceinline__ bool place(const Walk<N>& walk, uint32_t& row, uint64_t& first) {
    uint64_t vectors = (walk.len + V - 1) / V, index = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    row = 0;
    if (walk.rows > 1) {
        // The launch has fewer than 2^32 threads then.
        row = (uint32_t)index / (uint32_t)vectors;
        index -= row * vectors;
    }
    first = index * V;
    return row < walk.rows && index < vectors;
}

// ---- Sums in a fixed order: every thread gets the result, and every run gives the same bits

constexpr uint32_t ALL_LANES = 0xffffffffu;

// Over groups of `width` lanes, a power of two. All lanes of the warp take part.
__device__ __forceinline__ float lanes_sum(float x, int width = 32) {
    for (int step = width / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}
__device__ __forceinline__ double lanes_sum(double x, int width = 32) {
    for (int step = width / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}
// NaN counts as nothing.
__device__ __forceinline__ float lanes_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
    return x;
}

constexpr int MOST_WARPS = 32;

// What the warps of a block tell each other.
template <int N>
struct WarpValues {
    float of[N][MOST_WARPS];
};

// N sums over the threads of threadIdx.x, which are whole warps. A block has one row of such threads (blockDim.y is 1), or
// each row is one warp and needs no barrier. Two sums of a block in turn need two `values`.
template <int N>
__device__ __forceinline__ void row_sums(float (&x)[N], WarpValues<N>& values) {
#pragma unroll
    for (int n = 0; n < N; n++) x[n] = lanes_sum(x[n]);
    uint32_t warps = blockDim.x / 32, lane = threadIdx.x % 32;
    if (warps == 1) return;
    if (lane == 0)
#pragma unroll
        for (int n = 0; n < N; n++) values.of[n][threadIdx.x / 32] = x[n];
    __syncthreads();
#pragma unroll
    for (int n = 0; n < N; n++) x[n] = lanes_sum(lane < warps ? values.of[n][lane] : 0.0f);
}

// Likewise the greatest.
__device__ __forceinline__ float row_max(float x, WarpValues<1>& values) {
    x = lanes_max(x);
    uint32_t warps = blockDim.x / 32, lane = threadIdx.x % 32;
    if (warps == 1) return x;
    if (lane == 0) values.of[0][threadIdx.x / 32] = x;
    __syncthreads();
    return lanes_max(lane < warps ? values.of[0][lane] : minus_infinity());
}

// ---- A row between the passes over it

// The share of one thread: vectors threadIdx.x, threadIdx.x + blockDim.x, … of V elements. With KEPT > 0 it stays in registers,
// and blockDim.x · KEPT · V elements are the longest row; with KEPT = 0 each pass reads the row again, from the caches.
template <typename T, int V, bool ALIGNED, int KEPT>
struct Row {
    const T* x;
    uint64_t len;
    float kept[KEPT > 0 ? KEPT : 1][V];

    __device__ __forceinline__ Row(const T* row, uint64_t row_len) : x(row), len(row_len) {
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            uint32_t at = (threadIdx.x + k * blockDim.x) * V;
            if (at < (uint32_t)len) load_row<ALIGNED>(x, at, len, kept[k]);
        }
    }

    // Calls f(first element, elements) for each vector.
    template <typename F>
    __device__ __forceinline__ void each(F f) const {
        if constexpr (KEPT > 0) {
#pragma unroll
            for (int k = 0; k < KEPT; k++) {
                uint32_t at = (threadIdx.x + k * blockDim.x) * V;
                if (at < (uint32_t)len) f((uint64_t)at, kept[k]);
            }
        } else {
            for (uint64_t at = threadIdx.x * V; at < len; at += blockDim.x * V) {
                float x_at[V];
                load_row<ALIGNED>(x, at, len, x_at);
                f(at, x_at);
            }
        }
    }
};

// Vectors of a row that a thread keeps.
constexpr int KEPT_VECTORS = 2;
