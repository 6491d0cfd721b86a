// The masked language model's loss of rows of logits (src/ops/masked_cross_entropy), a block a row.
//
// A row begins anywhere (30,522 words are no multiple of 8), so a thread takes every 256th run of 16 bytes of the tensor
// that the row has a part in; of the first and the last run it leaves the neighbours' elements alone. One pass finds the
// largest logit and the sum of exponentials together, scaling the sum down when a larger logit comes; a second one writes
// the gradient. Bytes moved: the row twice in (from L2 the second time) and once out.

#include "common/math.cuh"
#include "common/stored.cuh"
#include "common/sum.cuh"

constexpr float LOWEST = -3.4028235e38f;

// losses = log sum exp(logits) - logits[label]; with train, logits = weight loss_scale (softmax(logits) - onehot(label))
extern "C" __global__ void __launch_bounds__(THREADS) masked_cross_entropy_rows(
    Stored* __restrict__ logits,       // [rows, classes]
    const u32* __restrict__ labels,    // [rows, 1]
    const float* __restrict__ weights, // [rows, 1]
    float* __restrict__ losses,        // [rows, 1]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 classes,
    u32 train) {
    const u32 row = block_number();
    if (row >= live(step_params, rows, rows_count, rows_start)) {
        return;
    }
    const u32 first = row * classes;
    const u32 end = first + classes;
    const u32 own_first = (first / VECTOR + threadIdx.x) * VECTOR; // of the thread's first run
    float own_most = LOWEST;
    float own_sum = 0.0f;
#pragma unroll 2
    for (u32 element = own_first; element < end; element += VECTOR * THREADS) {
        const Run<VECTOR> z = load_range<VECTOR>(logits, element, first, end);
        float most = own_most;
#pragma unroll
        for (u32 i = 0; i < VECTOR; i += 1) {
            most = element + i >= first && element + i < end ? fmaxf(most, z.at[i]) : most;
        }
        own_sum *= exp_f32(own_most - most);
#pragma unroll
        for (u32 i = 0; i < VECTOR; i += 1) {
            own_sum += element + i >= first && element + i < end ? exp_f32(z.at[i] - most) : 0.0f;
        }
        own_most = most;
    }
    const float most = workgroup_max(own_most);
    const float sum = workgroup_sum(own_sum * exp_f32(own_most - most));

    // Every thread reads and writes its own columns only, the label's as well.
    const u32 label = first + labels[row];
    if ((label / VECTOR - first / VECTOR) % THREADS == threadIdx.x) {
        losses[row] = log_f32(sum) - (widen(logits[label]) - most);
    }
    if (train == 0) {
        return;
    }
    const float weight = weights[row] * step_params->loss_scale;
    const float scale = weight / sum;
#pragma unroll 2
    for (u32 element = own_first; element < end; element += VECTOR * THREADS) {
        Run<VECTOR> z = load_range<VECTOR>(logits, element, first, end);
#pragma unroll
        for (u32 i = 0; i < VECTOR; i += 1) {
            z.at[i] = exp_f32(z.at[i] - most) * scale - (element + i == label ? weight : 0.0f);
        }
        store_range(logits, element, first, end, z);
    }
}
