//! The project's kernels, compiled by NVRTC, run by the emulator without a finding, against plain f64.

mod harness;

use cudarc::driver::{CudaFunction, CudaSlice, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use harness::{Device, compile, device, workspace};

/// What a symbol's count is when all its rows are live.
const FIXED: u32 = 0xffff_ffff;

/// A kernel of a file of the project, as the crate compiles it for f32.
fn kernel(device: &Device, file: &str, entry: &str) -> CudaFunction {
    let source = std::fs::read_to_string(workspace().join("kernels").join(file)).unwrap();
    let defines = [
        ("THREADS", "256"),
        ("STORED", "f32"),
        ("TILE_ROWS", "64"),
        ("TILE_COLUMNS", "64"),
    ];
    let ptx = compile(&format!("kernels/{file}"), &source, &defines);
    let module = device
        .context
        .load_module(Ptx::from_src(ptx))
        .unwrap_or_else(|error| panic!("{file}: {error}"));
    module.load_function(entry).unwrap()
}

/// Launches with slices, the step's parameters and numbers.
fn launch(device: &Device, kernel: &CudaFunction, grid: (u32, u32), slices: &[&CudaSlice<f32>], numbers: &[u32]) {
    let step = device.words(&[0; 32]);
    let mut builder = device.stream.launch_builder(kernel);
    for slice in slices {
        builder.arg(*slice);
    }
    builder.arg(&step);
    for number in numbers {
        builder.arg(number);
    }
    let config = LaunchConfig {
        grid_dim: (grid.0, grid.1, 1),
        block_dim: (256, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: the emulator checks every access.
    unsafe { builder.launch(config) }.unwrap();
    device.stream.synchronize().unwrap();
    assert_eq!(device.control.findings(), Vec::<String>::new());
}

/// Numbers between -1 and 1.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(
            error <= tolerance * (1.0 + expected.abs()),
            "{at}: {found} and {expected}"
        );
    }
}

#[test]
fn copies_and_sums_of_columns() {
    let Some(device) = device() else { return };
    let (rows, width) = (130u32, 70u32);
    let x = noise((rows * width) as usize, 1);
    let (input, output) = (device.floats(&x), device.floats(&noise(x.len(), 2)));
    let copy = kernel(&device, "copy.cu", "copy");
    launch(
        &device,
        &copy,
        ((rows * width).div_ceil(256), 1),
        &[&input, &output],
        &[rows, FIXED, 0, width, 0],
    );
    assert_eq!(device.read(&output), x);

    let blocks = rows.div_ceil(64);
    let partials = device.floats(&vec![0.0; (blocks * width) as usize]);
    let sums = device.floats(&vec![0.0; width as usize]);
    let partial = kernel(&device, "bias_grad.cu", "bias_grad_partial");
    launch(
        &device,
        &partial,
        (width.div_ceil(64), blocks),
        &[&input, &partials],
        &[rows, FIXED, 0, width],
    );
    let finish = kernel(&device, "bias_grad.cu", "bias_grad_finish");
    launch(
        &device,
        &finish,
        (width.div_ceil(64), 1),
        &[&partials, &sums],
        &[blocks, width, 0],
    );
    let column = |column: u32| {
        (0..rows)
            .map(|row| f64::from(x[(row * width + column) as usize]))
            .sum::<f64>()
    };
    let expected: Vec<f64> = (0..width).map(column).collect();
    assert_close(&device.read(&sums), &expected, 1e-5);
}

#[test]
fn layer_norm_forward_normalises_rows() {
    let Some(device) = device() else { return };
    let (rows, width, epsilon) = (9u32, 300u32, 1e-5f32);
    let (s, gamma, beta) = (noise(rows as usize * 300, 3), noise(300, 4), noise(300, 5));
    let inputs = [device.floats(&s), device.floats(&gamma), device.floats(&beta)];
    let (y, stats) = (
        device.floats(&vec![0.0; s.len()]),
        device.floats(&vec![0.0; 2 * rows as usize]),
    );
    let forward = kernel(&device, "layer_norm.cu", "layer_norm_forward");
    let numbers = [rows, FIXED, 0, width, epsilon.to_bits(), 0, 1f32.to_bits(), 0];
    launch(
        &device,
        &forward,
        (rows, 1),
        &[&inputs[0], &inputs[1], &inputs[2], &y, &stats],
        &numbers,
    );
    let mut expected = Vec::new();
    for row in s.chunks(width as usize) {
        let count = f64::from(width);
        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
        let rstd = 1.0 / (variance + f64::from(epsilon)).sqrt();
        for (at, x) in row.iter().enumerate() {
            expected.push((f64::from(*x) - mean) * rstd * f64::from(gamma[at]) + f64::from(beta[at]));
        }
    }
    assert_close(&device.read(&y), &expected, 1e-5);
}

