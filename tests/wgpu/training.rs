//! Whole training steps on a WebGPU driver: beside the CPU's, repeated, resumed, on small limits.

use super::training::{STEPS, Training, beside_the_cpu, start, tiny};
use super::*;
use tlm::bert::parameters;
use tlm::plan::Limits;

#[test]
fn twenty_steps_agree_with_the_cpus_and_repeat_and_resume_bit_for_bit() {
    agrees_with_the_cpu(Precision::F32);
}

#[test]
fn twenty_steps_with_f16_storage_agree_with_the_cpus_and_repeat_and_resume_bit_for_bit() {
    agrees_with_the_cpu(Precision::F16);
}

fn agrees_with_the_cpu(precision: Precision) {
    let Some(adapter) = adapter() else { return };
    if !adapter.stores(precision) {
        println!("SKIPPED: the adapter does not store {}", precision.name());
        return;
    }
    let open = |sizes| device(&adapter, sizes);
    let (mut whole, losses) = beside_the_cpu(adapter.limits(), precision, STEPS, open);

    // Once more, half of it resumed on a device whose buffers hold neither the arena nor the update in one piece.
    let last = whole.state();
    let words = parameters(&tiny()).words();
    let small = adapter.limited(Limits {
        tensor: 1 << 20,
        buffer: words.next_multiple_of(64),
    });
    let mut first = Training::new(adapter.limits(), precision, open, &start(0.0));
    assert!(first.run(0..STEPS / 2) == losses[..10], "another run, other losses");
    let open = |sizes| device(&small, sizes);
    let mut second = Training::new(small.limits(), precision, open, &first.state());
    let arena = second.plans[0].arena_words;
    assert!(arena > small.limits().buffer, "{arena} words fit one buffer");
    assert!(
        second.plans[1].launches.len() > whole.plans[1].launches.len(),
        "the update is whole"
    );
    assert!(
        second.run(STEPS / 2..STEPS) == losses[10..],
        "after the resume, other losses"
    );
    assert!(second.state() == last, "after the resume, other weights");
}
