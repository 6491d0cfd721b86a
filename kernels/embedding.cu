// BERT's input embedding (src/ops/embedding). Forward: a warp a token, four columns a lane. Backward: a block a row of what
// is written, so that no two blocks write the same row of a table: a token id has one bucket, a position one block. The
// rows that meet in it are a list; a long one is dealt to the warps of the block in turn, whose sums are then added in
// their order. Bytes moved: the picked rows of the tables, or of dy, once in; the written rows once out.

#include "common/stored.cuh"
#include "common/sum.cuh"

constexpr u32 WARPS = THREADS / WARP;
constexpr u32 COLUMNS = 4 * WARP; // of a warp
constexpr u32 LONG = 16;          // rows of a list that all warps share
constexpr u32 NONE = 0xffffffffu;

// y = word[id] + position[p] + segment[0]
extern "C" __global__ void __launch_bounds__(THREADS) embedding_forward(
    const u32* __restrict__ ids,        // [tokens, 1]
    const u32* __restrict__ positions,  // [tokens, 1]
    const float* __restrict__ word,     // [vocabulary, width]
    const float* __restrict__ position, // [longest, width]
    const float* __restrict__ segment,  // [segments, width]
    Stored* __restrict__ y,             // [tokens, width]
    const StepParams* __restrict__ step_params,
    u32 tokens,
    u32 tokens_count,
    u32 tokens_start,
    u32 width) {
    const u32 token = block_number() * WARPS + threadIdx.x / WARP;
    if (token >= live(step_params, tokens, tokens_count, tokens_start)) {
        return;
    }
    const float* of_id = word + static_cast<size_t>(ids[token]) * width;
    const float* of_position = position + positions[token] * width;
    for (u32 column = 4 * (threadIdx.x % WARP); column < width; column += COLUMNS) {
        Run<4> sum = load_row<4>(of_id, column, width);
        const Run<4> at = load_row<4>(of_position, column, width);
        const Run<4> in = load_row<4>(segment, column, width);
#pragma unroll
        for (u32 i = 0; i < 4; i += 1) {
            sum.at[i] = sum.at[i] + at.at[i] + in.at[i];
        }
        store_row(y + token * width, column, width, sum);
    }
}

// to (+)= sum over `count` rows of dy, where row_of(i) is the number of the i-th, or NONE.
template <typename RowOf>
__device__ __forceinline__ void add_rows(
    float* to, // [width]
    const Stored* dy,
    u32 width,
    u32 count,
    bool accumulate,
    RowOf row_of) {
    __shared__ float4 terms[THREADS];
    const u32 members = count < LONG ? 1 : WARPS; // warps that share a list
    const u32 team = threadIdx.x / WARP / members;
    const u32 member = threadIdx.x / WARP % members;
    for (u32 first = 0; first < width; first += COLUMNS * (WARPS / members)) {
        const u32 column = first + COLUMNS * team + 4 * (threadIdx.x % WARP);
        Run<4> sum = {};
        if (column < width) {
#pragma unroll 4
            for (u32 i = member; i < count; i += members) {
                const u32 row = row_of(i);
                if (row != NONE) {
                    const Run<4> d = load_row<4>(dy + row * width, column, width);
#pragma unroll
                    for (u32 j = 0; j < 4; j += 1) {
                        sum.at[j] += d.at[j];
                    }
                }
            }
        }
        terms[threadIdx.x] = make_float4(sum.at[0], sum.at[1], sum.at[2], sum.at[3]);
        __syncthreads();
        if (member == 0 && column < width) {
            for (u32 other = 1; other < members; other += 1) {
                const float4 term = terms[other * WARP + threadIdx.x];
                sum = {sum.at[0] + term.x, sum.at[1] + term.y, sum.at[2] + term.z, sum.at[3] + term.w};
            }
            if (accumulate) {
                const Run<4> old = load_row<4>(static_cast<const float*>(to), column, width);
#pragma unroll
                for (u32 j = 0; j < 4; j += 1) {
                    sum.at[j] += old.at[j];
                }
            }
            store_row(to, column, width, sum);
        }
        __syncthreads(); // the next columns overwrite the terms
    }
}

// dword[id] += sum of dy over the rows of the id's bucket
extern "C" __global__ void __launch_bounds__(THREADS) embedding_word_backward(
    const Stored* __restrict__ dy,           // [tokens, width]
    const u32* __restrict__ sorted_rows,     // [tokens, 1]
    const u32* __restrict__ bucket_ids,      // [buckets, 1]
    const u32* __restrict__ bucket_offsets,  // [bounds, 1]
    float* __restrict__ dword,               // [vocabulary, width]
    const StepParams* __restrict__ step_params,
    u32 buckets,
    u32 buckets_count,
    u32 buckets_start,
    u32 width) {
    const u32 bucket = block_number();
    if (bucket >= live(step_params, buckets, buckets_count, buckets_start)) {
        return;
    }
    const u32 first = bucket_offsets[bucket];
    float* to = dword + static_cast<size_t>(bucket_ids[bucket]) * width;
    add_rows(to, dy, width, bucket_offsets[bucket + 1] - first, true, [&](u32 i) { return sorted_rows[first + i]; });
}

// dposition[p] (+)= sum over the sequences longer than p
extern "C" __global__ void __launch_bounds__(THREADS) embedding_position_backward(
    const Stored* __restrict__ dy,      // [tokens, width]
    const u32* __restrict__ cu_seqlens, // [bounds, 1]
    float* __restrict__ dposition,      // [longest, width]
    const StepParams* __restrict__ step_params,
    u32 width,
    u32 bounds,
    u32 accumulate_dposition) {
    const u32 at = blockIdx.x;
    const u32 sequences = min(bounds - 1, step_params->sequences);
    add_rows(dposition + at * width, dy, width, sequences, accumulate_dposition != 0, [&](u32 sequence) {
        const u32 row = cu_seqlens[sequence] + at;
        return row < cu_seqlens[sequence + 1] ? row : NONE;
    });
}
