// The global norm of the gradients in two passes (src/ops/grad_norm.rs): a workgroup sums the squares of 16,384 words, one
// workgroup adds the sums. Bytes moved: every word once.

struct Constants {
    rows: u32,
    width: u32,
    blocks: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> grads: array<f32>;    // [rows, width]
@group(0) @binding(3) var<storage, read_write> partials: array<f32>; // [blocks, 1]
@group(0) @binding(4) var<storage, read_write> norm: array<f32>;     // [1, 1]

const BLOCK = 16384u;

// partials[block] = sum of squares over 16,384 words
@compute @workgroup_size(256)
fn grad_norm_partial(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let first = group.x * BLOCK;
    let end = min(first + BLOCK, constants.rows * constants.width);
    var squares = 0.0;
    for (var word = first + thread; word < end; word += 256u) {
        squares += grads[word] * grads[word];
    }
    let total = workgroup_sum(thread, squares);
    if thread == 0u {
        partials[group.x] = total;
    }
}

// norm = sqrt(sum of partials) / loss_scale
@compute @workgroup_size(256)
fn grad_norm_finish(@builtin(local_invocation_index) thread: u32) {
    var squares = 0.0;
    for (var block = thread; block < constants.blocks; block += 256u) {
        squares += partials[block];
    }
    let total = workgroup_sum(thread, squares);
    if thread == 0u {
        norm[0] = sqrt(total) * step_float(INVERSE_LOSS_SCALE);
    }
}
