// Self-attention over packed sequences on tensor cores (src/ops/attention): FlashAttention-2, elements of two bytes.
//
// A block owns ROWS rows of one head of one sequence, a warp 16 of them (queries; keys where dk and dv are made), and the
// other side streams past in blocks of BLOCK rows, copied while the block before is worked on. Scores, P and dS never
// leave registers: a fragment of sums is also, rounded in pairs, one of the next product's operands.
//
// Forward: q in registers, k and v streamed; 4 d FLOPs a score; the softmax is online: a new maximum of a row shrinks its
// sums. Backward: P is made again from lse; dq: q and dout in registers, k and v streamed, 6 d FLOPs a score; dk and dv: k
// and v stay in shared memory, q and dout stream, 8 d. Every gradient has one writer. Bytes moved: the block's rows once,
// the streamed rows once a block, from L2. Four scores are one counter of dropout: lanes that share one draw for each other.

#include "common/dropout.cuh"
#include "common/math.cuh"
#include "common/sum.cuh"
#include "common/tile.cuh"

static_assert(HEAD_SIZE <= 128, "attention on tensor cores: heads of at most 128 columns; store f32, or use more heads");
constexpr u32 ROWS = THREADS / WARP * 16;
constexpr u32 BLOCK = HEAD_SIZE <= 64 ? 64 : 32;
constexpr u32 STAGES = HEAD_SIZE <= 64 ? 2 : 1;             // of the streamed rows where dk and dv are made
constexpr u32 PIECES = blocks_of(HEAD_SIZE, 16);            // of 16 columns; the last is filled up with zeros
constexpr u32 CHUNKS = 2 * PIECES;                          // of 8 columns
constexpr u32 FRAGMENTS = BLOCK / 8;                        // of scores
constexpr float LOG2E = 1.44269504f;
constexpr float LOWEST = -1e38f; // below every score

// Parts of a row of qkv.
constexpr u32 Q = 0;
constexpr u32 K = 1;
constexpr u32 V = 2;

using RowTile = Tile<ROWS, CHUNKS>;
using BlockTile = Tile<BLOCK, CHUNKS>;

extern __shared__ uint4 shared[]; // tiles as each entry point says

// 16 rows of the block as the left operand: [piece][fragment].
struct Rows {
    u32 at[PIECES][4];
};

// Sums of 16 rows by a head's columns.
struct Sums {
    float at[CHUNKS][4];
};

// Scores (or dP) of 16 rows by a block.
struct Scores {
    float at[FRAGMENTS][4];
};

// Where a block works.
struct Place {
    u32 begin;  // first token of the sequence
    u32 length; // of the sequence, none beyond the live ones
    u32 head;
    u32 h;
    u32 heads;
    u32 row; // the warp's first, counted in the sequence

    __device__ __forceinline__ Place(const u32* cu_seqlens, const StepParams* step_params, u32 h, u32 heads)
        : begin(0), length(0), head(blockIdx.y), h(h), heads(heads), row(first_row() + threadIdx.x / WARP * 16) {
        if (blockIdx.z < step_params->sequences) {
            begin = cu_seqlens[blockIdx.z];
            length = cu_seqlens[blockIdx.z + 1] - begin;
        }
    }

    // The block's first row.
    __device__ __forceinline__ u32 first_row() const {
        return blockIdx.x * ROWS;
    }

    // Number of a head's row in [tokens, heads].
    __device__ __forceinline__ u32 number(u32 row) const {
        return (begin + row) * heads + head;
    }

    // The head's rows of the sequence in a tensor [tokens, parts h].
    template <typename T>
    __device__ __forceinline__ T* rows_of(T* tensor, u32 parts, u32 part) const {
        return tensor + (static_cast<size_t>(begin) * parts + part) * h + head * HEAD_SIZE;
    }

    __device__ __forceinline__ Matrix of_qkv(const Stored* qkv, u32 part) const {
        return {rows_of(qkv, 3, part), length, HEAD_SIZE, 3 * h};
    }

    __device__ __forceinline__ Matrix of_dout(const Stored* dout) const {
        return {rows_of(dout, 1, 0), length, HEAD_SIZE, h};
    }
};

