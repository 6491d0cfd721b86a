// The step's scalars and the live counts among them. Every kernel takes its tensors in the order of its argument table,
// then step_params, then its launch constants in the order of the table.
#pragma once

using u32 = unsigned int;

// kernel::StepParams: 32 words.
struct StepParams {
    u32 step;
    u32 seed[2];
    u32 tokens;
    u32 sequences;
    u32 masked;
    u32 buckets;
    u32 squared_lengths;
    float learning_rate;
    float bias_correction;
    float head_bias_correction;
    float clip_norm;
    float loss_scale;
    float inverse_loss_scale;
    u32 reserved[18];
};
static_assert(sizeof(StepParams) == 128, "32 words, as the host uploads them");

// The count of a symbol whose capacity is its live count.
constexpr u32 FIXED = 0xffffffffu;

// Rows of a symbol that are live in this step; count is the index of the word that counts them, start the first row
// that the tensor shows.
__device__ __forceinline__ u32 live(const StepParams* step_params, u32 capacity, u32 count, u32 start) {
    if (count == FIXED) {
        return capacity;
    }
    const u32 rows = reinterpret_cast<const u32*>(step_params)[count];
    return min(rows - min(rows, start), capacity);
}

// The number of a block in a launch whose blocks go on in y (kernel::workgroups).
__device__ __forceinline__ u32 block_number() {
    return blockIdx.y * gridDim.x + blockIdx.x;
}

// The first of the `each` neighbouring elements of a thread in a launch that covers all elements.
__device__ __forceinline__ u32 covered_element(u32 each) {
    return (block_number() * THREADS + threadIdx.x) * each;
}

// The quotient, rounded up.
__device__ constexpr u32 blocks_of(u32 size, u32 block) {
    return (size + block - 1) / block;
}
