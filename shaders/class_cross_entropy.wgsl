// Softmax and cross entropy over a few classes (src/ops/class_cross_entropy.rs), a thread a row.

struct Constants {
    rows: u32,
    rows_count: u32,
    rows_start: u32,
    classes: u32,
    accumulate_dlogits: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> logits: array<Stored>;  // [rows, classes]
@group(0) @binding(3) var<storage, read_write> labels: array<u32>;     // [rows, 1]
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;     // [rows, 1]
@group(0) @binding(5) var<storage, read_write> weights: array<f32>;    // [rows, 1]
@group(0) @binding(6) var<storage, read_write> dlogits: array<Stored>; // [rows, classes]

// Largest logit of a row and the sum of exp(z - most).
struct Softmax {
    most: f32,
    sum: f32,
}

fn live_rows() -> u32 {
    return live(constants.rows, constants.rows_count, constants.rows_start);
}

fn softmax(row: u32) -> Softmax {
    let first = row * constants.classes;
    var most = f32(logits[first]);
    for (var column = 1u; column < constants.classes; column += 1u) {
        most = max(most, f32(logits[first + column]));
    }
    var sum = 0.0;
    for (var column = 0u; column < constants.classes; column += 1u) {
        sum += exp_f32(f32(logits[first + column]) - most);
    }
    return Softmax(most, sum);
}

// losses = log sum exp(logits) - logits[label]
@compute @workgroup_size(256)
fn class_cross_entropy_loss(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if row >= live_rows() {
        return;
    }
    let s = softmax(row);
    losses[row] = log_f32(s.sum) - (f32(logits[row * constants.classes + labels[row]]) - s.most);
}

// dlogits (+)= weight loss_scale (softmax(logits) - onehot(label))
@compute @workgroup_size(256)
fn class_cross_entropy_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if row >= live_rows() {
        return;
    }
    let s = softmax(row);
    let weight = weights[row] * step_float(LOSS_SCALE);
    for (var column = 0u; column < constants.classes; column += 1u) {
        let element = row * constants.classes + column;
        let d = exp_f32(f32(logits[element]) - s.most) * (weight / s.sum) - select(0.0, weight, column == labels[row]);
        if constants.accumulate_dlogits != 0u {
            dlogits[element] = Stored(f32(dlogits[element]) + d);
        } else {
            dlogits[element] = Stored(d);
        }
    }
}
