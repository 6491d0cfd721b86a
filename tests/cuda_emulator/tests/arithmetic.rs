//! Arithmetic, exchanges within a warp and atomic operations, as NVRTC compiles them.

mod harness;

use harness::{Arg, device};

#[test]
fn floats_follow_ieee() {
    let Some(device) = device() else { return };
    let source = r#"
__device__ unsigned bf16(float x) {
    unsigned short h;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}
__device__ unsigned f16(float x) {
    unsigned short h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}
extern "C" __global__ void floats(const float* x, unsigned* y) {
    y[0] = __float_as_uint(fmaf(x[0], x[0], x[1]));
    y[1] = __float_as_uint(__fdiv_rn(x[2], x[3]));
    y[2] = bf16(x[4]);
    y[3] = bf16(x[5]);
    y[4] = f16(x[6]);
    y[5] = f16(x[7]);
    y[6] = __float_as_uint(fminf(x[8], x[2]));
    y[7] = __float_as_uint(fmaxf(x[2], x[8]));
    y[8] = __float_as_uint(__fsqrt_rn(x[3]));
    y[9] = __float_as_int(x[8]) == 0x7fffffff;
    y[10] = static_cast<unsigned>(x[9]);
    y[11] = static_cast<int>(x[10]);
    y[12] = __float_as_uint(__fadd_ru(x[2], x[7]));
    y[13] = __float_as_uint(static_cast<float>(static_cast<double>(x[2]) / 3.0));
    y[14] = x[8] < x[2] ? 1 : (x[8] >= x[2] ? 2 : 3);
}
"#;
    let kernel = device.kernel("floats.cu", source, "floats");
    let x = [
        1.0 + 2f32.powi(-12),
        -1.0 - 2f32.powi(-11),
        1.0,
        3.0,
        1.0 + 2f32.powi(-8),
        1.0 + 3.0 * 2f32.powi(-8),
        3.0 * 2f32.powi(-25),
        2f32.powi(-25),
        f32::from_bits(0x7fff_ffff),
        3e9,
        -2.9,
    ];
    let (input, output) = (device.floats(&x), device.words(&[0; 15]));
    device
        .launch(&kernel, 1, 1, &[Arg::F32(&input), Arg::U32(&output)])
        .unwrap();
    let expected = [
        2f32.powi(-24).to_bits(),
        (1f32 / 3.0).to_bits(),
        0x3f80,
        0x3f82,
        0x0002, // 1.5 units of the last place become 2
        0x0000, // and 0.5 become 0
        1f32.to_bits(),
        1f32.to_bits(),
        3f32.sqrt().to_bits(),
        1,
        3_000_000_000,
        (-2i32) as u32,
        (1.0 + f32::EPSILON).to_bits(),
        (1f32 / 3.0).to_bits(),
        3,
    ];
    assert_eq!(device.read(&output), expected);
}

#[test]
fn integers_of_all_widths() {
    let Some(device) = device() else { return };
    let source = r#"
extern "C" __global__ void integers(const unsigned* x, unsigned* y) {
    const unsigned a = x[0], b = x[1];
    y[0] = __umulhi(a, b);
    y[1] = __popc(a);
    y[2] = __clz(b);
    y[3] = __brev(b);
    y[4] = __ffs(b);
    y[5] = __byte_perm(a, b, 0x7531);
    y[6] = __funnelshift_l(a, b, 8);
    y[7] = static_cast<unsigned>((static_cast<unsigned long long>(a) * b + 7) / 1000003ull);
    y[8] = static_cast<int>(a) / 7;
    y[9] = static_cast<int>(a) % 7;
    y[10] = static_cast<int>(a) >> 4;
    y[11] = a / 12345u;
    unsigned low, high;
    asm("add.cc.u32 %0, %2, %3; addc.u32 %1, 5, 6;" : "=r"(low), "=r"(high) : "r"(a), "r"(b + 0x20000000u));
    y[12] = low;
    y[13] = high;
    asm("{ .reg .pred p; setp.lo.u32 p, %1, %2; selp.u32 %0, 1, 2, p; }" : "=r"(low) : "r"(a), "r"(b));
    y[14] = low;
    y[15] = (a & b) ^ (a | ~b);
    y[16] = min(static_cast<int>(a), static_cast<int>(b));
}
"#;
    let kernel = device.kernel("integers.cu", source, "integers");
    let (a, b) = (0xfedc_ba98u32, 0x0123_4560u32);
    let (input, output) = (device.words(&[a, b]), device.words(&[0; 17]));
    device
        .launch(&kernel, 1, 1, &[Arg::U32(&input), Arg::U32(&output)])
        .unwrap();
    let sum = u64::from(a) + u64::from(b + 0x2000_0000);
    let expected = [
        ((u64::from(a) * u64::from(b)) >> 32) as u32,
        a.count_ones(),
        b.leading_zeros(),
        b.reverse_bits(),
        b.trailing_zeros() + 1,
        u32::from_le_bytes([0xba, 0xfe, 0x45, 0x01]),
        (b << 8) | (a >> 24),
        ((u64::from(a) * u64::from(b) + 7) / 1_000_003) as u32,
        (a as i32 / 7) as u32,
        (a as i32 % 7) as u32,
        (a as i32 >> 4) as u32,
        a / 12345,
        sum as u32,
        11 + (sum >> 32) as u32,
        2,
        (a & b) ^ (a | !b),
        (a as i32).min(b as i32) as u32,
    ];
    assert_eq!(device.read(&output), expected);
}

