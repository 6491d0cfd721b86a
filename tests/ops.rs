//! Every op on the CPU, and the registry's own consistency. The rules are those of the harness.

mod harness;
#[path = "harness/references.rs"]
mod references;

use std::collections::BTreeSet;

use harness::{Backend, walk};
use tlm::device::cpu::CpuDevice;
use tlm::device::{Device, Sizes};
use tlm::kernel::Precision;
use tlm::ops::REGISTRY;

fn cpu(sizes: Sizes, threads: usize) -> Box<dyn Device> {
    Box::new(CpuDevice::new(sizes, threads).unwrap())
}

#[test]
fn the_references_gradients_are_slopes() {
    references::compare_with_differences();
}

#[test]
fn every_op_agrees_with_its_f64_reference_on_the_cpu() {
    walk(&Backend {
        name: "cpu",
        precision: Precision::F32,
        variants: &|_| 1,
        writes_beyond: false,
        roundings: 0.0,
        configurations: &[&|sizes, _| cpu(sizes, 2), &|sizes, _| cpu(sizes, 1)],
    });
}

#[test]
fn kernel_names_and_argument_names_are_unique() {
    let mut names = BTreeSet::new();
    for kernel in REGISTRY.iter().flat_map(|op| op.kernels) {
        assert!(names.insert(kernel.name), "{} is registered twice", kernel.name);
        let args: BTreeSet<&str> = kernel.args.iter().map(|arg| arg.name).collect();
        assert_eq!(
            args.len(),
            kernel.args.len(),
            "{}: an argument name is used twice",
            kernel.name
        );
    }
}
