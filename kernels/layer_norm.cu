// LayerNorm, alone and fused with dropout and the residual sum (src/ops/layer_norm).
//
// Forward: one block a row; each thread keeps no state between the three passes over the row (mean, variance, result),
// which stays in cache. Bytes moved: the row once in, once out, per tensor.
//
// Backward: one block per 64 rows. For each row two sums and ds; then the block's column sums for dgamma and dbeta, a
// thread a column, from dy and x that are still in L2. bias_grad.finish adds the blocks.

#include "common/dropout.cuh"
#include "common/step.cuh"
#include "common/sum.cuh"

constexpr u32 BLOCK_ROWS = 64;

// y = dropout(LN(x))
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_forward(
    const float* __restrict__ x,     // [rows, width]
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
    const u32 row = blockIdx.x;
    const u32 thread = threadIdx.x;
    if (row >= live(step_params, rows, rows_count, rows_start)) {
        return;
    }
    const Dropout dropout = {step_params, op, threshold, keep_scale};
    const u32 first = row * width;
    float total = 0.0f;
    for (u32 column = thread; column < width; column += THREADS) {
        total += x[first + column];
    }
    const float mean = workgroup_sum(thread, total) / static_cast<float>(width);
    float squares = 0.0f;
    for (u32 column = thread; column < width; column += THREADS) {
        const float centred = x[first + column] - mean;
        squares += centred * centred;
    }
    const float variance = workgroup_sum(thread, squares) / static_cast<float>(width);
    const float rstd = 1.0f / sqrtf(variance + epsilon);
    if (thread == 0) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = rstd;
    }
    for (u32 column = thread; column < width; column += THREADS) {
        const u32 element = first + column;
        const float xhat = (x[element] - mean) * rstd;
        y[element] = fmaf(xhat, gamma[column], beta[column]) * dropout.factor(element);
    }
}

// sum = residual + dropout(sum), y = LN(sum). Each thread reads in the later passes only what it wrote itself.
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_residual_forward(
    float* __restrict__ sum,            // [rows, width]
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
    const u32 row = blockIdx.x;
    const u32 thread = threadIdx.x;
    if (row >= live(step_params, rows, rows_count, rows_start)) {
        return;
    }
    const Dropout dropout = {step_params, op, threshold, keep_scale};
    const u32 first = row * width;
    float total = 0.0f;
    for (u32 column = thread; column < width; column += THREADS) {
        const u32 element = first + column;
        const float s = residual[element] + sum[element] * dropout.factor(element);
        sum[element] = s;
        total += s;
    }
    const float mean = workgroup_sum(thread, total) / static_cast<float>(width);
    float squares = 0.0f;
    for (u32 column = thread; column < width; column += THREADS) {
        const float centred = sum[first + column] - mean;
        squares += centred * centred;
    }
    const float variance = workgroup_sum(thread, squares) / static_cast<float>(width);
    const float rstd = 1.0f / sqrtf(variance + epsilon);
    if (thread == 0) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = rstd;
    }
    for (u32 column = thread; column < width; column += THREADS) {
        const u32 element = first + column;
        const float xhat = (sum[element] - mean) * rstd;
        y[element] = fmaf(xhat, gamma[column], beta[column]);
    }
}

// dx (+)= LN'(dropout'(dy)) and the block's column sums
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_backward(
    const float* __restrict__ dy,        // [rows, width]
    const float* __restrict__ x,         // [rows, width]
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
    const u32 thread = threadIdx.x;
    const Dropout dropout = {step_params, op, threshold, keep_scale};
    const u32 first_row = blockIdx.x * BLOCK_ROWS;
    const u32 end_row = min(first_row + BLOCK_ROWS, live(step_params, rows, rows_count, rows_start));
    for (u32 row = first_row; row < end_row; row += 1) {
        const u32 first = row * width;
        const float mean = stats[2 * row];
        const float rstd = stats[2 * row + 1];
        float of_g = 0.0f;
        float of_gx = 0.0f;
        for (u32 column = thread; column < width; column += THREADS) {
            const u32 element = first + column;
            const float g = dy[element] * dropout.factor(element) * gamma[column];
            of_g += g;
            of_gx += g * (x[element] - mean) * rstd;
        }
        const float mean_g = workgroup_sum(thread, of_g) / static_cast<float>(width);
        const float mean_gx = workgroup_sum(thread, of_gx) / static_cast<float>(width);
        for (u32 column = thread; column < width; column += THREADS) {
            const u32 element = first + column;
            const float g = dy[element] * dropout.factor(element) * gamma[column];
            const float xhat = (x[element] - mean) * rstd;
            const float ds = rstd * (g - mean_g - xhat * mean_gx);
            dx[element] = accumulate_dx != 0 ? dx[element] + ds : ds;
        }
    }
    for (u32 column = thread; column < width; column += THREADS) {
        float dgamma = 0.0f;
        float dbeta = 0.0f;
        for (u32 row = first_row; row < end_row; row += 1) {
            const u32 element = row * width + column;
            const float d = dy[element] * dropout.factor(element);
            dgamma += d * (x[element] - stats[2 * row]) * stats[2 * row + 1];
            dbeta += d;
        }
        dgamma_partials[blockIdx.x * width + column] = dgamma;
        dbeta_partials[blockIdx.x * width + column] = dbeta;
    }
}

// dresidual (+)= ds, dx = dropout'(ds) and the block's column sums
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_residual_backward(
    const float* __restrict__ dy,        // [rows, width]
    const float* __restrict__ sum,       // [rows, width]
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
    const u32 thread = threadIdx.x;
    const Dropout dropout = {step_params, op, threshold, keep_scale};
    const u32 first_row = blockIdx.x * BLOCK_ROWS;
    const u32 end_row = min(first_row + BLOCK_ROWS, live(step_params, rows, rows_count, rows_start));
    for (u32 row = first_row; row < end_row; row += 1) {
        const u32 first = row * width;
        const float mean = stats[2 * row];
        const float rstd = stats[2 * row + 1];
        float of_g = 0.0f;
        float of_gx = 0.0f;
        for (u32 column = thread; column < width; column += THREADS) {
            const u32 element = first + column;
            const float g = dy[element] * gamma[column];
            of_g += g;
            of_gx += g * (sum[element] - mean) * rstd;
        }
        const float mean_g = workgroup_sum(thread, of_g) / static_cast<float>(width);
        const float mean_gx = workgroup_sum(thread, of_gx) / static_cast<float>(width);
        for (u32 column = thread; column < width; column += THREADS) {
            const u32 element = first + column;
            const float g = dy[element] * gamma[column];
            const float xhat = (sum[element] - mean) * rstd;
            const float ds = rstd * (g - mean_g - xhat * mean_gx);
            dresidual[element] = accumulate_dresidual != 0 ? dresidual[element] + ds : ds;
            dx[element] = ds * dropout.factor(element);
        }
    }
    for (u32 column = thread; column < width; column += THREADS) {
        float dgamma = 0.0f;
        float dbeta = 0.0f;
        for (u32 row = first_row; row < end_row; row += 1) {
            const u32 element = row * width + column;
            dgamma += dy[element] * (sum[element] - stats[2 * row]) * stats[2 * row + 1];
            dbeta += dy[element];
        }
        dgamma_partials[blockIdx.x * width + column] = dgamma;
        dbeta_partials[blockIdx.x * width + column] = dbeta;
    }
}
