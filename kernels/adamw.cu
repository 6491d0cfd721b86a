// AdamW over a range of the flat buffers (src/ops/adamw.rs), four words a thread. Bytes moved: params and both moments in
// and out, grads in, the parameters' copy out; that is all the time it takes. Nothing changes when the norm is not
// finite, but the copy is still what the parameters round to.

#include "common/stored.cuh"

constexpr u32 BLOCKS = 4; // of a multiprocessor: 64 registers a thread, which it needs on some architectures

// What does not depend on the word.
struct Update {
    float clip;
    float beta1;
    float beta2;
    float epsilon;
    float rate;
    float decay;

    // The new parameter; m and v are updated.
    __device__ __forceinline__ float apply(float p, float grad, float& m, float& v, bool decayed) const {
        const float g = grad * clip;
        m = beta1 * m + (1.0f - beta1) * g;
        v = beta2 * v + (1.0f - beta2) * (g * g);
        const float stepped = p - rate * m / (sqrtf(v) + epsilon);
        return decayed ? stepped - decay * stepped : stepped;
    }
};

// Updates a thread's four words; their parameters.
__device__ __forceinline__ Run<4> updated(
    float* params,
    const float* grads,
    float* moment1,
    float* moment2,
    float norm,
    u32 word,
    u32 width,
    u32 decay_words,
    const Update& update) {
    Run<4> p = load_range<4>(params, word, width);
    if (!isfinite(norm)) {
        return p;
    }
    const Run<4> g = load_range<4>(grads, word, width);
    Run<4> m = load_range<4>(moment1, word, width);
    Run<4> v = load_range<4>(moment2, word, width);
#pragma unroll
    for (u32 i = 0; i < 4; i += 1) {
        p.at[i] = update.apply(p.at[i], g.at[i], m.at[i], v.at[i], word + i < decay_words);
    }
    store_range(moment1, word, width, m);
    store_range(moment2, word, width, v);
    store_range(params, word, width, p);
    return p;
}

// The step's scalars as an update.
__device__ __forceinline__ Update update_of(
    const StepParams* step_params,
    float norm,
    float beta1,
    float beta2,
    float epsilon,
    float weight_decay,
    u32 head) {
    const float clip_norm = step_params->clip_norm;
    const float clip = norm > clip_norm ? clip_norm / norm : 1.0f;
    const float learning_rate = step_params->learning_rate;
    const float correction = head != 0 ? step_params->head_bias_correction : step_params->bias_correction;
    return {
        clip * step_params->inverse_loss_scale,
        beta1,
        beta2,
        epsilon,
        learning_rate * correction,
        learning_rate * weight_decay,
    };
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) adamw(
    float* __restrict__ params,      // [1, width]
    const float* __restrict__ grads, // [1, width]
    float* __restrict__ moment1,     // [1, width]
    float* __restrict__ moment2,     // [1, width]
    const float* __restrict__ norm,  // [1, 1]
    const StepParams* __restrict__ step_params,
    u32 width,
    u32 decay_words,
    float beta1,
    float beta2,
    float epsilon,
    float weight_decay,
    u32 head) {
    const u32 word = covered_element(4);
    if (word < width) {
        const Update update = update_of(step_params, norm[0], beta1, beta2, epsilon, weight_decay, head);
        updated(params, grads, moment1, moment2, norm[0], word, width, decay_words, update);
    }
}

// The same, and the parameters' copy in the plan's precision.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) adamw_with_shadow(
    float* __restrict__ params,      // [1, width]
    const float* __restrict__ grads, // [1, width]
    float* __restrict__ moment1,     // [1, width]
    float* __restrict__ moment2,     // [1, width]
    const float* __restrict__ norm,  // [1, 1]
    Stored* __restrict__ shadow,     // [1, width]
    const StepParams* __restrict__ step_params,
    u32 width,
    u32 decay_words,
    float beta1,
    float beta2,
    float epsilon,
    float weight_decay,
    u32 head) {
    const u32 word = covered_element(4);
    if (word < width) {
        const Update update = update_of(step_params, norm[0], beta1, beta2, epsilon, weight_decay, head);
        store_range(shadow, word, width, updated(params, grads, moment1, moment2, norm[0], word, width, decay_words, update));
    }
}
