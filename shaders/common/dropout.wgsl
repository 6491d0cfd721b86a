// Dropout: the mask is a function of seed, step, op and element, never stored (src/ops/dropout.rs, src/rng.rs).

const PHILOX_M0 = 0xD2511F53u;
const PHILOX_M1 = 0xCD9E8D57u;
const PHILOX_W0 = 0x9E3779B9u;
const PHILOX_W1 = 0xBB67AE85u;

// High word of the 64-bit product, from 16-bit halves.
fn multiply_high(a: u32, b: u32) -> u32 {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let low = a1 * b0 + ((a0 * b0) >> 16u);
    let high = a0 * b1 + (low & 0xffffu);
    return a1 * b1 + (low >> 16u) + (high >> 16u);
}

// Philox4x32 with ten rounds: four random words for a counter under a key.
fn philox4x32_10(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
    for (var round = 0u; round < 10u; round += 1u) {
        let high0 = multiply_high(PHILOX_M0, c.x);
        let high1 = multiply_high(PHILOX_M1, c.z);
        c = vec4<u32>(high1 ^ c.y ^ k.x, PHILOX_M1 * c.z, high0 ^ c.w ^ k.y, PHILOX_M0 * c.x);
        k += vec2<u32>(PHILOX_W0, PHILOX_W1);
    }
    return c;
}

// What dropout multiplies elements 4 block .. 4 block + 3 with: 0, or keep_scale = 1 / (1 - p). A threshold of 0 drops
// nothing.
fn dropout_factors(block: u32, op: u32, threshold: u32, keep_scale: f32) -> vec4<f32> {
    if threshold == 0u {
        return vec4<f32>(1.0);
    }
    let counter = vec4<u32>(block, op, step_word(STEP), 0u);
    let words = philox4x32_10(counter, vec2<u32>(step_word(SEED_LOW), step_word(SEED_HIGH)));
    return select(vec4<f32>(0.0), vec4<f32>(keep_scale), words >= vec4<u32>(threshold));
}

// The same for one element.
fn dropout_factor(element: u32, op: u32, threshold: u32, keep_scale: f32) -> f32 {
    return dropout_factors(element / 4u, op, threshold, keep_scale)[element % 4u];
}
