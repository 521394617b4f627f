// Flash attention for compute capability 9.0: what flash.cu computes, without masks, by products of warpgroups (wgmma) and
// copies of the asynchronous unit (TMA). The schedule is that of FlashAttention-3 (Shah et al., arXiv:2407.08608). The host
// leaves masks, head dims above 128 and layouts that TMA cannot read to flash.cu and fma.cu (cuda.rs).
//
// Tiles. A block has 128 queries of one head, each of two warpgroups 64 of them. Keys and values come in tiles of 128. D, the
// head dim in shared memory and registers, is 32, 64, 96 or 128; columns from d on are outside of the tensor, where TMA writes
// zeros, and so are rows behind the last. An SM has one block. It computes units (128 queries of a head) until none is left:
// blockIdx.x, + gridDim.x, …, so that the copies of a unit begin during the unit before.
//
// Warpgroups. A producer has one thread that copies. Two consumers compute; the producer leaves them its registers: 24 for its
// threads, 240 for theirs. Keys and values have a ring of three slots each. Per slot, a barrier `full` ends a phase when the
// bytes have come, and a barrier `empty` when each of the eight warps that read them has arrived. Queries have one slot with
// two barriers likewise.
//
// Pipeline of a consumer. Tiles go from the last to the first: only the first step has keys behind the last to mask. In step t
// the product of the scores of tile t goes ahead of the weighted values of tile t + 1, so that the tensor units work during the
// softmax:
//
//     tensor units   | q k(t)  | p v(t+1) |             | q k(t-1) | p v(t) |
//     consumer       ....wait..| softmax of scores(t)   | weights as 16 bits |....wait..| softmax of scores(t-1)
//
// Consumers take turns: one issues its products and lets the other issue, then computes its softmax while the tensor units work
// for the other. Named barriers 1 and 2 pass the turn.
//
//     shared memory, bytes     0           256 D            + 3 · 256 D           + 3 · 256 D        1792 D
//                              | q 128 rows | k, three slots of 128 rows | v likewise | 14 barriers |
//
// A tile lies as boxes of 64 columns (D = 64, 128; rows of 128 bytes) or 32 columns (rows of 64 bytes), one behind the other.
// Chunks of 16 bytes are permuted in the way that TMA writes and wgmma reads, so no access has a bank conflict. With D = 128
// that is 224 KiB of 227.
//
// The bound, per tile of keys and consumer, D = 128: 16 wgmma of 64 x 128 x 16 (64 clocks of the SM each: 1024 clocks), 64
// exponentials a thread (16 lanes a clock of the SM: 512 clocks), 453 instructions a warp (4 issue slots a clock: 453 clocks).
// Tensor units are the bound if the consumers hide each other's softmax; with D = 64 exponentials are as much, and with D = 32
// twice as much. Counts from SASS: docs/benchmarks/gpu.md.
#include "../cuda/wgmma.cuh"
#include "rows.cuh"

constexpr int WARPGROUP = 128, THREADS = 3 * WARPGROUP, QUERIES = 128, KEYS = 128, SLOTS = 3;
constexpr int CONSUMERS = THREADS - WARPGROUP, CONSUMER_WARPS = CONSUMERS / 32;

// Tiles of 128 rows and D columns, in boxes.
template <int D>
struct Tile {
    static constexpr int WIDTH = D % 64 == 0 ? 64 : 32, BOXES = D / WIDTH, PITCH = WIDTH * 2, BOX = 128 * PITCH, BYTES = 128 * D * 2;
    static_assert(QUERIES == 128 && KEYS == 128, "tiles of queries, keys and values are alike");

    // Starts to copy 128 rows of a head. Rows and columns outside of the tensor become 0, and count.
    static __device__ __forceinline__ void load(uint32_t to, const TensorMap& map, uint32_t barrier, int row, int head, int batch) {
        barrier_expect(barrier, BYTES);
#pragma unroll
        for (int i = 0; i < BOXES; i++) load_box(to + i * BOX, map, barrier, i * WIDTH, head, row, batch);
    }

    // Columns 16 i .. 16 i + 16 of a matrix with k inside.
    static __device__ __forceinline__ uint64_t columns(const Matrix<WIDTH>& matrix, int i) {
        constexpr int STEPS = WIDTH / 16;
        return matrix.further(i / STEPS * BOX + i % STEPS * 32);
    }

