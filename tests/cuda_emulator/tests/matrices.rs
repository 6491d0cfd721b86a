//! Matrix instructions and asynchronous copies against layouts worked out by hand from the PTX manual.

mod harness;

use harness::{Arg, device};

/// Runs a matrix product on fragments: registers of a, b, c by lane, one after the other; those of d.
fn multiply(instruction: &str, sizes: (usize, usize, usize), a: &[u32], b: &[u32], c: &[u32]) -> Option<Vec<u32>> {
    let device = device()?;
    let (of_a, of_b, of_c) = sizes;
    let list = |from: usize, count: usize, prefix: &str| {
        let operands: Vec<String> = (from..from + count).map(|at| format!("{prefix}{at}")).collect();
        format!("{{{}}}", operands.join(", "))
    };
    let float_sums = instruction.contains(".f32.") && of_c == 4;
    let sum = if float_sums { "float" } else { "unsigned" };
    let (out, input) = if float_sums { ("=f", "f") } else { ("=r", "r") };
    let constraints = |letter: &str, name: &str, count: usize| {
        (0..count)
            .map(|at| format!("\"{letter}\"({name}[{at}])"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let source = format!(
        "extern \"C\" __global__ void product(const unsigned* pa, const unsigned* pb, const {sum}* pc, {sum}* pd) {{
    unsigned a[{of_a}], b[{of_b}];
    {sum} c[{of_c}], d[{of_c}];
    for (int i = 0; i < {of_a}; i++) a[i] = pa[threadIdx.x * {of_a} + i];
    for (int i = 0; i < {of_b}; i++) b[i] = pb[threadIdx.x * {of_b} + i];
    for (int i = 0; i < {of_c}; i++) c[i] = pc[threadIdx.x * {of_c} + i];
    asm(\"{instruction} {}, {}, {}, {};\" : {} : {}, {}, {});
    for (int i = 0; i < {of_c}; i++) pd[threadIdx.x * {of_c} + i] = d[i];
}}",
        list(0, of_c, "%"),
        list(of_c, of_a, "%"),
        list(of_c + of_a, of_b, "%"),
        list(of_c + of_a + of_b, of_c, "%"),
        constraints(out, "d", of_c),
        constraints("r", "a", of_a),
        constraints("r", "b", of_b),
        constraints(input, "c", of_c),
    );
    let kernel = device.kernel("product.cu", &source, "product");
    let (a, b, c) = (device.words(a), device.words(b), device.words(c));
    let d = device.words(&vec![0; 32 * of_c]);
    device
        .launch(
            &kernel,
            1,
            32,
            &[Arg::U32(&a), Arg::U32(&b), Arg::U32(&c), Arg::U32(&d)],
        )
        .unwrap();
    Some(device.read(&d))
}

/// Fragments that are zero but for one register of one lane.
fn one(registers: usize, lane: usize, register: usize, value: u32) -> Vec<u32> {
    let mut words = vec![0; 32 * registers];
    words[lane * registers + register] = value;
    words
}

const SIX: u32 = 0x40c0_0000;

#[test]
fn bf16_fragments_of_depth_16() {
    let instruction = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32";
    let zero = vec![0; 128];
    // a[9][3] = 2: row 9 = 8 + 1, so lanes 4 to 7 and register 1; column 3, so lane 4 + 1, the upper half.
    // b[3][6] = 3: column 6, so lanes 24 to 27; row 3, so lane 24 + 1, register 0, the upper half.
    // d[9][6] = 6: lane 4 + 3, the third of its registers.
    let a = one(4, 5, 1, 0x4000_0000);
    let b = one(2, 25, 0, 0x4040_0000);
    let Some(d) = multiply(instruction, (4, 2, 4), &a, &b, &zero) else {
        return;
    };
    assert_eq!(d, one(4, 7, 2, SIX));
    // a[2][13] = 2: lanes 8 to 11, register 2 for columns from 8; 13 - 8 = 5, so lane 8 + 2, the upper half.
    // b[13][0] = 3: lanes 0 to 3, register 1, lane 2, the upper half. d[2][0]: lane 8, register 0.
    let a = one(4, 10, 2, 0x4000_0000);
    let b = one(2, 2, 1, 0x4040_0000);
    let Some(d) = multiply(instruction, (4, 2, 4), &a, &b, &zero) else {
        return;
    };
    assert_eq!(d, one(4, 8, 0, SIX));
    // c passes through: c[15][7] is lane 31, register 3.
    let c = one(4, 31, 3, 0x3f80_0000);
    let Some(d) = multiply(instruction, (4, 2, 4), &[0; 128], &[0; 64], &c) else {
        return;
    };
    assert_eq!(d, c);
}

#[test]
fn f16_fragments_with_sums_of_both_widths() {
    let a = one(4, 10, 3, 0x0000_4000); // a[10][12] = 2: register 3 for rows and columns from 8, lane 8 + 2, lower half
    let b = one(2, 14, 1, 0x0000_4200); // b[12][3] = 3: lane 12 + 2, register 1, lower half
    let full = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32";
    let Some(d) = multiply(full, (4, 2, 4), &a, &b, &[0; 128]) else {
        return;
    };
    assert_eq!(d, one(4, 9, 3, SIX)); // d[10][3]: lane 8 + 1, the fourth register
    let half = "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16";
    let Some(d) = multiply(half, (4, 2, 2), &a, &b, &[0; 64]) else {
        return;
    };
    assert_eq!(d, one(2, 9, 1, 0x4600_0000)); // the second register's upper half
}

#[test]
fn fragments_of_depth_8() {
    let a = one(2, 5, 1, 0x4000_0000); // a[9][3] = 2
    let b = one(1, 25, 0, 0x4040_0000); // b[3][6] = 3
    let instruction = "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32";
    let Some(d) = multiply(instruction, (2, 1, 4), &a, &b, &[0; 128]) else {
        return;
    };
    assert_eq!(d, one(4, 7, 2, SIX));
    // tf32: a[9][6] = 2: row 9 and column 6 = 4 + 2: register 3, lane 4 + 2. b[6][5] = 3: lane 20 + 2, register 1.
    let a = one(4, 6, 3, 0x4000_0000);
    let b = one(2, 22, 1, 0x4040_0000);
    let instruction = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32";
    let Some(d) = multiply(instruction, (4, 2, 4), &a, &b, &[0; 128]) else {
        return;
    };
    assert_eq!(d, one(4, 6, 3, SIX)); // d[9][5]: lane 4 + 2, the fourth register
}

#[test]
fn matrices_are_loaded_by_rows_and_by_columns() {
    let Some(device) = device() else { return };
    let source = r#"
extern "C" __global__ void load(unsigned* plain, unsigned* transposed) {
    __shared__ __align__(16) unsigned short tile[4 * 64];
    for (unsigned i = threadIdx.x; i < 256; i += 32) tile[i] = i;
    __syncwarp();
    const unsigned row = static_cast<unsigned>(__cvta_generic_to_shared(&tile[8 * threadIdx.x]));
    unsigned r[4];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row));
    for (int i = 0; i < 4; i++) plain[4 * threadIdx.x + i] = r[i];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row));
    for (int i = 0; i < 4; i++) transposed[4 * threadIdx.x + i] = r[i];
}
"#;
    let kernel = device.kernel("load.cu", source, "load");
    let (plain, transposed) = (device.words(&[0; 128]), device.words(&[0; 128]));
    device
        .launch(&kernel, 1, 32, &[Arg::U32(&plain), Arg::U32(&transposed)])
        .unwrap();
    let (plain, transposed) = (device.read(&plain), device.read(&transposed));
    let pair = |low: u32, high: u32| low | high << 16;
    // Lane 5: row 1, columns 2 and 3 of each matrix; transposed: rows 2 and 3, column 1.
    assert_eq!(
        plain[20..24],
        [pair(10, 11), pair(74, 75), pair(138, 139), pair(202, 203)]
    );
    assert_eq!(
        transposed[20..24],
        [pair(17, 25), pair(81, 89), pair(145, 153), pair(209, 217)]
    );
    // Lane 31: row 7, columns 6 and 7; transposed: rows 6 and 7, column 7.
    assert_eq!(
        plain[124..128],
        [pair(62, 63), pair(126, 127), pair(190, 191), pair(254, 255)]
    );
    assert_eq!(transposed[124], pair(55, 63));
}

#[test]
fn asynchronous_copies_fill_with_zeros() {
    let Some(device) = device() else { return };
    let source = r#"
extern "C" __global__ void fill(const float* x, float* y, unsigned bytes) {
    __shared__ __align__(16) float tile[128];
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(&tile[4 * threadIdx.x]));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(to), "l"(x + 4 * threadIdx.x), "r"(bytes));
    asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_all;" ::: "memory");
    for (int i = 0; i < 4; i++) y[4 * threadIdx.x + i] = tile[4 * threadIdx.x + i];
}
"#;
    let kernel = device.kernel("fill.cu", source, "fill");
    let x: Vec<f32> = (1..=128u8).map(f32::from).collect();
    for seed in [0, 5] {
        device.control.set_seed(seed);
        let (input, output) = (device.floats(&x), device.floats(&[7.0; 128]));
        device
            .launch(&kernel, 1, 32, &[Arg::F32(&input), Arg::F32(&output), Arg::Number(8)])
            .unwrap();
        let expected: Vec<f32> = x
            .iter()
            .enumerate()
            .map(|(at, x)| if at % 4 < 2 { *x } else { 0.0 })
            .collect();
        assert_eq!(device.read(&output), expected);
    }
}
