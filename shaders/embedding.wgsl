// BERT's input embedding (src/ops/embedding): a workgroup a row of what is written, a thread a column. No two workgroups of
// the backward write the same row of a table: a token id has one bucket, a position one workgroup.

struct Constants {
    tokens: u32,
    tokens_count: u32,
    tokens_start: u32,
    width: u32,
    buckets: u32,
    buckets_count: u32,
    buckets_start: u32,
    bounds: u32,
    accumulate_dposition: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> ids: array<u32>;             // [tokens, 1]
@group(0) @binding(3) var<storage, read_write> positions: array<u32>;       // [tokens, 1]
@group(0) @binding(4) var<storage, read_write> word: array<f32>;            // [vocabulary, width]
@group(0) @binding(5) var<storage, read_write> position: array<f32>;        // [longest, width]
@group(0) @binding(6) var<storage, read_write> segment: array<f32>;         // [segments, width]
@group(0) @binding(7) var<storage, read_write> y: array<Stored>;            // [tokens, width]
@group(0) @binding(8) var<storage, read_write> dy: array<Stored>;           // [tokens, width]
@group(0) @binding(9) var<storage, read_write> sorted_rows: array<u32>;     // [tokens, 1]
@group(0) @binding(10) var<storage, read_write> bucket_ids: array<u32>;     // [buckets, 1]
@group(0) @binding(11) var<storage, read_write> bucket_offsets: array<u32>; // [bounds, 1]
@group(0) @binding(12) var<storage, read_write> dword: array<f32>;          // [vocabulary, width]
@group(0) @binding(13) var<storage, read_write> cu_seqlens: array<u32>;     // [bounds, 1]
@group(0) @binding(14) var<storage, read_write> dposition: array<f32>;      // [longest, width]

// y = word[id] + position[p] + segment[0]
@compute @workgroup_size(256)
fn embedding_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let token = workgroup_number(group, groups);
    if token >= live(constants.tokens, constants.tokens_count, constants.tokens_start) {
        return;
    }
    let width = constants.width;
    let id = ids[token];
    let at = positions[token];
    for (var column = thread; column < width; column += 256u) {
        y[token * width + column] = Stored(word[id * width + column] + position[at * width + column] + segment[column]);
    }
}

// dword[id] += sum of dy over the rows of the id's bucket, in their order
@compute @workgroup_size(256)
fn embedding_word_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let bucket = workgroup_number(group, groups);
    if bucket >= live(constants.buckets, constants.buckets_count, constants.buckets_start) {
        return;
    }
    let width = constants.width;
    let id = bucket_ids[bucket];
    let end = bucket_offsets[bucket + 1u];
    for (var column = thread; column < width; column += 256u) {
        var sum = dword[id * width + column];
        for (var place = bucket_offsets[bucket]; place < end; place += 1u) {
            sum += f32(dy[sorted_rows[place] * width + column]);
        }
        dword[id * width + column] = sum;
    }
}

// dposition[p] (+)= sum over the sequences longer than p
@compute @workgroup_size(256)
fn embedding_position_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let at = group.x;
    let width = constants.width;
    let sequences = min(constants.bounds - 1u, step_word(SEQUENCES));
    for (var column = thread; column < width; column += 256u) {
        var sum = 0.0;
        if constants.accumulate_dposition != 0u {
            sum = dposition[at * width + column];
        }
        for (var sequence = 0u; sequence < sequences; sequence += 1u) {
            let row = cu_seqlens[sequence] + at;
            if row < cu_seqlens[sequence + 1u] {
                sum += f32(dy[row * width + column]);
            }
        }
        dposition[at * width + column] = sum;
    }
}