    // Rows 16 i .. 16 i + 16 of a matrix with k outside.
    static __device__ __forceinline__ uint64_t rows(const Matrix<WIDTH>& matrix, int i) { return matrix.further(i * 16 * PITCH); }
};

// Addresses in shared memory.
template <int D>
struct Shared {
    uint32_t q, k, v, barriers;

    __device__ __forceinline__ Shared(const void* base) {
        // The permutation is that of addresses, in groups of 1024 bytes.
        q = (shared_address(base) + 1023) & ~1023u;
        k = q + Tile<D>::BYTES, v = k + SLOTS * Tile<D>::BYTES, barriers = v + SLOTS * Tile<D>::BYTES;
    }
    __device__ __forceinline__ uint32_t k_slot(uint32_t slot) const { return k + slot * Tile<D>::BYTES; }
    __device__ __forceinline__ uint32_t v_slot(uint32_t slot) const { return v + slot * Tile<D>::BYTES; }
    __device__ __forceinline__ uint32_t q_full() const { return barriers; }
    __device__ __forceinline__ uint32_t q_empty() const { return barriers + 8; }
    __device__ __forceinline__ uint32_t k_full(uint32_t slot) const { return barriers + 16 + slot * 8; }
    __device__ __forceinline__ uint32_t k_empty(uint32_t slot) const { return k_full(slot) + SLOTS * 8; }
    __device__ __forceinline__ uint32_t v_full(uint32_t slot) const { return k_full(slot) + SLOTS * 16; }
    __device__ __forceinline__ uint32_t v_empty(uint32_t slot) const { return k_full(slot) + SLOTS * 24; }

    __device__ __forceinline__ void init() const {
        barrier_init(q_full(), 1), barrier_init(q_empty(), CONSUMER_WARPS);
        for (int slot = 0; slot < SLOTS; slot++) {
            barrier_init(k_full(slot), 1), barrier_init(k_empty(slot), CONSUMER_WARPS);
            barrier_init(v_full(slot), 1), barrier_init(v_empty(slot), CONSUMER_WARPS);
        }
        barrier_init_done();
    }
};

// One thread copies what all units need.
template <int D>
__device__ __forceinline__ void
produce(const Shared<D>& at, const TensorMap& q, const TensorMap& k, const TensorMap& v, const FlashCall& call, int units) {
    int tiles = (call.lk + KEYS - 1) / KEYS;
    Ring<1> q_ring;
    Ring<SLOTS> k_ring, v_ring;
    for (int unit = blockIdx.x; unit < units; unit += gridDim.x) {
        Place place = place_of(call, unit);
        auto load_k = [&](int tile) {
            barrier_wait(at.k_empty(k_ring.slot), k_ring.round ^ 1);
            Tile<D>::load(at.k_slot(k_ring.slot), k, at.k_full(k_ring.slot), tile * KEYS, place.kv_head, place.batch);
            k_ring.advance();
        };
        barrier_wait(at.q_empty(), q_ring.round ^ 1);
        Tile<D>::load(at.q, q, at.q_full(), place.tile * QUERIES, place.head, place.batch);
        q_ring.advance();
        load_k(tiles - 1);
#pragma unroll 1
        for (int tile = tiles - 1; tile >= 0; tile--) {
            if (tile > 0) load_k(tile - 1);
            barrier_wait(at.v_empty(v_ring.slot), v_ring.round ^ 1);
            Tile<D>::load(at.v_slot(v_ring.slot), v, at.v_full(v_ring.slot), tile * KEYS, place.kv_head, place.batch);
            v_ring.advance();
        }
    }
}

// One warp tells that it does not read a slot any more.
__device__ __forceinline__ void release(uint32_t empty) {
    if (threadIdx.x % 32 == 0) barrier_arrive(empty);
}