#[test]
fn products_of_matrices() {
    let Some(device) = device() else { return };
    let (m, n, k) = (100usize, 70usize, 50usize);
    let (x, w, b) = (noise(m * k, 6), noise(n * k, 7), noise(n, 8));
    let inputs = [device.floats(&x), device.floats(&w), device.floats(&b)];
    let y = device.floats(&vec![0.0; m * n]);
    let forward = kernel(&device, "gemm.cu", "gemm_forward");
    let numbers = [m as u32, FIXED, 0, n as u32, k as u32];
    let grid = |rows: usize, columns: usize| (columns.div_ceil(64) as u32, rows.div_ceil(64) as u32);
    launch(
        &device,
        &forward,
        grid(m, n),
        &[&inputs[0], &inputs[1], &inputs[2], &y],
        &numbers,
    );
    let dot = |left: &dyn Fn(usize) -> f32, right: &dyn Fn(usize) -> f32, depth: usize| {
        (0..depth)
            .map(|at| f64::from(left(at)) * f64::from(right(at)))
            .sum::<f64>()
    };
    let mut expected = Vec::new();
    for row in 0..m {
        for column in 0..n {
            let sum = dot(&|at| x[row * k + at], &|at| w[column * k + at], k);
            expected.push(sum + f64::from(b[column]));
        }
    }
    assert_close(&device.read(&y), &expected, 1e-5);

    let dw = device.floats(&vec![0.0; n * k]);
    let weight = kernel(&device, "gemm.cu", "gemm_backward_weight");
    let numbers = [m as u32, FIXED, 0, n as u32, k as u32, 0];
    let dy = noise(m * n, 9);
    let upstream = device.floats(&dy);
    launch(&device, &weight, grid(n, k), &[&upstream, &inputs[0], &dw], &numbers);
    let mut expected = Vec::new();
    for row in 0..n {
        for column in 0..k {
            expected.push(dot(&|at| dy[at * n + row], &|at| x[at * k + column], m));
        }
    }
    assert_close(&device.read(&dw), &expected, 1e-5);
}

#[test]
fn gelu_backward_is_the_derivative() {
    let Some(device) = device() else { return };
    let z: Vec<f32> = noise(500, 10).iter().map(|x| 3.0 * x).collect();
    let da = noise(500, 11);
    let (upstream, input, dz) = (device.floats(&da), device.floats(&z), device.floats(&[0.0; 500]));
    let backward = kernel(&device, "gelu.cu", "gelu_backward");
    launch(
        &device,
        &backward,
        (2, 1),
        &[&upstream, &input, &dz],
        &[5, FIXED, 0, 100],
    );
    // Central differences of x Phi(x), Phi by integration of the density.
    let phi = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let normal = |x: f64| {
        let steps = 2000;
        let width = x / f64::from(steps);
        let at = |step: i32| phi(f64::from(step) * width);
        let inner: f64 = (1..steps)
            .map(|step| if step % 2 == 1 { 4.0 * at(step) } else { 2.0 * at(step) })
            .sum();
        0.5 + width / 3.0 * (at(0) + inner + at(steps))
    };
    let expected = z.iter().zip(&da).map(|(z, da)| {
        let z = f64::from(*z);
        f64::from(*da) * (normal(z) + z * phi(z))
    });
    assert_close(&device.read(&dz), &expected.collect::<Vec<f64>>(), 1e-5);
}

/// Seconds of all processors that this process has used.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

/// Speed, in instructions of threads; printed, and only held against what would make tests take minutes.
#[test]
fn interpreting_is_fast_enough_for_tests() {
    let Some(device) = device() else { return };
    let n = 256usize;
    let (x, w, b) = (noise(n * n, 12), noise(n * n, 13), noise(n, 14));
    let inputs = [device.floats(&x), device.floats(&w), device.floats(&b)];
    let y = device.floats(&vec![0.0; n * n]);
    let forward = kernel(&device, "gemm.cu", "gemm_forward");
    let normalise = kernel(&device, "layer_norm.cu", "layer_norm_forward");
    let stats = device.floats(&vec![0.0; 2 * n]);
    let mut slowest = f64::INFINITY;
    for checked in [true, false] {
        device.control.set_checked(checked);
        for name in ["gemm_forward", "layer_norm_forward"] {
            device.control.reset();
            let (start, processors) = (std::time::Instant::now(), processor_seconds());
            for _ in 0..4 {
                if name == "gemm_forward" {
                    let numbers = [n as u32, FIXED, 0, n as u32, n as u32];
                    launch(
                        &device,
                        &forward,
                        (4, 4),
                        &[&inputs[0], &inputs[1], &inputs[2], &y],
                        &numbers,
                    );
                } else {
                    let numbers = [n as u32, FIXED, 0, n as u32, 1e-5f32.to_bits(), 0, 1f32.to_bits(), 0];
                    let slices = [&inputs[0], &inputs[2], &inputs[2], &y, &stats];
                    launch(&device, &normalise, (n as u32, 1), &slices, &numbers);
                }
            }
            let seconds = start.elapsed().as_secs_f64();
            let counters = device.control.counters();
            let classes = counters[name]["instructions"].as_object().unwrap().values();
            let instructions: u64 = classes.map(|count| count.as_u64().unwrap()).sum();
            let speed = instructions as f64 / seconds / 1e6;
            let of_a_core = instructions as f64 / (processor_seconds() - processors) / 1e6;
            println!("{name}, checked {checked}: {speed:.0} M instructions of threads a second, {of_a_core:.0} a core");
            slowest = slowest.min(speed);
        }
    }
    assert!(slowest > 5.0, "{slowest} M/s");
}
