// The masked language model's loss of rows of logits (src/ops/masked_cross_entropy), a workgroup a row.
//
// A thread takes every 256th column. One pass finds the largest logit and the sum of exponentials together, scaling the sum
// down when a larger logit comes; a second one writes the gradient. Bytes moved: the row twice in (from L2 the second
// time) and once out.

struct Constants {
    rows: u32,
    rows_count: u32,
    rows_start: u32,
    classes: u32,
    train: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> logits: array<Stored>; // [rows, classes]
@group(0) @binding(3) var<storage, read_write> labels: array<u32>;    // [rows, 1]
@group(0) @binding(4) var<storage, read_write> weights: array<f32>;   // [rows, 1]
@group(0) @binding(5) var<storage, read_write> losses: array<f32>;    // [rows, 1]

const LOWEST = -3.4028235e38;

// losses = log sum exp(logits) - logits[label]; with train, logits = weight loss_scale (softmax(logits) - onehot(label))
@compute @workgroup_size(256)
fn masked_cross_entropy_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = workgroup_number(group, groups);
    if row >= live(constants.rows, constants.rows_count, constants.rows_start) {
        return;
    }
    let classes = constants.classes;
    let first = row * classes;
    var own_most = LOWEST;
    var own_sum = 0.0;
    for (var column = thread; column < classes; column += 256u) {
        let z = f32(logits[first + column]);
        if z > own_most {
            own_sum = own_sum * exp_f32(own_most - z) + 1.0;
            own_most = z;
        } else {
            own_sum += exp_f32(z - own_most);
        }
    }
    let most = workgroup_max(thread, own_most);
    let sum = workgroup_sum(thread, own_sum * exp_f32(own_most - most));

    // Every thread reads and writes its own columns only, the label's as well.
    let label = labels[row];
    if thread == label % 256u {
        losses[row] = log_f32(sum) - (f32(logits[first + label]) - most);
    }
    if constants.train == 0u {
        return;
    }
    let weight = weights[row] * step_float(LOSS_SCALE);
    let scale = weight / sum;
    for (var column = thread; column < classes; column += 256u) {
        let p = exp_f32(f32(logits[first + column]) - most) * scale;
        logits[first + column] = Stored(p - select(0.0, weight, column == label));
    }
}