// 64 queries of each unit.
template <class T, int D>
__device__ __forceinline__ void consume(const Shared<D>& at, const Buffers& buffers, const FlashCall& call, int units) {
    int group = threadIdx.x / WARPGROUP - 1, lane = threadIdx.x % 32, tiles = (call.lk + KEYS - 1) / KEYS;
    Ring<1> q_ring;
    Ring<SLOTS> k_ring, v_ring;
    float scores[1][KEYS / 8][4] = {};
    uint32_t weights[1][KEYS / 16][4];

    Matrix<Tile<D>::WIDTH> q(at.q + group * 64 * Tile<D>::PITCH);

    auto score = [&]() {
        Matrix<Tile<D>::WIDTH> k(at.k_slot(k_ring.slot));
        products_begin();
        multiply_rows<0>(scores[0], Tile<D>::columns(q, 0), Tile<D>::columns(k, 0), T());
#pragma unroll
        for (int i = 1; i < D / 16; i++) multiply_rows<1>(scores[0], Tile<D>::columns(q, i), Tile<D>::columns(k, i), T());
        products_commit();
    };
    // No warp reads the tile of keys that was next, nor, behind the last tile, the queries.
    auto scored = [&](bool last) {
        release(at.k_empty(k_ring.slot));
        k_ring.advance();
        if (!last) return;
        release(at.q_empty());
        q_ring.advance();
    };
    auto weigh_values = [&](float (&out)[1][D / 8][4]) {
        barrier_wait(at.v_full(v_ring.slot), v_ring.round);
        Matrix<Tile<D>::WIDTH> v(at.v_slot(v_ring.slot), Tile<D>::BOX);
        products_begin();
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++) multiply_columns(out[0], weights[0][i], Tile<D>::rows(v, i), T());
        products_commit();
    };
    auto weighed = [&](float (&out)[1][D / 8][4]) {
        products_wait<0>(out[0]);
        release(at.v_empty(v_ring.slot));
        v_ring.advance();
    };

    // The first turn is the first consumer's.
    if (group == 1) come<CONSUMERS>(1);
    for (int unit = blockIdx.x; unit < units; unit += gridDim.x) {
        Place place = place_of(call, unit);
        Rows<1> rows;
        float out[1][D / 8][4] = {};

        barrier_wait(at.q_full(), q_ring.round);
        barrier_wait(at.k_full(k_ring.slot), k_ring.round);
        score();
        products_wait<0>(scores[0]);
        scored(tiles == 1);
        int behind = call.lk - (tiles - 1) * KEYS - lane % 4 * 2;
        if (tiles * KEYS > call.lk)
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (j * 8 + i % 2 >= behind) scores[0][j][i] = minus_infinity();
        references(scores, rows, call.scale, [](int, int, float) {});
        weigh(scores, rows, call.scale);
        pack<T>(scores, weights);

        for (int tile = tiles - 2; tile >= 0; tile--) {
            barrier_wait(at.k_full(k_ring.slot), k_ring.round);
            meet<CONSUMERS>(1 + group);
            score();
            weigh_values(out);
            come<CONSUMERS>(2 - group);
            products_wait<1>(scores[0]);
            scored(tile == 0);
            float shrink[2];
            bool grown = references(scores, rows, call.scale, [&](int, int half, float by) { shrink[half] = by; });
            weigh(scores, rows, call.scale);
            weighed(out);
            if (grown) rescale(out[0], 0, shrink[0]), rescale(out[0], 1, shrink[1]);
            pack<T>(scores, weights);
        }
        weigh_values(out);
        weighed(out);
        finish<T>(out, rows, buffers, call, place, place.tile * QUERIES + (threadIdx.x - WARPGROUP) / 32 * 16);
    }
    // The second consumer has passed the turn once more.
    if (group == 0) meet<CONSUMERS>(1);
}

#define FLASH(NAME, TYPE, DIM)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                     \
        NAME(const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v,      \
             void* out, float* lse, const __grid_constant__ FlashCall call, int units) {                                         \
        extern __shared__ uint8_t shared[];                                                                                      \
        Shared<DIM> at(shared);                                                                                                  \
        if (threadIdx.x == 0) at.init();                                                                                         \
        __syncthreads();                                                                                                         \
        if (threadIdx.x < WARPGROUP) {                                                                                           \
            give_registers<24>();                                                                                                \
            if (threadIdx.x == 0) produce(at, q, k, v, call, units);                                                             \
        } else {                                                                                                                 \
            take_registers<240>();                                                                                               \
            consume<TYPE>(at, {nullptr, nullptr, nullptr, out, lse, nullptr, nullptr}, call, units);                             \
        }                                                                                                                        \
    }

FLASH(flash_wgmma_bf16_d32, bf16, 32)
FLASH(flash_wgmma_bf16_d64, bf16, 64)
FLASH(flash_wgmma_bf16_d96, bf16, 96)
FLASH(flash_wgmma_bf16_d128, bf16, 128)
FLASH(flash_wgmma_f16_d32, f16, 32)
FLASH(flash_wgmma_f16_d64, f16, 64)
FLASH(flash_wgmma_f16_d96, f16, 96)
FLASH(flash_wgmma_f16_d128, f16, 128)
