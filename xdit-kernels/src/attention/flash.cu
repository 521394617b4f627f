// Flash attention on tensor units: out = softmax(q k^T scale + mask) v for bf16 and f16, with f32 sums, and the log-sum-exp of
// each row (Dao, "FlashAttention-2", arXiv:2307.08691).
//
// Tiles. A block of 4 warps has 128 queries of one head, a warp 32 of them in two tiles of 16. Keys and values come in tiles of
// 64. D, the head dim in shared memory and registers, is 32, 64, 96 or 128; a head dim in between is padded with zeros.
// 32 rows a warp and not 16: each fragment of keys and values that `ldmatrix` reads then feeds four `mma`, not two. With two,
// shared memory (128 bytes a clock) would be as busy as the tensor units.
//
// Pipeline. A ring of three slots in shared memory holds K(i), V(i), K(i+1), …; while two are computed with, `cp.async` fills
// the third. One barrier a product: it makes a slot visible that has arrived, and tells that all warps are done with the slot
// that is filled next.
//
//     slot 0:  K0: q k^T | V1 arrives ......... | V1: p v | …          copies are in flight
//     slot 1:  V0 arrives ......... | V0: p v | K2 arrives ...         for a product and a softmax
//     slot 2:  K1 arrives | .................. | K1: q k^T | …
//
// Three slots and not four: with D = 128 a block then needs 80 KiB, and two blocks fit an SM of an A100 (164 KiB).
//
//     shared memory, bytes     0        256 D              256 D + 128 D          + 256 D          640 D
//                              | q 128 rows | slot 0, 64 rows | slot 1            | slot 2           |
//
// Rows are not padded: chunks of 16 bytes are permuted (Swizzled), so no access has a bank conflict.
//
// Softmax. Scores stay in registers, as exponents of 2 with the scale folded into one multiply-add. A row's weights are relative
// to a reference that changes only when the row's maximum exceeds it by more than 8: until then weights are up to 2^8, which
// f32 sums and 16-bit weights hold as precisely, and the sums need not be rescaled. The rule looks at one row alone, so a
// row's bits do not depend on other rows. Masks and ragged ends take a second path, tile by tile. The host leaves a bias, and a
// scale that is not positive, to the kernels of fma.cu.
//
// Accumulating, the last step merges the tile's rows with those in out and lse: it saves a ring the pass of merge.cu. The host
// does not ask for it yet.
//
// The bound, per tile of 64 keys and warp, D = 128: 256 mma (at 8 clocks each on a quarter SM of an A100: 2048 clocks), 64
// exponentials a thread (8 clocks each: 512), about 300 other instructions of arithmetic, 80 ldmatrix (4 clocks of the SM each,
// for 4 warps: 1280). Tensor units are the bound on an A100, if the second block hides softmax and barriers. On an H100 `mma`
// reaches about two thirds of what wgmma does, and shared memory is as near to its limit: flash.sm_90a.cu is for that GPU. Counts from
// SASS: docs/benchmarks/gpu.md.
#include "../cuda/matrix.cuh"
#include "rows.cuh"

constexpr int WARPS = 4, THREADS = WARPS * 32, QUERIES = 128, KEYS = 64;

// A tile of rows of D numbers of 16 bits, without padding. The 16-byte chunks of a row are permuted within groups, so that
// eight rows of one chunk lie in eight different groups of four banks, for stores of a row as for `ldmatrix`.
template <int D>
struct Swizzled {
    static constexpr int PITCH = D * 2, CHUNKS = D / 8, GROUP = CHUNKS % 8 == 0 ? 8 : 4;
    static_assert(CHUNKS % GROUP == 0, "a row is whole groups");

    static __device__ __forceinline__ uint32_t address(uint32_t tile, int row, int chunk) {
        int turn = GROUP == 8 ? row & 7 : row >> 1 & 3;
        return tile + row * PITCH + (chunk ^ turn) * 16;
    }

    // From the address of one row and a chunk of 0 or 1: so many rows (of a multiple of 8) and chunks (of a multiple of 2) on.
    static __device__ __forceinline__ uint32_t further(uint32_t address, int rows, int chunks) {
        return (address ^ chunks % GROUP * 16) + chunks / GROUP * GROUP * 16 + rows * PITCH;
    }
};

