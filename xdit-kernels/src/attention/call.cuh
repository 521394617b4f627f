// One call of attention, as the host describes it, and what every kernel of this folder does with it.
#pragma once
#include "../cuda/prelude.cuh"

// The parameters of a kernel that are addresses.
struct Buffers {
    const void *q, *k, *v;
    void* out;
    float* lse;
    const uint8_t* key_mask; // [b, lk], 0 hides the key; or null
    const float* bias;       // [b, h, lq, lk], added to the scaled scores, neighbours along lk; or null
};

// The last parameter. Strides are in elements, of the dims in brackets.
struct FlashCall {
    int64_t q_strides[4], k_strides[4], v_strides[4]; // [b, l, h, d]
    int64_t out_strides[3];                           // [b, l, h]; neighbours along d
    int64_t lse_strides[3];                           // [b, h, l]
    int64_t key_mask_strides[2];
    int64_t bias_strides[3]; // 0 where the bias has one entry for all
    int lq, lk, h, group, d; // group: heads of q that share a head of k and v
    int tiles;               // of queries
    float scale;             // times log2 e: scores are exponents of 2
    int causal;              // whether query i sees keys 0..=i only
    int accumulate;          // whether out and lse hold attention over other keys, to which these keys are added
    int out_f32;             // whether out is f32; else it has q's type
};

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

// What a score is relative to: the row's maximum, or 0 in a row that has seen no key, whose weights are then 2^(-inf).
__device__ __forceinline__ float shift_of(float most) {
    return most == minus_infinity() ? 0.0f : most;
}

// Which rows a block computes.
struct Place {
    int batch, head, kv_head, tile;
};

__device__ __forceinline__ Place place_of(const FlashCall& call, uint32_t block) {
    uint32_t unit = block / call.tiles, tile = block - unit * call.tiles;
    int head = unit % call.h, batch = unit / call.h;
    // Under a causal mask the last queries see most keys: they begin first.
    return {batch, head, head / call.group, call.causal ? call.tiles - 1 - (int)tile : (int)tile};
}

// The shares of two parts of a row and the log of the sum of both; a part at -inf has no share, and NaN stays NaN.
struct Merged {
    float first, second, lse;
};

__device__ __forceinline__ Merged merged(float a, float b) {
    if (b == minus_infinity()) return {1.0f, 0.0f, a};
    if (a == minus_infinity()) return {0.0f, 1.0f, b};
    float e = exp2f((b - a) * LOG2_E), more = exp2f(-fabsf(b - a) * LOG2_E);
    // The share of the lesser part is a quotient of its own: the difference from 1 would lose its digits.
    float first = 1.0f / (1.0f + e), second = 1.0f / (1.0f + exp2f((a - b) * LOG2_E));
    float lse = fmaxf(a, b) + log1pf(more);
    return {first, second, isnan(a - b) ? a - b : lse};
}