// Copies the rows of a matrix from `row` on to a tile.
template <u32 COUNT>
__device__ __forceinline__ void copy_rows(const Tile<COUNT, CHUNKS>& tile, const Matrix& matrix, u32 row) {
    if constexpr (HEAD_SIZE % CHUNK == 0) {
        tile.copy_aligned(matrix, row, 0);
    } else {
        tile.copy_loose(matrix, row, 0);
    }
}

__device__ __forceinline__ u32 lane_row() {
    return threadIdx.x % WARP / 4;
}

// First of a lane's two columns of a fragment.
__device__ __forceinline__ u32 lane_column() {
    return threadIdx.x % 4 * 2;
}

// The warp's rows of a matrix, by way of a tile. All threads must call it, and no copies may be under way.
__device__ __forceinline__ Rows load_rows(const Place& at, const Matrix& matrix) {
    const RowTile tile = {shared};
    copy_rows(tile, matrix, at.first_row());
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    Rows rows;
#pragma unroll
    for (u32 piece = 0; piece < PIECES; piece += 1) {
        tile.load_a(rows.at[piece], at.row - at.first_row(), 2 * piece);
    }
    __syncthreads(); // others may write where the tile was
    return rows;
}

// Scores of rows in registers with the rows of a tile.
__device__ __forceinline__ Scores multiply(const Rows& rows, const BlockTile& tile) {
    Scores s = {};
#pragma unroll
    for (u32 piece = 0; piece < PIECES; piece += 1) {
#pragma unroll
        for (u32 j = 0; j < FRAGMENTS; j += 2) {
            u32 b[4];
            tile.load_b(b, 8 * j, 2 * piece);
            multiply_add<Stored>(s.at[j], rows.at[piece], b[0], b[1]);
            multiply_add<Stored>(s.at[j + 1], rows.at[piece], b[2], b[3]);
        }
    }
    return s;
}

// The same with the warp's rows in a tile.
__device__ __forceinline__ Scores multiply(const RowTile& rows, u32 row, const BlockTile& tile) {
    Scores s = {};
#pragma unroll
    for (u32 piece = 0; piece < PIECES; piece += 1) {
        u32 a[4];
        rows.load_a(a, row, 2 * piece);
#pragma unroll
        for (u32 j = 0; j < FRAGMENTS; j += 2) {
            u32 b[4];
            tile.load_b(b, 8 * j, 2 * piece);
            multiply_add<Stored>(s.at[j], a, b[0], b[1]);
            multiply_add<Stored>(s.at[j + 1], a, b[2], b[3]);
        }
    }
    return s;
}

// sums += weights tile; the weights are rounded as they would be stored.
__device__ __forceinline__ void accumulate(Sums& sums, const Scores& weights, const BlockTile& tile) {
#pragma unroll
    for (u32 i = 0; i < FRAGMENTS; i += 2) {
        const u32 a[4] = {
            narrow_pair<Stored>(weights.at[i][0], weights.at[i][1]),
            narrow_pair<Stored>(weights.at[i][2], weights.at[i][3]),
            narrow_pair<Stored>(weights.at[i + 1][0], weights.at[i + 1][1]),
            narrow_pair<Stored>(weights.at[i + 1][2], weights.at[i + 1][3]),
        };
#pragma unroll
        for (u32 j = 0; j < CHUNKS; j += 2) {
            u32 b[4];
            tile.load_b_turned(b, 8 * i, j);
            multiply_add<Stored>(sums.at[j], a, b[0], b[1]);
            multiply_add<Stored>(sums.at[j + 1], a, b[2], b[3]);
        }
    }
}