#[test]
fn lanes_exchange_values() {
    let Some(device) = device() else { return };
    let source = r#"
extern "C" __global__ void lanes(unsigned* y) {
    const unsigned lane = threadIdx.x;
    unsigned* out = y + 12 * lane;
    out[0] = __shfl_sync(0xffffffffu, 100 + lane, 3);
    out[1] = __shfl_up_sync(0xffffffffu, 100 + lane, 2);
    out[2] = __shfl_down_sync(0xffffffffu, 100 + lane, 2, 8);
    out[3] = __shfl_xor_sync(0xffffffffu, 100 + lane, 5);
    out[4] = __ballot_sync(0xffffffffu, lane % 3 == 0);
    out[5] = __any_sync(0xffffffffu, lane == 31) + 2 * __all_sync(0xffffffffu, lane < 31);
    out[6] = __match_any_sync(0xffffffffu, lane / 8);
    out[7] = __reduce_add_sync(0xffffffffu, lane);
    const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    out[8] = __shfl_xor_sync(half, lane, 1);
    unsigned sum = 0;
    if (lane % 2 == 1) {
        sum = __reduce_max_sync(0xaaaaaaaau, lane);
    }
    out[9] = sum;
    out[10] = __shfl_sync(0xffffffffu, lane, lane + 1);
    out[11] = __activemask();
}
"#;
    let kernel = device.kernel("lanes.cu", source, "lanes");
    for seed in [0, 3, 9] {
        device.control.set_seed(seed);
        let output = device.words(&[0; 12 * 32]);
        device.launch(&kernel, 1, 32, &[Arg::U32(&output)]).unwrap();
        let output = device.read(&output);
        for lane in 0..32u32 {
            let down = if lane % 8 < 6 { lane + 2 } else { lane };
            let expected = [
                103,
                100 + if lane < 2 { lane } else { lane - 2 },
                100 + down,
                100 + (lane ^ 5),
                0x4924_9249,
                1,
                0xff << (8 * (lane / 8)),
                496,
                lane ^ 1,
                if lane % 2 == 1 { 31 } else { 0 },
                (lane + 1) % 32,
                u32::MAX,
            ];
            assert_eq!(
                output[12 * lane as usize..][..11],
                expected[..11],
                "lane {lane}, seed {seed}"
            );
        }
    }
}

#[test]
fn atomic_operations_lose_nothing() {
    let Some(device) = device() else { return };
    let source = r#"
extern "C" __global__ void atomics(unsigned* y, float* f) {
    __shared__ unsigned local;
    if (threadIdx.x == 0) local = 0;
    __syncthreads();
    atomicAdd(&local, threadIdx.x);
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(&y[0], local);
    atomicMax(&y[1], blockIdx.x * blockDim.x + threadIdx.x);
    atomicMin(reinterpret_cast<int*>(&y[2]), -static_cast<int>(threadIdx.x));
    atomicOr(&y[3], 1u << (threadIdx.x % 32));
    atomicInc(&y[4], 99);
    atomicCAS(&y[5], 0, 7);
    atomicAdd(f, 0.5f);
    atomicAdd(reinterpret_cast<unsigned long long*>(&y[6]), 0x100000001ull);
}
"#;
    let kernel = device.kernel("atomics.cu", source, "atomics");
    let (words, sum) = (device.words(&[0; 8]), device.floats(&[0.0]));
    device
        .launch(&kernel, 4, 64, &[Arg::U32(&words), Arg::F32(&sum)])
        .unwrap();
    let minimum = (-63i32) as u32;
    assert_eq!(
        device.read(&words),
        [4 * 2016, 255, minimum, u32::MAX, 256 % 100, 7, 256, 256]
    );
    assert_eq!(device.read(&sum), [128.0]);
}

