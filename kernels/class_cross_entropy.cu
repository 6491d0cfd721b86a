// Softmax and cross entropy over a few classes (src/ops/class_cross_entropy.rs), a thread a row.

#include "common/math.cuh"
#include "common/stored.cuh"

// Largest logit of a row and the sum of exp(z - most).
struct Softmax {
    float most;
    float sum;
};

__device__ __forceinline__ Softmax softmax(const Stored* logits, u32 classes) {
    float most = widen(logits[0]);
    for (u32 column = 1; column < classes; column += 1) {
        most = fmaxf(most, widen(logits[column]));
    }
    float sum = 0.0f;
    for (u32 column = 0; column < classes; column += 1) {
        sum += exp_f32(widen(logits[column]) - most);
    }
    return {most, sum};
}

// losses = log sum exp(logits) - logits[label]
extern "C" __global__ void __launch_bounds__(THREADS) class_cross_entropy_loss(
    const Stored* __restrict__ logits, // [rows, classes]
    const u32* __restrict__ labels,    // [rows, 1]
    float* __restrict__ losses,        // [rows, 1]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 classes) {
    const u32 row = blockIdx.x * THREADS + threadIdx.x;
    if (row >= live(step_params, rows, rows_count, rows_start)) {
        return;
    }
    const Softmax s = softmax(logits + row * classes, classes);
    losses[row] = log_f32(s.sum) - (widen(logits[row * classes + labels[row]]) - s.most);
}

// dlogits (+)= weight loss_scale (softmax(logits) - onehot(label))
extern "C" __global__ void __launch_bounds__(THREADS) class_cross_entropy_gradient(
    const Stored* __restrict__ logits, // [rows, classes]
    const u32* __restrict__ labels,    // [rows, 1]
    const float* __restrict__ weights, // [rows, 1]
    Stored* __restrict__ dlogits,      // [rows, classes]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 classes,
    u32 accumulate_dlogits) {
    const u32 row = blockIdx.x * THREADS + threadIdx.x;
    if (row >= live(step_params, rows, rows_count, rows_start)) {
        return;
    }
    const Softmax s = softmax(logits + row * classes, classes);
    const float weight = weights[row] * step_params->loss_scale;
    const u32 label = labels[row];
    for (u32 column = 0; column < classes; column += 1) {
        const u32 element = row * classes + column;
        const float d = exp_f32(widen(logits[element]) - s.most) * (weight / s.sum) - (column == label ? weight : 0.0f);
        dlogits[element] = stored(accumulate_dlogits != 0 ? widen(dlogits[element]) + d : d);
    }
}
