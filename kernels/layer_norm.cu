// LayerNorm, alone and fused with dropout and the residual sum (src/ops/layer_norm).
//
// Forward: one block a row of s, what is normalised; each thread keeps no state between the three passes over the row (mean, variance, result),
// which stays in cache. Bytes moved: the row once in, once out, per tensor.
//
// Backward: one block per 64 rows. For each row two sums and ds; then the block's column sums for dgamma and dbeta, a
// thread a column, from dy and s that are still in L2. bias_grad.finish adds the blocks.

#include "common/dropout.cuh"
#include "common/step.cuh"
#include "common/sum.cuh"

constexpr u32 BLOCK_ROWS = 64;

struct Moments {
    float mean;
    float rstd;
};

// Means over a row of g = dy gamma and of g xhat.
struct Means {
    float g;
    float gx;
};

// Mean and rstd of a row of s, also written to stats; total: what the thread's elements add up to.
__device__ __forceinline__ Moments statistics(const float* s, float* stats, u32 width, float epsilon, float total) {
    const u32 row = blockIdx.y * gridDim.x + blockIdx.x;
    const u32 thread = threadIdx.x;
    const float mean = workgroup_sum(thread, total) / static_cast<float>(width);
    float squares = 0.0f;
    for (u32 column = thread; column < width; column += THREADS) {
        const float centred = s[row * width + column] - mean;
        squares += centred * centred;
    }
    const float variance = workgroup_sum(thread, squares) / static_cast<float>(width);
    const float rstd = 1.0f / sqrtf(variance + epsilon);
    if (thread == 0) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = rstd;
    }
    return {mean, rstd};
}

// y = dropout(LN(s))
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_forward(
    const float* __restrict__ s,     // [rows, width]
    const float* __restrict__ gamma, // [1, width]
    const float* __restrict__ beta,  // [1, width]
    float* __restrict__ y,           // [rows, width]
    float* __restrict__ stats,       // [rows, 2]: mean, rstd
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width,
    float epsilon,
    u32 threshold,
    float keep_scale,
    u32 op) {
    const u32 row = blockIdx.y * gridDim.x + blockIdx.x;
    const u32 thread = threadIdx.x;
    if (row >= live(step_params, rows, rows_count, rows_start)) {
        return;
    }
    const Dropout dropout = {step_params, op, threshold, keep_scale};
    const u32 first = row * width;
    float total = 0.0f;
    for (u32 column = thread; column < width; column += THREADS) {
        total += s[first + column];
    }
    const Moments moments = statistics(s, stats, width, epsilon, total);
    for (u32 column = thread; column < width; column += THREADS) {
        const u32 element = first + column;
        const float xhat = (s[element] - moments.mean) * moments.rstd;
        y[element] = fmaf(xhat, gamma[column], beta[column]) * dropout.factor(element);
    }
}

// s = residual + dropout(s), y = LN(s). Each thread reads in the later passes only what it wrote itself.
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_residual_forward(
    float* __restrict__ s,              // [rows, width]
    const float* __restrict__ residual, // [rows, width]
    const float* __restrict__ gamma,    // [1, width]
    const float* __restrict__ beta,     // [1, width]
    float* __restrict__ y,              // [rows, width]
    float* __restrict__ stats,          // [rows, 2]: mean, rstd
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width,
    float epsilon,
    u32 threshold,
    float keep_scale,
    u32 op) {
    const u32 row = blockIdx.y * gridDim.x + blockIdx.x;
    const u32 thread = threadIdx.x;
    if (row >= live(step_params, rows, rows_count, rows_start)) {
        return;
    }
    const Dropout dropout = {step_params, op, threshold, keep_scale};
    const u32 first = row * width;
    float total = 0.0f;
    for (u32 column = thread; column < width; column += THREADS) {
        const u32 element = first + column;
        const float sum = residual[element] + s[element] * dropout.factor(element);
        s[element] = sum;
        total += sum;
    }
    const Moments moments = statistics(s, stats, width, epsilon, total);
    for (u32 column = thread; column < width; column += THREADS) {
        const u32 element = first + column;
        const float xhat = (s[element] - moments.mean) * moments.rstd;
        y[element] = fmaf(xhat, gamma[column], beta[column]);
    }
}

// What both backwards read.
struct Backward {
    const float* dy;
    const float* s;
    const float* stats;
    const float* gamma;
    u32 width;
    Dropout dropped; // of y; drops nothing where y was not dropped

    __device__ __forceinline__ Moments moments_of(u32 row) const {
        return {stats[2 * row], stats[2 * row + 1]};
    }