// Writes the warp's rows: sums times a factor for the upper and one for the lower eight, by way of a tile. No other warp may
// use the tile's 16 rows.
__device__ __forceinline__ void store_rows(
    const RowTile& tile,
    const Place& at,
    const Sums& sums,
    float upper,
    float lower,
    Stored* to, // the head's rows
    u32 pitch) {
    const u32 own = at.row - at.first_row();
#pragma unroll
    for (u32 j = 0; j < CHUNKS; j += 1) {
        const u32 pair = lane_column() / 2;
        reinterpret_cast<u32*>(tile.at(own + lane_row(), j))[pair] =
            narrow_pair<Stored>(sums.at[j][0] * upper, sums.at[j][1] * upper);
        reinterpret_cast<u32*>(tile.at(own + lane_row() + 8, j))[pair] =
            narrow_pair<Stored>(sums.at[j][2] * lower, sums.at[j][3] * lower);
    }
    __syncwarp();
#pragma unroll 1
    for (u32 i = threadIdx.x % WARP; i < 16 * CHUNKS; i += WARP) {
        const u32 row = i / CHUNKS;
        const u32 column = i % CHUNKS * CHUNK;
        if (at.row + row >= at.length) {
            break;
        }
        const uint4* chunk = tile.at(own + row, i % CHUNKS);
        Stored* place = to + static_cast<size_t>(at.row + row) * pitch + column;
        if constexpr (HEAD_SIZE % CHUNK == 0) {
            if (column < HEAD_SIZE) {
                *reinterpret_cast<uint4*>(place) = *chunk;
            }
        } else {
            for (u32 j = 0; j < CHUNK && column + j < HEAD_SIZE; j += 1) {
                place[j] = reinterpret_cast<const Stored*>(chunk)[j];
            }
        }
    }
    __syncwarp(); // the tile's rows may be overwritten
}

// Which scores dropout keeps: bit 4 j + i of a word for element i of fragment j of a row.
struct KeptOfQueries {
    u32 upper;
    u32 lower;

    __device__ __forceinline__ bool at(u32 fragment, u32 element) const {
        return ((element < 2 ? upper : lower) >> (4 * fragment + element % 2) & 1) != 0;
    }
};

// Rows are queries, columns the keys from `key` on. Of the four keys of a counter one lane has two and its neighbour two, of
// two rows each: each draws for one row.
__device__ __forceinline__ KeptOfQueries kept_of_queries(const Dropout& dropout, const Place& at, u32 stride, u32 key) {
    if (dropout.threshold == 0) {
        return {ALL, ALL};
    }
    const bool odd = threadIdx.x % 2 != 0;
    const u32 query = at.row + lane_row() + (odd ? 8 : 0);
    const u32 block = at.number(query) * stride + (key + lane_column() / 4 * 4) / 4;
    u32 own = 0;
#pragma unroll
    for (u32 j = 0; j < FRAGMENTS; j += 1) {
        own |= dropout.kept(block + 2 * j) << (4 * j);
    }
    const u32 other = __shfl_xor_sync(ALL, own, 1);
    return odd ? KeptOfQueries{other >> 2, own >> 2} : KeptOfQueries{own, other};
}

// The same for rows that are keys: a word for each element of a fragment.
struct KeptOfKeys {
    u32 element[4];

    __device__ __forceinline__ bool at(u32 fragment, u32 i) const {
        return (element[i] >> (4 * fragment) & 1) != 0;
    }
};

// Rows are keys, columns the queries from `query` on. The four keys of a counter are four lanes' rows, and these lanes have
// four counters together: each draws one of them.
__device__ __forceinline__ KeptOfKeys kept_of_keys(const Dropout& dropout, const Place& at, u32 stride, u32 query) {
    if (dropout.threshold == 0) {
        return {ALL, ALL, ALL, ALL};
    }
    const u32 lane = threadIdx.x % WARP;
    const u32 own = lane_row() % 4; // the element of a fragment that this lane draws for
    const u32 key = at.row + own / 2 * 8 + lane_row() / 4 * 4;
    const u32 first = at.number(query + lane_column() + own % 2);
    u32 drawn = 0;
#pragma unroll
    for (u32 j = 0; j < FRAGMENTS; j += 1) {
        drawn |= dropout.kept((first + 8 * j * at.heads) * stride + key / 4) << (4 * j);
    }
    KeptOfKeys kept;
#pragma unroll
    for (u32 i = 0; i < 4; i += 1) {
        kept.element[i] = __shfl_sync(ALL, drawn, (lane & ~12u) | i << 2) >> own;
    }
    return kept;
}

