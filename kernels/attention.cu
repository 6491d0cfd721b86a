// Self-attention over packed sequences in f32 (src/ops/attention): FlashAttention-2 on plain cores.
//
// A block owns ROWS rows of one head of one sequence (queries; keys where dk and dv are made), and the other side streams
// past in blocks of BLOCK rows. TEAM threads share four rows: each holds the same COLUMNS columns of all four in
// registers, operands and sums, so that a quad read from shared memory meets 16 fused multiply-adds.
//   tile [BLOCK][LINE]: the streamed rows of k, v, q or dout in turn.
//   sums [BLOCK][SUMS]: scores (or dP), a quad one query by four keys and so one counter of dropout, in parts: what
//     each thread's columns contribute. One thread of the team adds a quad's parts and leaves its result there.
//
// Forward: 4 d FLOPs a score; q is read once, k and v once a block; out and lse are written once. The softmax is online:
// a new maximum of a row shrinks its sums. Backward: P is made again from lse, dq takes 6 d FLOPs a score, dk and dv
// 8 d; every gradient has one writer. At d = 128: 12.1 KiB of shared memory. Heads may have any number of columns.

#include "common/dropout.cuh"
#include "common/math.cuh"

static_assert(sizeof(Stored) == 4, "elements of two bytes have attention_half.cu");
constexpr u32 Q = 0; // parts of a row of qkv
constexpr u32 K = 1;
constexpr u32 V = 2;

__device__ constexpr u32 larger_of(u32 a, u32 b) {
    return a > b ? a : b;
}

constexpr u32 QUADS = blocks_of(HEAD_SIZE, 4);                        // of a head's row; the last is filled up with zeros
constexpr u32 TEAM = larger_of(4, blocks_of(HEAD_SIZE, COLUMNS));     // threads that share four rows
constexpr u32 OWN = blocks_of(QUADS, TEAM);                           // quads of a row a thread owns: member, member + TEAM ...
constexpr u32 ROWS = 4 * (THREADS / TEAM);                            // rows of a block
constexpr u32 LINE = OWN * TEAM;                                      // quads of a line of the tile, zero beyond QUADS
constexpr u32 SUMS = THREADS + 1;                                     // quads of a line of sums; one more spreads them over banks
constexpr u32 SCORES = blocks_of(BLOCK, TEAM);                        // quads of sums that a thread adds up
constexpr float LOWEST = -1e38f;                                      // below every score
static_assert(TEAM <= THREADS && BLOCK % 4 == 0, "a team in a block, whole quads of scores");

__shared__ float4 tile[BLOCK * LINE];
__shared__ float4 sums[BLOCK * SUMS];

// Four numbers: columns of a row, keys of a query, or rows of a team.
using Quad = Run<4>;

// A thread's quads of its team's four rows: [own][column], a quad over the rows.
struct Part {
    Quad at[OWN][4];
};

// One quad for each quad of scores that a thread adds up.
struct Scores {
    Quad at[SCORES];
};

__device__ __forceinline__ Quad read(const float4& quad) {
    return load<4>(reinterpret_cast<const float*>(&quad));
}

__device__ __forceinline__ void write(float4& to, const Quad& quad) {
    store(reinterpret_cast<float*>(&to), quad);
}

// Where a thread works.
struct Place {
    u32 begin;  // first token of the sequence
    u32 length; // of the sequence, none beyond the live ones
    u32 head;
    u32 h;
    u32 heads;
    u32 row;    // the first of the team's four rows, counted in the sequence
    u32 member; // number in the team
    u32 slot;   // the team's first column of sums
    u32 scores; // quads of sums that the team adds up: none where its rows lie beyond the sequence