    // An element of dy as it reaches the LayerNorm.
    __device__ __forceinline__ float upstream(u32 element) const {
        return dy[element] * dropped.factor(element);
    }

    __device__ __forceinline__ Means row_means(u32 row) const {
        const u32 thread = threadIdx.x;
        const Moments moments = moments_of(row);
        Means means = {};
        for (u32 column = thread; column < width; column += THREADS) {
            const u32 element = row * width + column;
            const float g = upstream(element) * gamma[column];
            means.g += g;
            means.gx += g * (s[element] - moments.mean) * moments.rstd;
        }
        const float g = workgroup_sum(thread, means.g) / static_cast<float>(width);
        const float gx = workgroup_sum(thread, means.gx) / static_cast<float>(width);
        return {g, gx};
    }

    // The gradient of an element of s.
    __device__ __forceinline__ float ds(u32 row, u32 column, const Means& means) const {
        const u32 element = row * width + column;
        const Moments moments = moments_of(row);
        const float xhat = (s[element] - moments.mean) * moments.rstd;
        return moments.rstd * (upstream(element) * gamma[column] - means.g - xhat * means.gx);
    }

    // Column sums of the rows of a block.
    __device__ __forceinline__ void column_sums(u32 end_row, float* dgamma_partials, float* dbeta_partials) const {
        const u32 block = blockIdx.x;
        for (u32 column = threadIdx.x; column < width; column += THREADS) {
            float dgamma = 0.0f;
            float dbeta = 0.0f;
            for (u32 row = block * BLOCK_ROWS; row < end_row; row += 1) {
                const u32 element = row * width + column;
                const Moments moments = moments_of(row);
                const float d = upstream(element);
                dgamma += d * (s[element] - moments.mean) * moments.rstd;
                dbeta += d;
            }
            dgamma_partials[block * width + column] = dgamma;
            dbeta_partials[block * width + column] = dbeta;
        }
    }
};

// dx (+)= LN'(dropout'(dy)) and the block's column sums
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_backward(
    const float* __restrict__ dy,        // [rows, width]
    const float* __restrict__ s,         // [rows, width]
    const float* __restrict__ stats,     // [rows, 2]
    const float* __restrict__ gamma,     // [1, width]
    float* __restrict__ dx,              // [rows, width]
    float* __restrict__ dgamma_partials, // [blocks, width]
    float* __restrict__ dbeta_partials,  // [blocks, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width,
    u32 threshold,
    float keep_scale,
    u32 op,
    u32 accumulate_dx) {
    const Backward backward = {dy, s, stats, gamma, width, {step_params, op, threshold, keep_scale}};
    const u32 end_row = min((blockIdx.x + 1) * BLOCK_ROWS, live(step_params, rows, rows_count, rows_start));
    for (u32 row = blockIdx.x * BLOCK_ROWS; row < end_row; row += 1) {
        const Means means = backward.row_means(row);
        for (u32 column = threadIdx.x; column < width; column += THREADS) {
            const u32 element = row * width + column;
            const float d = backward.ds(row, column, means);
            dx[element] = accumulate_dx != 0 ? dx[element] + d : d;
        }
    }
    backward.column_sums(end_row, dgamma_partials, dbeta_partials);
}

// dresidual (+)= ds, dx = dropout'(ds) and the block's column sums
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_residual_backward(
    const float* __restrict__ dy,        // [rows, width]
    const float* __restrict__ s,         // [rows, width]
    const float* __restrict__ stats,     // [rows, 2]
    const float* __restrict__ gamma,     // [1, width]
    float* __restrict__ dresidual,       // [rows, width]
    float* __restrict__ dx,              // [rows, width]
    float* __restrict__ dgamma_partials, // [blocks, width]
    float* __restrict__ dbeta_partials,  // [blocks, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width,
    u32 threshold,
    float keep_scale,
    u32 op,
    u32 accumulate_dresidual) {
    const Dropout dropout = {step_params, op, threshold, keep_scale};
    const Backward backward = {dy, s, stats, gamma, width, {step_params, op, 0, 1.0f}};
    const u32 end_row = min((blockIdx.x + 1) * BLOCK_ROWS, live(step_params, rows, rows_count, rows_start));
    for (u32 row = blockIdx.x * BLOCK_ROWS; row < end_row; row += 1) {
        const Means means = backward.row_means(row);
        for (u32 column = threadIdx.x; column < width; column += THREADS) {
            const u32 element = row * width + column;
            const float d = backward.ds(row, column, means);
            dresidual[element] = accumulate_dresidual != 0 ? dresidual[element] + d : d;
            dx[element] = d * dropout.factor(element);
        }
    }
    backward.column_sums(end_row, dgamma_partials, dbeta_partials);
}
