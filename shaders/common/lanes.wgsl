// Exchange between the lanes of a subgroup, for kernels that do without: SUBGROUP is 1, so nothing calls it with a mask.

// The x of the lane whose number differs by mask.
fn lane_xor(x: f32, mask: u32) -> f32 {
    return x;
}