// Where a thread copies from: one chunk, or several GROUP chunks apart, of every few rows.
template <class T, int D>
struct Copies {
    static constexpr int LANES = Swizzled<D>::GROUP, STEP = THREADS / LANES;
    const T* from; // the thread's chunk in the first row that it copies
    uint32_t offset; // of that chunk in a tile

    __device__ __forceinline__ Copies(const T* rows, int64_t stride)
        : from(rows + threadIdx.x / LANES * stride + threadIdx.x % LANES * 8),
          offset(Swizzled<D>::address(0, threadIdx.x / LANES, threadIdx.x % LANES)) {}

    // Starts to copy a tile whose first row is `first` of `rows`. Rows behind the last, those that `seen` hides, and columns
    // from d on become 0; nothing is read for them.
    template <int ROWS>
    __device__ __forceinline__ void
    start(uint32_t tile, int first, int rows, int64_t stride, int d, const uint8_t* seen = nullptr, int64_t seen_stride = 0) const {
        int row = threadIdx.x / LANES, chunk = threadIdx.x % LANES;
        // With 168 registers (three blocks an SM) computing it again costs less than keeping it: else one register spills.
        uint32_t to = D > 64 ? tile + offset : Swizzled<D>::address(tile, row, chunk);
        const T* line = from + first * stride;
        first += row;
#pragma unroll
        for (int r = 0; r < ROWS; r += STEP) {
            bool inside = first + r < rows;
            if (seen != nullptr && inside) inside = seen[(first + r) * seen_stride] != 0;
#pragma unroll
            for (int c = 0; c < Swizzled<D>::CHUNKS; c += LANES)
                copy_async_16(to + r * Swizzled<D>::PITCH + c * 16, line + c * 8, inside && (chunk + c) * 8 < d);
            line += STEP * stride;
        }
    }
};

// Hides keys: those that the key mask hides, those from lk on, and under a causal mask those after the row.
template <int N>
__device__ __forceinline__ void
mask(float (&scores)[2][N][4], const FlashCall& call, const uint8_t* seen, int first_row, int first_key) {
    static_assert(N * 8 == 64, "two votes tell of all keys");
    int lane = threadIdx.x % 32;
    uint32_t visible[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int key = first_key + i * 32 + lane;
        bool sees = key < call.lk;
        if (seen != nullptr && sees) sees = seen[key * call.key_mask_strides[1]] != 0;
        visible[i] = __ballot_sync(ALL_LANES, sees) >> lane % 4 * 2;
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = first_row + m * 16 + half * 8 + lane / 4;
            int last = call.causal ? row - first_key - lane % 4 * 2 : KEYS;
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    bool sees = (visible[j / 4] >> (j % 4 * 8 + e) & 1) != 0 && j * 8 + e <= last;
                    if (!sees) scores[m][j][half * 2 + e] = minus_infinity();
                }
        }
}

