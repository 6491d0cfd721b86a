// Exchange between the lanes of a subgroup, where the adapter has it. SUBGROUP lanes that follow each other in the
// workgroup surely lie in one subgroup: the host has tried it.

// The x of the lane whose number differs by mask, which is below SUBGROUP. All lanes must call it.
fn lane_xor(x: f32, mask: u32) -> f32 {
    return subgroupShuffleXor(x, mask);
}
