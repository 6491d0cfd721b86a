// Sums and maxima over a workgroup of 256 threads as trees: the same order, and bits, every time. The levels of SUBGROUP and
// more terms pass through workgroup memory, those below from lane to lane; SUBGROUP is 1 unless the variant exchanges
// values inside subgroups, and decides about time alone.

var<workgroup> sum_terms: array<f32, 256>;

// The sum of x over the workgroup, known to every thread. All threads must call it.
fn workgroup_sum(thread: u32, x: f32) -> f32 {
    sum_terms[thread] = x;
    for (var half = 128u; half >= SUBGROUP; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            sum_terms[thread] += sum_terms[thread + half];
        }
    }
    workgroupBarrier();
    var sum = sum_terms[thread % SUBGROUP];
    for (var half = SUBGROUP / 2u; half > 0u; half /= 2u) {
        sum += lane_xor(sum, half);
    }
    workgroupBarrier(); // the next sum may overwrite it
    return sum;
}

// The largest x of the workgroup, known to every thread. All threads must call it.
fn workgroup_max(thread: u32, x: f32) -> f32 {
    sum_terms[thread] = x;
    for (var half = 128u; half >= SUBGROUP; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            sum_terms[thread] = max(sum_terms[thread], sum_terms[thread + half]);
        }
    }
    workgroupBarrier();
    var largest = sum_terms[thread % SUBGROUP];
    for (var half = SUBGROUP / 2u; half > 0u; half /= 2u) {
        largest = max(largest, lane_xor(largest, half));
    }
    workgroupBarrier(); // the next tree may overwrite it
    return largest;
}

// Column sums: 64 columns by 4 groups, thread = group * 64 + column. The sum of x over the groups, known to every thread
// of the column. All threads must call it.
fn group_sum(thread: u32, x: f32) -> f32 {
    sum_terms[thread] = x;
    for (var half = 128u; half >= 64u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            sum_terms[thread] += sum_terms[thread + half];
        }
    }
    workgroupBarrier();
    let sum = sum_terms[thread % 64u];
    workgroupBarrier(); // the next sum may overwrite it
    return sum;
}