template <class T, int D>
__device__ __forceinline__ void flash(const Buffers& at, const FlashCall& call) {
    using Tile = Swizzled<D>;
    constexpr int SLOT = KEYS * Tile::PITCH;
    // Fragments of queries stay in registers where there are enough.
    constexpr bool KEEPS_Q = D <= 32;
    extern __shared__ __align__(128) uint8_t shared[];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Place place = place_of(call, blockIdx.x);
    int first = place.tile * QUERIES, first_row = first + warp * 32;
    int end = call.causal ? min(call.lk, first + QUERIES) : call.lk, tiles = (end + KEYS - 1) / KEYS;

    Copies<T, D> k((const T*)at.k + place.batch * call.k_strides[0] + place.kv_head * call.k_strides[2], call.k_strides[1]);
    Copies<T, D> v((const T*)at.v + place.batch * call.v_strides[0] + place.kv_head * call.v_strides[2], call.v_strides[1]);
    const uint8_t* seen = at.key_mask ? at.key_mask + place.batch * call.key_mask_strides[0] : nullptr;
    uint32_t shared_q = shared_address(shared), slots = shared_q + QUERIES * Tile::PITCH;
    uint32_t slot_k = slots, slot_v = slots + SLOT, slot_free = slots + 2 * SLOT;
    // Tiles from `tiles` on are not there; their groups of copies are empty.
    auto load_k = [&](uint32_t slot, int tile) {
        if (tile < tiles) k.template start<KEYS>(slot, tile * KEYS, call.lk, call.k_strides[1], call.d);
        copy_commit();
    };
    // A hidden value may be NaN, and 0 times NaN is NaN: it is not loaded.
    auto load_v = [&](uint32_t slot, int tile) {
        if (tile < tiles)
            v.template start<KEYS>(slot, tile * KEYS, call.lk, call.v_strides[1], call.d, seen, call.key_mask_strides[1]);
        copy_commit();
    };
    const T* q = (const T*)at.q + place.batch * call.q_strides[0] + place.head * call.q_strides[2];
    Copies<T, D>(q, call.q_strides[1]).template start<QUERIES>(shared_q, first, call.lq, call.q_strides[1], call.d);
    load_k(slot_k, 0);
    load_v(slot_v, 0);

    // Lane's places in fragments: of 16 rows and 16 columns of q or v, and of 16 rows (columns of the right side) of k.
    int row_major = lane % 16, column_major = lane % 8 + lane / 16 * 8;
    uint32_t at_q = Tile::address(shared_q, warp * 32 + row_major, lane / 16);
    uint32_t in_k = Tile::address(0, column_major, lane / 8 % 2), in_v = Tile::address(0, row_major, lane / 16);
    uint32_t kept[2][KEEPS_Q ? D / 16 : 1][4];
    float out[2][D / 8][4] = {};
    Rows<2> rows;

    for (int tile = 0; tile < tiles; tile++) {
        copy_wait<1>();
        __syncthreads();
        if (KEEPS_Q && tile == 0)
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int c = 0; c < D / 16; c++) load_matrices(kept[m][KEEPS_Q ? c : 0], Tile::further(at_q, m * 16, c * 2));
        load_k(slot_free, tile + 1);
        float scores[2][KEYS / 8][4] = {};
#pragma unroll
        for (int c = 0; c < D / 16; c++) {
            uint32_t fresh[2][4];
#pragma unroll
            for (int m = 0; m < 2; m++)
                if (!KEEPS_Q) load_matrices(fresh[m], Tile::further(at_q, m * 16, c * 2));
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++) {
                uint32_t right[4];
                load_matrices(right, Tile::further(slot_k + in_k, j * 16, c * 2));
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    const uint32_t(&left)[4] = KEEPS_Q ? kept[m][KEEPS_Q ? c : 0] : fresh[m];
                    multiply(scores[m][2 * j], left, right[0], right[1], T());
                    multiply(scores[m][2 * j + 1], left, right[2], right[3], T());
                }
            }
        }
        int key = tile * KEYS;
        if (seen != nullptr || key + KEYS > call.lk || (call.causal && key + KEYS - 1 > first_row))
            mask(scores, call, seen, first_row, key);
        references(scores, rows, call.scale, [&](int m, int half, float by) { rescale(out[m], half, by); });
        weigh(scores, rows, call.scale);
        uint32_t weights[2][KEYS / 16][4];
        pack<T>(scores, weights);

        copy_wait<1>();
        __syncthreads();
        load_v(slot_k, tile + 1);
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++) {
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                uint32_t right[4];
                load_matrices_transposed(right, Tile::further(slot_v + in_v, i * 16, n * 2));
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    multiply(out[m][2 * n], weights[m][i], right[0], right[1], T());
                    multiply(out[m][2 * n + 1], weights[m][i], right[2], right[3], T());
                }
            }
        }
        uint32_t used = slot_v;
        slot_v = slot_k, slot_k = slot_free, slot_free = used;
    }
    finish<T>(out, rows, at, call, place, first_row);
}

#define FLASH(NAME, TYPE, DIM)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS, DIM <= 64 ? 3 : 2)                                                     \
        NAME(const void* q, const void* k, const void* v, void* out, float* lse, const uint8_t* key_mask, const float* bias,     \
             const __grid_constant__ FlashCall call) {                                                                           \
        flash<TYPE, DIM>({q, k, v, out, lse, key_mask, bias}, call);                                                             \
    }

FLASH(flash_bf16_d32, bf16, 32)
FLASH(flash_bf16_d64, bf16, 64)
FLASH(flash_bf16_d96, bf16, 96)
FLASH(flash_bf16_d128, bf16, 128)
FLASH(flash_f16_d32, f16, 32)
FLASH(flash_f16_d64, f16, 64)
FLASH(flash_f16_d96, f16, 96)
FLASH(flash_f16_d128, f16, 128)
