// The step's scalars (kernel::StepParams, 32 words) and the live counts among them.
//
// They are a uniform block, so that everything that depends on them alone is the same for all threads and barriers may
// stand behind it. Bindings of every shader: 0 step_params, 1 constants, from 2 on the tensors, all read_write and named
// as in the kernel's argument table. Tensors of the plan's precision are arrays of Stored, which the host defines as f32 or
// f16; all arithmetic is f32.

@group(0) @binding(0) var<uniform> step_params: array<vec4<u32>, 8>;

// Words of step_params.
const STEP = 0u;
const SEED_LOW = 1u;
const SEED_HIGH = 2u;
const SEQUENCES = 4u;
const LEARNING_RATE = 8u;
const BIAS_CORRECTION = 9u;
const HEAD_BIAS_CORRECTION = 10u;
const CLIP_NORM = 11u;
const LOSS_SCALE = 12u;
const INVERSE_LOSS_SCALE = 13u;

// The count of a symbol whose capacity is its live count.
const FIXED = 0xffffffffu;

fn step_word(index: u32) -> u32 {
    return step_params[index / 4u][index % 4u];
}

fn step_float(index: u32) -> f32 {
    return bitcast<f32>(step_word(index));
}

// Rows of a symbol that are live in this step; count is the index of the word that counts them, start the first row
// that the tensor shows.
fn live(capacity: u32, count: u32, start: u32) -> u32 {
    if count == FIXED {
        return capacity;
    }
    let rows = step_word(count);
    return min(rows - min(rows, start), capacity);
}

// The number of a workgroup of a launch whose workgroups go on in y (kernel::workgroups).
fn workgroup_number(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

// The element of this thread in a launch of one thread an element (kernel::cover).
fn covered_element(group: vec3<u32>, groups: vec3<u32>, thread: u32) -> u32 {
    return workgroup_number(group, groups) * 256u + thread;
}