#[test]
fn producers_arrive_at_a_barrier_that_consumers_wait_at() {
    let Some(device) = device() else { return };
    let source = r#"
extern "C" __global__ void pipe(const float* x, float* y, unsigned rounds) {
    __shared__ float tile[64];
    const unsigned at = threadIdx.x % 64;
    for (unsigned round = 0; round < rounds; round += 1) {
        if (threadIdx.x < 64) {
            asm volatile("bar.sync 2, 128;" ::: "memory");
            tile[at] = x[at] + static_cast<float>(round);
            asm volatile("bar.arrive 1, 128;" ::: "memory");
        } else {
            asm volatile("bar.arrive 2, 128;" ::: "memory");
            asm volatile("bar.sync 1, 128;" ::: "memory");
            y[64 * round + at] = tile[63 - at];
        }
    }
}
"#;
    let kernel = device.kernel("pipe.cu", source, "pipe");
    let x: Vec<f32> = (0..64u8).map(f32::from).collect();
    for seed in [0, 1, 2, 3] {
        device.control.set_seed(seed);
        let (input, output) = (device.floats(&x), device.floats(&[0.0; 192]));
        device
            .launch(&kernel, 1, 128, &[Arg::F32(&input), Arg::F32(&output), Arg::Number(3)])
            .unwrap();
        let expected: Vec<f32> = (0..192usize).map(|at| (63 - at % 64 + at / 64) as f32).collect();
        assert_eq!(device.read(&output), expected, "seed {seed}");
    }
}

#[test]
fn functions_local_arrays_and_constants() {
    let Some(device) = device() else { return };
    let source = r#"
__constant__ float table[4] = {1.0f, 2.0f, 4.0f, 8.0f};
__device__ unsigned counter = 40;
struct Pair { float a; int b; };
__device__ __noinline__ Pair twice(Pair p, float by) {
    Pair r = {p.a * by, p.b * 2};
    if (p.b > 10) {
        return r;
    }
    r.a += 1.0f;
    return r;
}
extern __shared__ float dynamic[];
extern "C" __global__ void things(float* y, int n) {
    float array[8];
    for (int i = 0; i < 8; i++) array[i] = static_cast<float>(i * i);
    array[n & 7] = table[n & 3];
    float sum = 0.0f;
    for (int i = 0; i < n; i++) sum += array[i & 7];
    const Pair pair = twice({sum, static_cast<int>(threadIdx.x)}, 2.0f);
    dynamic[threadIdx.x] = pair.a;
    const int odd = __syncthreads_count(threadIdx.x % 2);
    switch (threadIdx.x % 4) {
        case 0: sum = 10.0f; break;
        case 1: sum = 20.0f; break;
        case 2: sum = dynamic[threadIdx.x ^ 1]; break;
        default: sum = static_cast<float>(atomicAdd(&counter, 1u) >= 40u);
    }
    y[threadIdx.x] = sum + static_cast<float>(pair.b + odd);
}
"#;
    let kernel = device.kernel("things.cu", source, "things");
    let y = device.floats(&[0.0; 64]);
    device
        .launch_shared(&kernel, (1, 1, 1), 64, 256, &[Arg::F32(&y), Arg::Number(9)])
        .unwrap();
    // array = 0, 2, 4, 9, 16, 25, 36, 49, and the first again
    let sum = 141.0f32;
    let expected: Vec<f32> = (0..64u32)
        .map(|thread| {
            let other = thread ^ 1;
            let value = match thread % 4 {
                0 => 10.0,
                1 => 20.0,
                2 => 2.0 * sum + if other > 10 { 0.0 } else { 1.0 },
                _ => 1.0,
            };
            value + (2 * thread + 32) as f32
        })
        .collect();
    assert_eq!(device.read(&y), expected);
}
