//! The crate's matrix products against crate `gemm` (feature `x86-v4`): GFLOP/s of both in one run.
//!
//! `cargo bench --bench gemm`. Shapes: the products of one layer of mini and small at 3,360 tokens and of the MLM head at
//! 504 masked rows. Medians of 15 runs, alternating.

mod product;

use std::time::Instant;

use product::{Shape, fill};
use tlm::ops::gemm::cpu::{multiply, multiply_here};

fn nt(name: &'static str, m: usize, n: usize, k: usize) -> (&'static str, Shape) {
    named(name, m, n, k, [k, 1], [k, 1])
}

fn nn(name: &'static str, m: usize, n: usize, k: usize) -> (&'static str, Shape) {
    named(name, m, n, k, [k, 1], [1, n])
}

fn tn(name: &'static str, m: usize, n: usize, k: usize) -> (&'static str, Shape) {
    named(name, m, n, k, [1, m], [1, n])
}

fn named(name: &'static str, m: usize, n: usize, k: usize, a: [usize; 2], b: [usize; 2]) -> (&'static str, Shape) {
    (name, Shape { m, n, k, a, b, ldc: n })
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let shapes = [
        nt("tiny qkv", 3360, 384, 128),
        tn("tiny dW ffn", 512, 128, 3360),
        nt("mini qkv", 3360, 768, 256),
        nt("mini ffn in", 3360, 1024, 256),
        nt("mini ffn out", 3360, 256, 1024),
        nn("mini d ffn in", 3360, 256, 1024),
        nn("mini d ffn out", 3360, 1024, 256),
        tn("mini dW ffn", 1024, 256, 3360),
        tn("mini dW out", 256, 256, 3360),
        nt("mlm logits 8192", 504, 8192, 256),
        nn("mlm dh 8192", 504, 256, 8192),
        tn("mlm dW 8192", 8192, 256, 504),
        nt("small ffn in", 3360, 2048, 512),
        tn("small dW ffn", 2048, 512, 3360),
        nt("mlm logits 30522", 504, 30522, 512),
        nt("attention scores", 105, 105, 64),
        nn("attention values", 105, 64, 105),
    ];
    let threads = rayon::current_num_threads();
    println!("{threads} threads; GFLOP/s, medians of 15");
    println!(
        "{:<20} {:>6} {:>6} {:>6} {:>10} {:>10} {:>7}",
        "product", "m", "n", "k", "tlm", "gemm", "ratio"
    );
    for (name, shape) in shapes {
        let Shape { m, n, k, .. } = shape;
        let (a, b) = (fill(m * k), fill(k * n));
        let (mut c, mut d) = (vec![0.0f32; m * n], vec![0.0f32; m * n]);
        let small = m * n * k < 4_000_000;
        let repeats = if small { 200 } else { 1 };
        let product = shape.ours(&a, &b);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..15 {
            let start = Instant::now();
            for _ in 0..repeats {
                if small {
                    multiply_here(&product, &mut c)
                } else {
                    multiply(&product, &mut c)
                }
            }
            ours.push(start.elapsed().as_secs_f64());
            let parallelism = if small {
                gemm::Parallelism::None
            } else {
                gemm::Parallelism::Rayon(0)
            };
            let start = Instant::now();
            for _ in 0..repeats {
                shape.theirs(&a, &b, &mut d, parallelism);
            }
            theirs.push(start.elapsed().as_secs_f64());
        }
        let worst = c
            .iter()
            .zip(&d)
            .map(|(c, d)| (c - d).abs())
            .fold(0.0f32, |most, x| most.max(x));
        assert!(worst <= 1e-5 * k as f32, "{name}: the two products differ by {worst}");
        let work = 2e-9 * (m * n * k * repeats) as f64;
        let (ours, theirs) = (work / median(&mut ours), work / median(&mut theirs));
        println!(
            "{:<20} {m:>6} {n:>6} {k:>6} {ours:>10.1} {theirs:>10.1} {:>6.2}x",
            name,
            ours / theirs
        );
    }
}
