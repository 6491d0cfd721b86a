// Picked rows of a tensor (src/ops/gather.rs), a warp a picked row. Bytes moved: each picked row in and out. The row numbers
// ascend strictly, so that no two warps of the backward meet.

#include "common/stored.cuh"
#include "common/sum.cuh"

constexpr u32 ROWS = THREADS / WARP; // rows of a block

// y = x[index]
extern "C" __global__ void __launch_bounds__(THREADS) gather_forward(
    const Stored* __restrict__ x,  // [rows, width]
    const u32* __restrict__ index, // [picked, 1]
    Stored* __restrict__ y,        // [picked, width]
    const StepParams* __restrict__ step_params,
    u32 picked,
    u32 picked_count,
    u32 picked_start,
    u32 width) {
    const u32 pick = block_number() * ROWS + threadIdx.x / WARP;
    if (pick >= live(step_params, picked, picked_count, picked_start)) {
        return;
    }
    const Stored* from = x + index[pick] * width;
    Stored* to = y + pick * width;
    for (u32 column = VECTOR * (threadIdx.x % WARP); column < width; column += VECTOR * WARP) {
        store_row(to, column, width, load_row<VECTOR>(from, column, width));
    }
}

// dx[index] += dy
extern "C" __global__ void __launch_bounds__(THREADS) gather_backward(
    const Stored* __restrict__ dy, // [picked, width]
    const u32* __restrict__ index, // [picked, 1]
    Stored* __restrict__ dx,       // [rows, width]
    const StepParams* __restrict__ step_params,
    u32 picked,
    u32 picked_count,
    u32 picked_start,
    u32 width) {
    const u32 pick = block_number() * ROWS + threadIdx.x / WARP;
    if (pick >= live(step_params, picked, picked_count, picked_start)) {
        return;
    }
    const Stored* from = dy + pick * width;
    Stored* to = dx + index[pick] * width;
    for (u32 column = VECTOR * (threadIdx.x % WARP); column < width; column += VECTOR * WARP) {
        Run<VECTOR> d = load_row<VECTOR>(from, column, width);
        const Run<VECTOR> old = load_row<VECTOR>(to, column, width);
#pragma unroll
        for (u32 i = 0; i < VECTOR; i += 1) {
            d.at[i] += old.at[i];
        }
        store_row(to, column, width, d);
    }
}