    // Threads that fill no team have rows beyond the sequence.
    __device__ __forceinline__ Place(const u32* cu_seqlens, const StepParams* step_params, u32 h, u32 heads)
        : begin(0), length(0), head(blockIdx.y), h(h), heads(heads), member(threadIdx.x % TEAM) {
        if (blockIdx.z < step_params->sequences) {
            begin = cu_seqlens[blockIdx.z];
            length = cu_seqlens[blockIdx.z + 1] - begin;
        }
        const u32 team = threadIdx.x / TEAM;
        row = 4 * team < ROWS ? blockIdx.x * ROWS + 4 * team : length;
        slot = team * TEAM;
        scores = row < length ? BLOCK : 0;
    }

    // Number of a head's row in [tokens, heads].
    __device__ __forceinline__ u32 number(u32 row) const {
        return (begin + row) * heads + head;
    }

    // A head's row of a tensor [tokens, parts h].
    template <typename T>
    __device__ __forceinline__ T* row_of(T* tensor, u32 row, u32 parts, u32 part) const {
        return tensor + (static_cast<size_t>(begin + row) * parts + part) * h + head * HEAD_SIZE;
    }

    // Four columns of it, zero outside the sequence and the head.
    __device__ __forceinline__ Quad quad_of(const float* tensor, u32 row, u32 parts, u32 part, u32 quad) const {
        if (row >= length) {
            return {};
        }
        return load_row<4>(row_of(tensor, row, parts, part), 4 * quad, HEAD_SIZE);
    }
};

// The thread's columns of its team's rows.
__device__ __forceinline__ Part load_rows(const Place& at, const float* tensor, u32 parts, u32 part) {
    Part rows;
#pragma unroll
    for (u32 own = 0; own < OWN; own += 1) {
#pragma unroll
        for (u32 row = 0; row < 4; row += 1) {
            const Quad quad = at.quad_of(tensor, at.row + row, parts, part, own * TEAM + at.member);
#pragma unroll
            for (u32 column = 0; column < 4; column += 1) {
                rows.at[own][column].at[row] = quad.at[column];
            }
        }
    }
    return rows;
}

// The rows that stream.
__device__ __forceinline__ void load_tile(const Place& at, u32 block, const float* tensor, u32 parts, u32 part) {
#pragma unroll 1
    for (u32 index = threadIdx.x; index < BLOCK * LINE; index += THREADS) {
        write(tile[index], at.quad_of(tensor, block + index / LINE, parts, part, index % LINE));
    }
}

// sums = rows tile^T over the thread's columns. A quad is one query by four keys, whichever of the two streams.
template <bool QUERIES_STREAM>
__device__ __forceinline__ void multiply(const Part& rows, const Place& at) {
#pragma unroll 1
    for (u32 first = 0; first < at.scores; first += 4) {
        Quad s[4] = {}; // [streamed row], a quad over the team's rows
#pragma unroll
        for (u32 own = 0; own < OWN; own += 1) {
#pragma unroll
            for (u32 i = 0; i < 4; i += 1) {
                const Quad x = read(tile[(first + i) * LINE + own * TEAM + at.member]);
#pragma unroll
                for (u32 column = 0; column < 4; column += 1) {
#pragma unroll
                    for (u32 row = 0; row < 4; row += 1) {
                        s[i].at[row] = fmaf(rows.at[own][column].at[row], x.at[column], s[i].at[row]);
                    }
                }
            }
        }
#pragma unroll
        for (u32 i = 0; i < 4; i += 1) {
            const Quad turned = {s[0].at[i], s[1].at[i], s[2].at[i], s[3].at[i]};
            write(sums[(first + i) * SUMS + threadIdx.x], QUERIES_STREAM ? s[i] : turned);
        }
    }
}

// A quad that the team has added up.
__device__ __forceinline__ Quad result(const Place& at, u32 line, u32 slot) {
    return read(sums[line * SUMS + at.slot + slot]);
}

