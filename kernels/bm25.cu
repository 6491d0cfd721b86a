// BM25 in integers (src/ops/bm25). Bytes moved by the scores: postings and columns of the queries' terms in, scores out; by the
// selection: the scores, once for each byte of the k-th and once to take what passes.

#include "common/sum.cuh"

constexpr u32 SUB_TILE = 4096;
constexpr u32 COLUMN = 0xffffffffu;
constexpr u32 NONE = 0xffffffffu;
constexpr u32 WARPS = THREADS / WARP;
constexpr u32 PAIRS = SUB_TILE / 2 / THREADS; // pairs of documents of a thread in a column

extern "C" __global__ void __launch_bounds__(THREADS) bm25_score(
    const u32* __restrict__ postings, // [postings, 1]
    const u32* __restrict__ columns,  // [column_rows, 1]
    const u32* __restrict__ spans,    // [spans, 2]
    const u32* __restrict__ weights,  // [terms, 1]
    const u32* __restrict__ queries,  // [rows, 4]
    u32* __restrict__ scores,         // [rows, documents]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 documents) {
    __shared__ __align__(16) u32 sums[SUB_TILE];
    const u32 sub_tiles = documents / SUB_TILE;
    if (block_number() >= rows * sub_tiles) {
        return;
    }
    const u32 query = block_number() % rows;
    const u32 sub_tile = block_number() / rows;
    const u32 first = queries[4 * query];
    const u32 end = first + queries[4 * query + 1];
    const u32 shift = queries[4 * query + 2];
    const u32 half = (1u << shift) >> 1;
    const u32 thread = threadIdx.x;

    u32 low[PAIRS] = {};
    u32 high[PAIRS] = {};
    for (u32 term = first; term < end; term += 1) {
        const u32* span = spans + 2 * (term * sub_tiles + sub_tile);
        if (span[1] == COLUMN) {
            const u32* column = columns + span[0] + thread;
            const u32 weight = weights[term];
#pragma unroll
            for (u32 i = 0; i < PAIRS; i += 1) {
                const u32 codes = column[THREADS * i];
                low[i] += (weight * (codes & 0xffff) + half) >> shift;
                high[i] += (weight * (codes >> 16) + half) >> shift;
            }
        }
    }
#pragma unroll
    for (u32 i = 0; i < PAIRS; i += 1) {
        reinterpret_cast<uint2*>(sums)[thread + THREADS * i] = make_uint2(low[i], high[i]);
    }
    __syncthreads();

    for (u32 term = first + thread / WARP; term < end; term += WARPS) {
        const u32* span = spans + 2 * (term * sub_tiles + sub_tile);
        const u32 count = span[1];
        if (count != COLUMN) {
            const u32* list = postings + span[0];
            const u32 weight = weights[term];
            for (u32 i = thread % WARP; i < count; i += WARP) {
                const u32 posting = list[i];
                atomicAdd(sums + posting % SUB_TILE, (weight * (posting >> 16) + half) >> shift);
            }
        }
    }
    __syncthreads();

    uint4* to = reinterpret_cast<uint4*>(scores + query * documents + sub_tile * SUB_TILE);
#pragma unroll
    for (u32 i = 0; i < SUB_TILE / 4 / THREADS; i += 1) {
        to[thread + THREADS * i] = reinterpret_cast<const uint4*>(sums)[thread + THREADS * i];
    }
}

constexpr u32 RUN = 8; // documents of a thread in a round of the selection
constexpr u32 ROUND = RUN * THREADS;
constexpr u32 BINS = 256;

// What comes in: all scores above `score`, and the first `equal` documents that have it.
struct Limit {
    u32 score;
    u32 equal;
};