// out = dropout(softmax(q k^T / sqrt(d))) v and lse. Shared memory: two stages of k and v.
extern "C" __global__ void __launch_bounds__(THREADS) attention_forward(
    const Stored* __restrict__ qkv,     // [tokens, 3 h]
    const u32* __restrict__ cu_seqlens, // [sequences + 1, 1]
    Stored* __restrict__ out,           // [tokens, h]
    float* __restrict__ lse,            // [tokens, heads]
    const StepParams* __restrict__ step_params,
    u32 h,
    u32 heads,
    u32 max_length,
    u32 threshold,
    float keep_scale,
    u32 op) {
    const Place at(cu_seqlens, step_params, h, heads);
    if (at.first_row() >= at.length) {
        return;
    }
    const Dropout dropout(step_params, op, threshold, keep_scale);
    const u32 stride = blocks_of(max_length, 4);
    const float scale = 1.0f / sqrtf(static_cast<float>(HEAD_SIZE));
    const Matrix keys = at.of_qkv(qkv, K);
    const Matrix values = at.of_qkv(qkv, V);
    const auto copy = [&](u32 block) {
        if (block < at.length) {
            const BlockTile k = {shared + block / BLOCK % 2 * 2 * BlockTile::SIZE};
            const BlockTile v = {k.data + BlockTile::SIZE};
            copy_rows(k, keys, block);
            copy_rows(v, values, block);
        }
        commit_copies();
    };
    const Rows q = load_rows(at, at.of_qkv(qkv, Q));
    copy(0);
    Sums o = {};                       // sum of P v, P relative to most
    float most[2] = {LOWEST, LOWEST};  // the largest score of the lane's two rows so far
    float total[2] = {};               // sums of P over the lane's columns
#pragma unroll 1
    for (u32 block = 0; block < at.length; block += BLOCK) {
        wait_copies<0>();
        __syncthreads(); // this block has arrived, and all are done with the one before
        copy(block + BLOCK);
        if (at.row >= at.length) {
            continue;
        }
        const BlockTile k = {shared + block / BLOCK % 2 * 2 * BlockTile::SIZE};
        const BlockTile v = {k.data + BlockTile::SIZE};
        Scores s = multiply(q, k);
        if (block + BLOCK > at.length) {
#pragma unroll
            for (u32 j = 0; j < FRAGMENTS; j += 1) {
#pragma unroll
                for (u32 i = 0; i < 4; i += 1) {
                    s.at[j][i] = block + 8 * j + lane_column() + i % 2 < at.length ? s.at[j][i] : LOWEST;
                }
            }
        }
        const KeptOfQueries kept = kept_of_queries(dropout, at, stride, block);
        float offset[2]; // most in powers of two
#pragma unroll
        for (u32 half = 0; half < 2; half += 1) {
            float larger = most[half];
#pragma unroll
            for (u32 j = 0; j < FRAGMENTS; j += 1) {
                larger = fmaxf(larger, fmaxf(s.at[j][2 * half], s.at[j][2 * half + 1]));
            }
            larger = lane_max<4>(larger);
            const float shrink = exp2_short((most[half] - larger) * (scale * LOG2E));
            total[half] *= shrink;
#pragma unroll
            for (u32 j = 0; j < CHUNKS; j += 1) {
                o.at[j][2 * half] *= shrink;
                o.at[j][2 * half + 1] *= shrink;
            }
            most[half] = larger;
            offset[half] = larger * (scale * LOG2E);
        }
#pragma unroll
        for (u32 j = 0; j < FRAGMENTS; j += 1) {
#pragma unroll
            for (u32 i = 0; i < 4; i += 1) {
                const float p = exp2_short(fmaf(s.at[j][i], scale * LOG2E, -offset[i / 2]));
                total[i / 2] += p;
                s.at[j][i] = kept.at(j, i) ? p : 0.0f;
            }
        }
        accumulate(o, s, v);
    }
    __syncthreads(); // the last block has been read
    if (at.row >= at.length) {
        return;
    }
#pragma unroll
    for (u32 half = 0; half < 2; half += 1) {
        total[half] = lane_sum<4>(total[half]);
        const u32 row = at.row + lane_row() + 8 * half;
        if (threadIdx.x % 4 == 0 && row < at.length) {
            lse[at.number(row)] = fmaf(most[half], scale, log_f32(total[half]));
        }
    }
    store_rows({shared}, at, o, keep_scale / total[0], keep_scale / total[1], at.rows_of(out, 1, 0), h);
}

