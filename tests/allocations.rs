//! A training step allocates nothing: everything is sized when the plans are loaded.
//!
//! One test in a file of its own: the counter is the process's allocator.

mod packed;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use packed::Packed;
use tlm::bert::{Capacity, initial_values, parameters, plans};
use tlm::device::cpu::CpuDevice;
use tlm::device::null::NullDevice;
use tlm::device::{Device, Sizes};
use tlm::hub::BertConfig;
use tlm::kernel::{Precision, StepParams};
use tlm::plan::{Limits, Space};

/// The system's allocator, which counts what it is asked for by any thread.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.realloc(start, layout, size) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// Allocations of each of some training steps, counted from the first.
fn allocations(device: &mut dyn Device, plans: [&tlm::plan::Plan; 2], batches: &[Packed]) -> Vec<u64> {
    let programs = plans.map(|plan| device.load(plan).unwrap());
    let mut readback = vec![0; plans[0].readback_words()];
    let mut counts = Vec::with_capacity(batches.len());
    for (number, batch) in (0..).zip(batches) {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let step = StepParams {
            step: number,
            learning_rate: 1e-3,
            bias_correction: 1.0,
            clip_norm: 1.0,
            ..batch.step()
        };
        batch.write(device, plans[0], &step).unwrap();
        for program in programs {
            device.run(program).unwrap();
            device.read(Space::Readback, 0, &mut readback).unwrap();
        }
        counts.push(ALLOCATIONS.load(Ordering::Relaxed) - before);
    }
    counts
}

#[test]
fn a_training_step_allocates_nothing() {
    let config = BertConfig {
        vocab_size: 500,
        hidden_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 256,
        max_position_embeddings: 64,
        labels: vec![String::new(); 3],
        ..BertConfig::default()
    };
    let params = parameters(&config);
    let capacity = Capacity {
        tokens: 512,
        sequences: 8,
        masked: 80,
        max_length: 64,
    };
    let joint = plans::batch(plans::Kind::Joint, &config, &params, &capacity, plans::Form::default()).unwrap();
    let update = plans::update(&params, &plans::Optimizer::BERT, Limits::default(), Precision::F32).unwrap();
    let sizes = Sizes::of(params.words(), true, &[&joint, &update]);
    let batches: Vec<Packed> = (0..64)
        .map(|seed| Packed::random(&[64; 8][..8 - seed as usize % 5], 500, 3, seed))
        .collect();

    let mut null = NullDevice::new(sizes);
    let counts = allocations(&mut null, [&joint, &update], &batches);
    assert_eq!(counts, vec![0; batches.len()], "null");

    let mut cpu = CpuDevice::new(sizes, 2).unwrap();
    let mut values = vec![0.0f32; params.words()];
    initial_values(&config, &params, 1, &mut values, |_| true);
    cpu.write(Space::Params, 0, bytemuck::cast_slice(&values)).unwrap();
    // On a worker, as nothing then passes through rayon's queue, which takes a block for every 63 entries from outside.
    let pool = cpu.pool();
    let counts = pool.install(|| allocations(&mut cpu, [&joint, &update], &batches));
    assert_eq!(counts, vec![0; batches.len()], "cpu");
}
