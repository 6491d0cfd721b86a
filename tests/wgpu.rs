//! Every op that has WGSL on a real WebGPU driver, and the shaders against the kernel tables without any driver.
//!
//! The adapter is the hardware one where there is one, otherwise the software driver; `TLM_WGPU_ADAPTER=<index>` picks
//! another. Without any adapter the tests that need one say so and pass; `TLM_REQUIRE_WGPU=1` makes them fail.
//! The rules are those of the harness; the two configurations are shaders with and without bounds checks: equal bits
//! mean that no kernel reads or writes outside its tensors.

mod harness;

use std::time::Instant;

use harness::{Backend, walk};
use tlm::device::wgpu::{Adapter, AdapterKind, Choice, Shader, WgpuDevice, list};
use tlm::device::{Device, Sizes};
use tlm::ops::REGISTRY;

/// The adapter to test on.
fn choice() -> Option<Choice> {
    let adapters = list();
    for info in &adapters {
        println!("adapter {info}");
    }
    if let Ok(index) = std::env::var("TLM_WGPU_ADAPTER") {
        return Some(Choice::Index(index.parse().expect("TLM_WGPU_ADAPTER is a number")));
    }
    if adapters.iter().any(|info| info.kind != AdapterKind::Software) {
        return Some(Choice::Hardware);
    }
    if !adapters.is_empty() {
        return Some(Choice::Software);
    }
    let required = std::env::var("TLM_REQUIRE_WGPU").is_ok_and(|value| value == "1");
    assert!(!required, "TLM_REQUIRE_WGPU=1, but there is no WebGPU adapter");
    println!("SKIPPED: there is no WebGPU adapter; install a Vulkan driver (Debian: mesa-vulkan-drivers)");
    None
}

fn device(adapter: &Adapter, sizes: Sizes) -> Box<dyn Device> {
    Box::new(WgpuDevice::new(adapter, sizes).unwrap())
}

#[test]
fn every_op_with_wgsl_agrees_with_its_f64_reference() {
    let Some(choice) = choice() else { return };
    let start = Instant::now();
    let (checked, unchecked) = (
        Adapter::open(choice, true).unwrap(),
        Adapter::open(choice, false).unwrap(),
    );
    println!("testing {}", checked.info());
    walk(&Backend {
        name: "wgpu",
        has: |kernel| kernel.wgsl.is_some(),
        configurations: &[&|sizes| device(&checked, sizes), &|sizes| device(&unchecked, sizes)],
    });
    println!("{:.1} s", start.elapsed().as_secs_f64());
}

#[test]
fn every_shader_agrees_with_its_kernel_table() {
    let kernels = REGISTRY.iter().flat_map(|op| op.kernels);
    for (kernel, source) in kernels.filter_map(|kernel| Some((kernel, kernel.wgsl.as_ref()?))) {
        let shader = Shader::new(source).unwrap_or_else(|error| panic!("{error}"));
        let interface = shader
            .interface(kernel, source)
            .unwrap_or_else(|error| panic!("{error}"));
        // What every adapter has by WebGPU's defaults: kernels' first variants must run everywhere.
        assert!(
            interface.args.len() <= 8,
            "{}: {} tensors",
            kernel.name,
            interface.args.len()
        );
        assert!(source.threads <= 256, "{}: {} threads", kernel.name, source.threads);
        let memory = interface.workgroup_bytes;
        assert!(memory <= 16_384, "{}: {memory} bytes of workgroup memory", kernel.name);
    }
}
