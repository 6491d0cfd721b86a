//! Sectors and bank conflicts of patterns counted by hand, through the JSON by line.

mod harness;

use harness::{Arg, device};

#[test]
fn requests_are_counted_by_line() {
    let Some(device) = device() else { return };
    let source = r#"extern "C" __global__ void patterns(const float* x, float* y) {
    __shared__ float tile[32 * 33];
    const unsigned lane = threadIdx.x;
    float sum = x[lane];                                        // 4: stride 1
    sum += x[2 * lane];                                         // 5: stride 2
    sum += x[32 * lane];                                        // 6: stride 32
    const float4 quad = reinterpret_cast<const float4*>(x)[lane]; // 7: four floats
    sum += quad.x + quad.y + quad.z + quad.w;
    for (unsigned i = 0; i < 33; i += 1) {
        tile[32 * i + lane] = sum;                              // 10: stride 1, 33 times
    }
    __syncwarp();
    sum += tile[2 * lane];                                      // 13: stride 2
    sum += tile[32 * lane];                                     // 14: stride 32
    sum += tile[33 * lane];                                     // 15: padded
    sum += tile[7];                                             // 16: one word
    y[lane] = sum;                                              // 17
}
"#;
    device.control.set_counters(true);
    let kernel = device.kernel("patterns.cu", source, "patterns");
    let (x, y) = (device.floats(&[1.0; 1024]), device.floats(&[0.0; 32]));
    device.launch(&kernel, 1, 32, &[Arg::F32(&x), Arg::F32(&y)]).unwrap();
    let counters = device.control.counters();
    let kernel = &counters["patterns"];
    assert_eq!(
        (kernel["launches"].as_u64(), kernel["blocks"].as_u64()),
        (Some(1), Some(1))
    );
    let count = |line: u32, name: &str| {
        kernel["lines"][format!("patterns.cu:{line}")][name]
            .as_u64()
            .unwrap_or(0)
    };
    let global = |line| {
        (
            count(line, "global_requests"),
            count(line, "sectors"),
            count(line, "ideal_sectors"),
        )
    };
    assert_eq!(global(4), (1, 4, 4));
    assert_eq!(global(5), (1, 8, 4));
    assert_eq!(global(6), (1, 32, 4));
    assert_eq!(global(7), (1, 16, 16));
    assert_eq!(global(17), (1, 4, 4));
    let shared = |line| {
        (
            count(line, "shared_requests"),
            count(line, "wavefronts"),
            count(line, "ideal_wavefronts"),
        )
    };
    assert_eq!(shared(10), (33, 33, 33));
    assert_eq!(shared(13), (1, 2, 1));
    assert_eq!(shared(14), (1, 32, 1));
    assert_eq!(shared(15), (1, 1, 1));
    assert_eq!(shared(16), (1, 1, 1));
    assert!(count(10, "memory_instructions") >= 33 * 32);
}

#[test]
fn rows_of_matrices_conflict_unless_they_are_swizzled() {
    let Some(device) = device() else { return };
    let source = r#"extern "C" __global__ void rows(unsigned* out) {
    __shared__ __align__(16) unsigned tile[8 * 32];
    for (unsigned i = threadIdx.x; i < 256; i += 32) tile[i] = i;
    __syncwarp();
    const unsigned row = threadIdx.x % 8;
    const unsigned start = static_cast<unsigned>(__cvta_generic_to_shared(tile)) + 128 * row;
    unsigned a, b;
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(a) : "r"(start));
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(b) : "r"(start + 16 * row));
    out[threadIdx.x] = a + b;
}
"#;
    device.control.set_counters(true);
    let kernel = device.kernel("rows.cu", source, "rows");
    let out = device.words(&[0; 32]);
    device.launch(&kernel, 1, 32, &[Arg::U32(&out)]).unwrap();
    let counters = device.control.counters();
    let line = |line: u32, name: &str| counters["rows"]["lines"][format!("rows.cu:{line}")][name].as_u64();
    assert_eq!((line(8, "wavefronts"), line(8, "ideal_wavefronts")), (Some(8), Some(1)));
    assert_eq!((line(9, "wavefronts"), line(9, "ideal_wavefronts")), (Some(1), Some(1)));
}