// part += results tile
template <bool QUERIES_STREAM>
__device__ __forceinline__ void accumulate(Part& part, const Place& at, u32 slot) {
#pragma unroll 1
    for (u32 first = 0; first < at.scores; first += 4) {
        Quad weights[4]; // [query], a quad over the keys
#pragma unroll
        for (u32 i = 0; i < 4; i += 1) {
            weights[i] = result(at, first + i, slot);
        }
#pragma unroll
        for (u32 own = 0; own < OWN; own += 1) {
#pragma unroll
            for (u32 i = 0; i < 4; i += 1) {
                const Quad x = read(tile[(first + i) * LINE + own * TEAM + at.member]);
#pragma unroll
                for (u32 column = 0; column < 4; column += 1) {
#pragma unroll
                    for (u32 row = 0; row < 4; row += 1) {
                        const float weight = QUERIES_STREAM ? weights[i].at[row] : weights[row].at[i];
                        part.at[own][column].at[row] = fmaf(weight, x.at[column], part.at[own][column].at[row]);
                    }
                }
            }
        }
    }
}

// The quads of sums that the thread adds up: member, member + TEAM ...
__device__ __forceinline__ Scores added(const Place& at) {
    Scores scores = {};
#pragma unroll
    for (u32 own = 0; own < SCORES; own += 1) {
        const u32 quad = own * TEAM + at.member;
        if (quad < at.scores) {
#pragma unroll
            for (u32 member = 0; member < TEAM; member += 1) {
                const Quad part = result(at, quad, member);
#pragma unroll
                for (u32 i = 0; i < 4; i += 1) {
                    scores.at[own].at[i] += part.at[i];
                }
            }
        }
    }
    return scores;
}

// x[i] without memory.
__device__ __forceinline__ float component(const Quad& x, u32 i) {
    const float low = i % 2 == 0 ? x.at[0] : x.at[1];
    const float high = i % 2 == 0 ? x.at[2] : x.at[3];
    return i < 2 ? low : high;
}

// The bits of four keys of a query that dropout keeps.
__device__ __forceinline__ u32 kept(const Dropout& dropout, const Place& at, u32 stride, u32 query, u32 key) {
    return dropout.threshold == 0 ? 15 : dropout.kept(at.number(query) * stride + key / 4);
}

// out = dropout(softmax(q k^T / sqrt(d))) v and lse
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
    if (blockIdx.x * ROWS >= at.length) {
        return;
    }
    const Dropout dropout(step_params, op, threshold, keep_scale);
    const u32 stride = blocks_of(max_length, 4);
    const float scale = 1.0f / sqrtf(static_cast<float>(HEAD_SIZE));
    const Part q = load_rows(at, qkv, 3, Q);
    Part o = {};                                     // sum of P v, P relative to most
    Quad most = {LOWEST, LOWEST, LOWEST, LOWEST};    // the largest score of each of the team's rows so far
    Scores totals = {};                              // sums of P over what the thread adds up
