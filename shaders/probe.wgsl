// rounds times y = 0.999 y + 0.001, from x (src/ops/probe.rs): sixteen chains a thread, in registers.

struct Constants {
    rows: u32,
    width: u32,
    rounds: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> x: array<f32>; // [rows, width]
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [rows, width]

fn chain_start(element: u32, end: u32) -> vec4<f32> {
    let last = end - 1u;
    return vec4(x[min(element, last)], x[min(element + 1u, last)], x[min(element + 2u, last)], x[min(element + 3u, last)]);
}

fn chain_end(element: u32, end: u32, chain: vec4<f32>) {
    for (var i = 0u; i < 4u; i += 1u) {
        if element + i < end {
            y[element + i] = chain[i];
        }
    }
}

@compute @workgroup_size(256)
fn probe_fma(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let element = covered_element(group, groups, thread) * 16u;
    let end = constants.rows * constants.width;
    if element >= end {
        return;
    }
    let a = vec4(0.999f);
    let b = vec4(0.001f);
    var p = chain_start(element, end);
    var q = chain_start(element + 4u, end);
    var r = chain_start(element + 8u, end);
    var s = chain_start(element + 12u, end);
    for (var round = 0u; round < constants.rounds; round += 1u) {
        p = fma(p, a, b);
        q = fma(q, a, b);
        r = fma(r, a, b);
        s = fma(s, a, b);
    }
    chain_end(element, end, p);
    chain_end(element + 4u, end, q);
    chain_end(element + 8u, end, r);
    chain_end(element + 12u, end, s);
}