// dq = dS k. Shared memory: two stages of k and v.
extern "C" __global__ void __launch_bounds__(THREADS) attention_backward_queries(
    const Stored* __restrict__ qkv,     // [tokens, 3 h]
    const u32* __restrict__ cu_seqlens, // [sequences + 1, 1]
    const float* __restrict__ lse,      // [tokens, heads]
    const Stored* __restrict__ dout,    // [tokens, h]
    const float* __restrict__ delta,    // [tokens, heads]
    Stored* __restrict__ dqkv,          // [tokens, 3 h]
    const StepParams* __restrict__ step_params,
    u32 h,
    u32 heads,
    u32 max_length,
    u32 threshold,
    float keep_scale,
    u32 op) {
    const Place at(cu_seqlens, step_params, h, heads);
    if (at.first_row() >= at.length) {
        return;
    }
    const Dropout dropout(step_params, op, threshold, keep_scale);
    const u32 stride = blocks_of(max_length, 4);
    const float scale = 1.0f / sqrtf(static_cast<float>(HEAD_SIZE));
    const Matrix keys = at.of_qkv(qkv, K);
    const Matrix values = at.of_qkv(qkv, V);
    const auto copy = [&](u32 block) {
        if (block < at.length) {
            const BlockTile k = {shared + block / BLOCK % 2 * 2 * BlockTile::SIZE};
            const BlockTile v = {k.data + BlockTile::SIZE};
            copy_rows(k, keys, block);
            copy_rows(v, values, block);
        }
        commit_copies();
    };
    const Rows q = load_rows(at, at.of_qkv(qkv, Q));
    const Rows d = load_rows(at, at.of_dout(dout));
    copy(0);
    float row_lse[2] = {}; // in powers of two
    float row_delta[2] = {};
#pragma unroll
    for (u32 half = 0; half < 2; half += 1) {
        const u32 row = at.row + lane_row() + 8 * half;
        if (row < at.length) {
            row_lse[half] = lse[at.number(row)] * LOG2E;
            row_delta[half] = delta[at.number(row)];
        }
    }
    Sums dq = {};
#pragma unroll 1
    for (u32 block = 0; block < at.length; block += BLOCK) {
        wait_copies<0>();
        __syncthreads(); // this block has arrived, and all are done with the one before
        copy(block + BLOCK);
        if (at.row >= at.length) {
            continue;
        }
        const BlockTile k = {shared + block / BLOCK % 2 * 2 * BlockTile::SIZE};
        const BlockTile v = {k.data + BlockTile::SIZE};
        Scores s = multiply(q, k);
        const Scores dp = multiply(d, v);
        const KeptOfQueries kept = kept_of_queries(dropout, at, stride, block);
#pragma unroll
        for (u32 j = 0; j < FRAGMENTS; j += 1) {
#pragma unroll
            for (u32 i = 0; i < 4; i += 1) {
                const bool exists = block + 8 * j + lane_column() + i % 2 < at.length;
                const float p = exp2_short(fmaf(s.at[j][i], scale * LOG2E, -row_lse[i / 2]));
                const float factor = kept.at(j, i) ? keep_scale : 0.0f;
                const float ds = p * fmaf(dp.at[j][i], factor, -row_delta[i / 2]) * scale;
                s.at[j][i] = exists ? ds : 0.0f;
            }
        }
        accumulate(dq, s, k);
    }
    __syncthreads(); // the last block has been read
    if (at.row < at.length) {
        store_rows({shared}, at, dq, 1.0f, 1.0f, at.rows_of(dqkv, 3, Q), 3 * h);
    }
}

