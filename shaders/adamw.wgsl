// AdamW over a range of the flat buffers (src/ops/adamw.rs), a thread a word. Bytes moved: params and both moments in and
// out, grads in, the parameters' copy out. Nothing changes when the norm is not finite.

struct Constants {
    width: u32,
    decay_words: u32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    weight_decay: f32,
    head: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> params: array<f32>;    // [1, width]
@group(0) @binding(3) var<storage, read_write> grads: array<f32>;     // [1, width]
@group(0) @binding(4) var<storage, read_write> moment1: array<f32>;   // [1, width]
@group(0) @binding(5) var<storage, read_write> moment2: array<f32>;   // [1, width]
@group(0) @binding(6) var<storage, read_write> norm: array<f32>;      // [1, 1]
@group(0) @binding(7) var<storage, read_write> shadow: array<Stored>; // [1, width]

// All bits of the exponent: an infinity or a NaN, which a shader may assume not to meet in arithmetic.
const EXPONENT = 0x7f800000u;

// Updates a word's parameter and moments.
fn update(word: u32) {
    if (bitcast<u32>(norm[0]) & EXPONENT) == EXPONENT {
        return;
    }
    var clip = 1.0;
    if (step_word(CLIP_NORM) & EXPONENT) != EXPONENT && norm[0] > step_float(CLIP_NORM) {
        clip = step_float(CLIP_NORM) / norm[0];
    }
    let learning_rate = step_float(LEARNING_RATE);
    let correction = step_float(select(BIAS_CORRECTION, HEAD_BIAS_CORRECTION, constants.head != 0u));
    let decay = select(0.0, learning_rate * constants.weight_decay, word < constants.decay_words);

    let g = grads[word] * (clip * step_float(INVERSE_LOSS_SCALE));
    let m = constants.beta1 * moment1[word] + (1.0 - constants.beta1) * g;
    let v = constants.beta2 * moment2[word] + (1.0 - constants.beta2) * (g * g);
    let p = params[word] - learning_rate * correction * m / (sqrt(v) + constants.epsilon);
    moment1[word] = m;
    moment2[word] = v;
    params[word] = p - decay * p;
}

@compute @workgroup_size(256)
fn adamw(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let word = covered_element(group, groups, thread);
    if word < constants.width {
        update(word);
    }
}

// The same, and the parameter's copy in the plan's precision.
@compute @workgroup_size(256)
fn adamw_with_shadow(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let word = covered_element(group, groups, thread);
    if word < constants.width {
        update(word);
        shadow[word] = Stored(params[word]);
    }
}