#pragma unroll 1
    for (u32 block = 0; block < at.length; block += BLOCK) {
        load_tile(at, block, qkv, 3, K);
        __syncthreads();
        multiply<false>(q, at);
        __syncthreads();
        Scores s = added(at);
#pragma unroll
        for (u32 own = 0; own < SCORES; own += 1) {
            const u32 quad = own * TEAM + at.member;
            if (quad < at.scores) {
#pragma unroll
                for (u32 i = 0; i < 4; i += 1) {
                    s.at[own].at[i] = block + quad / 4 * 4 + i < at.length ? s.at[own].at[i] : LOWEST;
                }
                write(sums[quad * SUMS + at.slot], s.at[own]);
            }
        }
        load_tile(at, block, qkv, 3, V);
        __syncthreads();
        Quad larger = most;
        for (u32 line = 0; line < at.scores; line += 4) {
#pragma unroll
            for (u32 row = 0; row < 4; row += 1) {
                const Quad x = result(at, line + row, 0);
                larger.at[row] = fmaxf(larger.at[row], fmaxf(fmaxf(x.at[0], x.at[1]), fmaxf(x.at[2], x.at[3])));
            }
        }
        Quad shrink;
#pragma unroll
        for (u32 row = 0; row < 4; row += 1) {
            shrink.at[row] = exp_f32((most.at[row] - larger.at[row]) * scale);
        }
        most = larger;
#pragma unroll
        for (u32 own = 0; own < OWN; own += 1) {
#pragma unroll
            for (u32 column = 0; column < 4; column += 1) {
#pragma unroll
                for (u32 row = 0; row < 4; row += 1) {
                    o.at[own][column].at[row] *= shrink.at[row];
                }
            }
        }
#pragma unroll
        for (u32 own = 0; own < SCORES; own += 1) {
            const u32 quad = own * TEAM + at.member;
            if (quad < at.scores) {
                const u32 bits = kept(dropout, at, stride, at.row + quad % 4, block + quad / 4 * 4);
                const float of_row = component(most, quad % 4);
                const float shrunk = component(shrink, quad % 4);
                Quad p;
#pragma unroll
                for (u32 i = 0; i < 4; i += 1) {
                    p.at[i] = exp_f32((s.at[own].at[i] - of_row) * scale);
                    totals.at[own].at[i] = fmaf(totals.at[own].at[i], shrunk, p.at[i]);
                    p.at[i] *= dropout.factor_of(bits, i);
                }
                write(sums[quad * SUMS + at.slot + 1], p);
            }
        }
        __syncthreads();
        accumulate<false>(o, at, 1);
        __syncthreads();
    }
#pragma unroll
    for (u32 own = 0; own < SCORES; own += 1) {
        const u32 quad = own * TEAM + at.member;
        if (quad < at.scores) {
            write(sums[quad * SUMS + at.slot], totals.at[own]);
        }
    }
    __syncthreads();
    Quad total = {};
    for (u32 line = 0; line < at.scores; line += 4) {
#pragma unroll
        for (u32 row = 0; row < 4; row += 1) {
            const Quad t = result(at, line + row, 0);
            total.at[row] += (t.at[0] + t.at[1]) + (t.at[2] + t.at[3]);
        }
    }
    if (at.member < 4 && at.row + at.member < at.length) {
        const float sum = log_f32(component(total, at.member));
        lse[at.number(at.row + at.member)] = fmaf(component(most, at.member), scale, sum);
    }
#pragma unroll
    for (u32 own = 0; own < OWN; own += 1) {
#pragma unroll
        for (u32 row = 0; row < 4; row += 1) {
            if (at.row + row < at.length) {
                Quad columns;
#pragma unroll
                for (u32 column = 0; column < 4; column += 1) {
                    columns.at[column] = o.at[own][column].at[row] / total.at[row];
                }
                store_row(at.row_of(out, at.row + row, 1, 0), 4 * (own * TEAM + at.member), HEAD_SIZE, columns);
            }
        }
    }
}

__device__ __forceinline__ void store_dqkv(const Part& gradient, const Place& at, Stored* dqkv, u32 part) {
#pragma unroll
    for (u32 own = 0; own < OWN; own += 1) {
#pragma unroll
        for (u32 row = 0; row < 4; row += 1) {
            if (at.row + row < at.length) {
                Quad columns;
#pragma unroll
                for (u32 column = 0; column < 4; column += 1) {
                    columns.at[column] = gradient.at[own][column].at[row];
                }
                store_row(at.row_of(dqkv, at.row + row, 3, part), 4 * (own * TEAM + at.member), HEAD_SIZE, columns);
            }
        }
    }
}

// What the backward needs of one query and four keys.
struct Gradients {
    Quad p;  // dropout(P)
    Quad ds; // dS / sqrt(d)
};