// The lowest score that comes in, found byte by byte, and how many documents have it and come in: the rest of k.
__device__ __forceinline__ Limit find_limit(const u32* scores, u32 documents, u32 threshold, u32 k) {
    __shared__ u32 histogram[BINS];
    __shared__ Limit shared;
    Limit limit = {0, k};
#pragma unroll
    for (u32 place = 32; place > 0;) {
        place -= 8;
        for (u32 bin = threadIdx.x; bin < BINS; bin += THREADS) {
            histogram[bin] = 0;
        }
        __syncthreads();
        // What stands before this byte; nothing before the first one.
        const u32 before = place + 8;
        for (u32 document = threadIdx.x; document < documents; document += THREADS) {
            const u32 score = scores[document];
            const bool same = before == 32 || score >> before == limit.score >> before;
            if (score > threshold && same) {
                atomicAdd(histogram + ((score >> place) & 0xff), 1u);
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            u32 bin = BINS - 1;
            while (bin > 0 && histogram[bin] < limit.equal) {
                limit.equal -= histogram[bin];
                bin -= 1;
            }
            limit.score |= bin << place;
            shared = limit;
        }
        __syncthreads();
        limit = shared;
    }
    return limit;
}

// A sum over the threads before this one, and over all.
struct Before {
    u32 own;
    u32 all;
};

// All threads must call it.
__device__ __forceinline__ Before sum_before(u32 term) {
    __shared__ u32 of_warps[WARPS];
    const u32 lane = threadIdx.x % WARP;
    u32 sum = term;
#pragma unroll
    for (u32 distance = 1; distance < WARP; distance *= 2) {
        const u32 other = __shfl_up_sync(ALL, sum, distance);
        sum += lane >= distance ? other : 0;
    }
    if (lane == WARP - 1) {
        of_warps[threadIdx.x / WARP] = sum;
    }
    __syncthreads();
    Before before = {sum - term, 0};
#pragma unroll
    for (u32 warp = 0; warp < WARPS; warp += 1) {
        before.own += warp < threadIdx.x / WARP ? of_warps[warp] : 0;
        before.all += of_warps[warp];
    }
    __syncthreads(); // the next sum may overwrite it
    return before;
}

extern "C" __global__ void __launch_bounds__(THREADS) bm25_select(
    const u32* __restrict__ scores,  // [rows, documents]
    const u32* __restrict__ queries, // [rows, 4]
    u32* __restrict__ found,         // [rows, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 documents,
    u32 width) {
    const u32 query = block_number();
    if (query >= rows) {
        return;
    }
    const u32 threshold = queries[4 * query + 3];
    const u32 k = width / 2;
    const u32* from = scores + query * documents;
    uint2* to = reinterpret_cast<uint2*>(found + query * width);
    const Limit limit = find_limit(from, documents, threshold, k);
    u32 above = 0; // documents of the rounds before with a score above the limit
    u32 equal = 0; // and those with the limit itself
    for (u32 round = 0; round < documents; round += ROUND) {
        const u32 first = round + RUN * threadIdx.x;
        u32 run[RUN];
#pragma unroll
        for (u32 i = 0; i < RUN; i += 4) {
            *reinterpret_cast<uint4*>(run + i) = *reinterpret_cast<const uint4*>(from + first + i);
        }
        u32 own = 0; // both counts, in the upper and the lower half
#pragma unroll
        for (u32 i = 0; i < RUN; i += 1) {
            if (run[i] > threshold) {
                own += (run[i] > limit.score ? 0x10000u : 0u) + (run[i] == limit.score ? 1u : 0u);
            }
        }
        const Before before = sum_before(own);
        u32 mine_above = above + (before.own >> 16);
        u32 mine_equal = equal + (before.own & 0xffff);
#pragma unroll
        for (u32 i = 0; i < RUN; i += 1) {
            if (run[i] > threshold && run[i] >= limit.score) {
                const bool more = run[i] > limit.score;
                if (more || mine_equal < limit.equal) {
                    to[mine_above + min(mine_equal, limit.equal)] = make_uint2(first + i, run[i]);
                }
                mine_above += more ? 1 : 0;
                mine_equal += more ? 0 : 1;
            }
        }
        above += before.all >> 16;
        equal += before.all & 0xffff;
    }
    for (u32 place = above + min(equal, limit.equal) + threadIdx.x; place < k; place += THREADS) {
        to[place] = make_uint2(NONE, 0);
    }
}