// dv = dropout(P)^T dout, dk = dS^T q. Shared memory: the block's k and v, then STAGES of q, dout, and of lse and delta.
extern "C" __global__ void __launch_bounds__(THREADS) attention_backward_keys(
    const Stored* __restrict__ qkv,     // [tokens, 3 h]
    const u32* __restrict__ cu_seqlens, // [sequences + 1, 1]
    const float* __restrict__ lse,      // [tokens, heads]
    const Stored* __restrict__ dout,    // [tokens, h]
    const float* __restrict__ delta,    // [tokens, heads]
    Stored* __restrict__ dqkv,          // [tokens, 3 h]
    const StepParams* __restrict__ step_params,
    u32 h,
    u32 heads,
    u32 max_length,
    u32 threshold,
    float keep_scale,
    u32 op) {
    const Place at(cu_seqlens, step_params, h, heads);
    if (at.first_row() >= at.length) {
        return;
    }
    const Dropout dropout(step_params, op, threshold, keep_scale);
    const u32 stride = blocks_of(max_length, 4);
    const float scale = 1.0f / sqrtf(static_cast<float>(HEAD_SIZE));
    const Matrix queries = at.of_qkv(qkv, Q);
    const Matrix douts = at.of_dout(dout);
    const RowTile k = {shared};
    const RowTile v = {k.data + RowTile::SIZE};
    uint4* stages = v.data + RowTile::SIZE;
    float2* moments = reinterpret_cast<float2*>(stages + STAGES * 2 * BlockTile::SIZE); // [STAGES][BLOCK]: lse, delta
    const auto copy = [&](u32 block) {
        const u32 stage = block / BLOCK % STAGES;
        if (block < at.length) {
            const BlockTile q = {stages + stage * 2 * BlockTile::SIZE};
            const BlockTile d = {q.data + BlockTile::SIZE};
            copy_rows(q, queries, block);
            copy_rows(d, douts, block);
            if (threadIdx.x < BLOCK) {
                const u32 query = block + threadIdx.x;
                float2 of_query = make_float2(0.0f, 0.0f);
                if (query < at.length) {
                    of_query = make_float2(lse[at.number(query)] * LOG2E, delta[at.number(query)]);
                }
                moments[stage * BLOCK + threadIdx.x] = of_query;
            }
        }
        commit_copies();
    };
    copy_rows(k, at.of_qkv(qkv, K), at.first_row());
    copy_rows(v, at.of_qkv(qkv, V), at.first_row());
    if constexpr (STAGES == 2) {
        copy(0);
    }
    const u32 own = at.row - at.first_row();
    Sums dk = {};
    Sums dv = {};
#pragma unroll 1
    for (u32 block = 0; block < at.length; block += BLOCK) {
        if constexpr (STAGES == 2) {
            wait_copies<0>();
            __syncthreads(); // this block has arrived, and all are done with the one before
            copy(block + BLOCK);
        } else {
            __syncthreads(); // all are done with the block before
            copy(block);
            wait_copies<0>();
            __syncthreads(); // this one has arrived
        }
        if (at.row >= at.length) {
            continue;
        }
        const u32 stage = block / BLOCK % STAGES;
        const BlockTile q = {stages + stage * 2 * BlockTile::SIZE};
        const BlockTile d = {q.data + BlockTile::SIZE};
        Scores p = multiply(k, own, q);
        Scores ds = multiply(v, own, d);
        const KeptOfKeys kept = kept_of_keys(dropout, at, stride, block);
#pragma unroll
        for (u32 j = 0; j < FRAGMENTS; j += 1) {
            // lse and delta of the lane's two queries
            const float4 pair = *reinterpret_cast<const float4*>(moments + stage * BLOCK + 8 * j + lane_column());
#pragma unroll
            for (u32 i = 0; i < 4; i += 1) {
                const float of_query = exp2_short(fmaf(p.at[j][i], scale * LOG2E, -(i % 2 == 0 ? pair.x : pair.z)));
                const float factor = kept.at(j, i) ? keep_scale : 0.0f;
                const float centred = fmaf(ds.at[j][i], factor, -(i % 2 == 0 ? pair.y : pair.w));
                ds.at[j][i] = of_query * centred * scale;
                p.at[j][i] = kept.at(j, i) ? of_query : 0.0f;
            }
        }
        accumulate(dv, p, d);
        accumulate(dk, ds, q);
    }
    if (at.row < at.length) {
        store_rows(k, at, dk, 1.0f, 1.0f, at.rows_of(dqkv, 3, K), 3 * h);
        store_rows(v, at, dv, keep_scale, keep_scale, at.rows_of(dqkv, 3, V), 3 * h);
    }
}