// From q k^T and dout v^T.
__device__ __forceinline__ Gradients gradients(
    const Place& at,
    const Dropout& dropout,
    u32 stride,
    const float* lse,
    const float* delta,
    u32 query,
    u32 key,
    const Quad& s,
    const Quad& dp) {
    if (query >= at.length) {
        return {};
    }
    const float scale = 1.0f / sqrtf(static_cast<float>(HEAD_SIZE));
    const float of_query = lse[at.number(query)];
    const float centre = delta[at.number(query)];
    const u32 bits = kept(dropout, at, stride, query, key);
    Gradients g;
#pragma unroll
    for (u32 i = 0; i < 4; i += 1) {
        const float p = key + i < at.length ? exp_f32(fmaf(s.at[i], scale, -of_query)) : 0.0f;
        const float factor = dropout.threshold == 0 ? 1.0f : dropout.factor_of(bits, i);
        g.p.at[i] = p * factor;
        g.ds.at[i] = p * fmaf(dp.at[i], factor, -centre) * scale;
    }
    return g;
}

// dq = dS k
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
    if (blockIdx.x * ROWS >= at.length) {
        return;
    }
    const Dropout dropout(step_params, op, threshold, keep_scale);
    const u32 stride = blocks_of(max_length, 4);
    const Part q = load_rows(at, qkv, 3, Q);
    const Part d = load_rows(at, dout, 1, 0);
    Part dq = {};
#pragma unroll 1
    for (u32 block = 0; block < at.length; block += BLOCK) {
        load_tile(at, block, qkv, 3, V);
        __syncthreads();
        multiply<false>(d, at);
        __syncthreads();
        const Scores dp = added(at);
        load_tile(at, block, qkv, 3, K);
        __syncthreads();
        multiply<false>(q, at);
        __syncthreads();
        const Scores s = added(at);
#pragma unroll
        for (u32 own = 0; own < SCORES; own += 1) {
            const u32 quad = own * TEAM + at.member;
            if (quad < at.scores) {
                const u32 query = at.row + quad % 4;
                const u32 key = block + quad / 4 * 4;
                const Gradients g = gradients(at, dropout, stride, lse, delta, query, key, s.at[own], dp.at[own]);
                write(sums[quad * SUMS + at.slot], g.ds);
            }
        }
        __syncthreads();
        accumulate<false>(dq, at, 0);
        __syncthreads();
    }
    store_dqkv(dq, at, dqkv, Q);
}

// dv = dropout(P)^T dout, dk = dS^T q
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
    if (blockIdx.x * ROWS >= at.length) {
        return;
    }
    const Dropout dropout(step_params, op, threshold, keep_scale);
    const u32 stride = blocks_of(max_length, 4);
    const Part k = load_rows(at, qkv, 3, K);
    const Part v = load_rows(at, qkv, 3, V);
    Part dk = {};
    Part dv = {};
#pragma unroll 1
    for (u32 block = 0; block < at.length; block += BLOCK) {
        load_tile(at, block, qkv, 3, Q);
        __syncthreads();
        multiply<true>(k, at);
        __syncthreads();
        const Scores s = added(at);
        load_tile(at, block, dout, 1, 0);
        __syncthreads();
        multiply<true>(v, at);
        __syncthreads();
        const Scores dp = added(at);
#pragma unroll
        for (u32 own = 0; own < SCORES; own += 1) {
            const u32 quad = own * TEAM + at.member;
            if (quad < at.scores) {
                const Gradients g =
                    gradients(at, dropout, stride, lse, delta, block + quad, at.row, s.at[own], dp.at[own]);
                write(sums[quad * SUMS + at.slot], g.p);
                write(sums[quad * SUMS + at.slot + 1], g.ds);
            }
        }
        __syncthreads();
        accumulate<true>(dv, at, 0);
        __syncthreads();
        load_tile(at, block, qkv, 3, Q);
        __syncthreads();
        accumulate<true>(dk, at, 1);
        __syncthreads();
    }
    store_dqkv(dk, at, dqkv, K);
    store_dqkv(dv, at, dqkv, V);
}
