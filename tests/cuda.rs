//! Every CUDA kernel compiles for every supported architecture, and its signature is its kernel's table, on machines
//! without a GPU: NVRTC needs none.
//!
//! Without NVRTC the tests that need it say so and pass; `TLM_REQUIRE_NVRTC=1` makes them fail. To install it:
//! `python3 -m venv .venv && .venv/bin/pip install nvidia-cuda-nvrtc`. With `nvidia-cuda-cuobjdump` and
//! `nvidia-cuda-nvdisasm` beside it the machine code is looked at as well. `TLM_EVERY_ARCHITECTURE=1` compiles for all
//! architectures in place of one of each generation, which takes twice as long.

#[path = "cuda/report.rs"]
mod report;
#[path = "cuda/signatures.rs"]
mod signatures;
#[path = "cuda/sources.rs"]
mod sources;

use std::collections::BTreeMap;

use sources::{Program, REPORTED, architectures, compile, functions, launches, nvrtc, precisions, programs, reported};
use tlm::device::cuda::Compiled;
use tlm::kernel::{Dims, File, Precision, Product, Source};

#[test]
fn every_signature_is_its_kernel_table() {
    let mut checked = 0;
    for (kernel, source) in sources::kernels() {
        for source in sources::all_of(source) {
            for entry in source.entries {
                let declared = signatures::declared(source, entry);
                let declared = declared.unwrap_or_else(|| panic!("{}: no entry point {entry}", source.file.name));
                assert_eq!(declared, signatures::expected(kernel), "{}: {entry}", source.file.name);
                checked += 1;
            }
        }
    }
    assert!(checked > 0);
}

/// As `kernel::Product` says.
#[test]
fn the_passes_around_products_take_what_is_said_of_them() {
    let pointers: [(&str, &[(&str, &str)]); 4] = [
        (Product::ROUND_BIAS, &[("const float*", "bias"), ("Stored*", "rounded")]),
        (Product::CLEAR, &[("Stored*", "x")]),
        (Product::GELU, &[("const Stored*", "z"), ("Stored*", "a")]),
        (Product::GELU_DERIVATIVE, &[("const Stored*", "z"), ("Stored*", "dz")]),
    ];
    let of_rows = [
        ("const StepParams*", "step_params"),
        ("word", "rows"),
        ("word", "rows_count"),
        ("word", "rows_start"),
        ("word", "width"),
    ];
    let passes = sources::passes();
    assert_eq!(passes.len(), 1);
    assert_eq!(passes[0].entries, pointers.map(|(entry, _)| entry));
    for (entry, pointers) in pointers {
        let words = if entry == Product::ROUND_BIAS {
            &of_rows[4..]
        } else {
            &of_rows[..]
        };
        let expected = pointers
            .iter()
            .chain(words)
            .map(|&(kind, name)| (kind.to_owned(), name.to_owned()));
        assert_eq!(
            signatures::declared(passes[0], entry),
            Some(expected.collect()),
            "{entry}"
        );
    }
}

#[test]
fn every_op_has_cuda_kernels() {
    for kernel in tlm::ops::REGISTRY.iter().flat_map(|op| op.kernels) {
        assert!(kernel.cuda.is_some(), "{} has none", kernel.name);
    }
}

#[test]
fn every_kernel_compiles_without_warnings_or_spills_for_every_architecture() {
    let Some(nvrtc) = nvrtc() else { return };
    let (kept, others): (Vec<u32>, Vec<u32>) = architectures().iter().partition(|at| REPORTED.contains(at));
    for architecture in others {
        let of_precision = |&precision: &Precision| programs(precision, architecture);
        let programs = precisions(architecture).iter().flat_map(of_precision);
        for (what, compiled) in &compile(nvrtc, programs.collect()) {
            check_compiled(what, compiled);
        }
    }
    for architecture in kept {
        for (what, compiled) in reported(nvrtc, architecture) {
            check_compiled(what, compiled);
        }
    }
}

fn check_compiled(what: &Program, compiled: &Compiled) {
    assert!(!compiled.log.contains("warning"), "{what}:\n{}", compiled.log);
    assert!(compiled.cubin.starts_with(b"\x7fELF"), "{what}: no machine code");
    let functions = functions(&compiled.log);
    assert_eq!(
        functions.len(),
        compiled.ptx.matches(".entry ").count(),
        "{what}: ptxas reports every kernel"
    );
    for (entry, function) in functions {
        assert_eq!(
            (function.stack, function.spilled),
            (0, 0),
            "{what}: {entry} uses local memory, of which so much spills"
        );
    }
}

#[test]
fn every_compiled_entry_point_takes_what_its_kernel_table_says() {
    let Some(nvrtc) = nvrtc() else { return };
    let compiled = reported(nvrtc, 80);
    for (kernel, source) in sources::kernels() {
        let pointers = vec![8; kernel.args.len() + 1];
        let words = vec![4; kernel.constants.len()];
        let parameters = [pointers, words].concat();
        for entry in source.entries {
            let mut found = 0;
            for (program, compiled) in compiled {
                if !sources::all_of(source).any(|source| source.file.name == program.source.file.name) {
                    continue;
                }
                let takes = signatures::in_ptx(&compiled.ptx, entry).expect("the entry point is in the PTX");
                assert_eq!(
                    takes,
                    (parameters.clone(), program.variant.threads),
                    "{program}: {entry}"
                );
                found += 1;
            }
            assert!(found > 0, "{entry}");
        }
    }
}

/// CUDA's limits of a launch: blocks in x, y and z, threads of a block.
#[test]
fn every_launch_of_every_case_is_within_the_limits_of_a_grid() {
    for precision in [Precision::F32, Precision::Bf16] {
        let mut launched = BTreeMap::new();
        for launch in launches(precision) {
            let source = launch.kernel.cuda.expect("every op has CUDA kernels");
            let source = source.storing(launch.dims.precision());
            for variant in source.variants {
                let [x, y, z] = source.workgroups(launch.kernel, &launch.dims, variant);
                let what = format!("{} {}: {x} x {y} x {z}", launch.kernel.name, variant.name);
                assert!(x < 1 << 31 && y <= 65_535 && z <= 65_535, "{what}");
                assert!(variant.threads <= 1024 && variant.threads % 32 == 0, "{what}");
                let shared = source.shared_bytes(&launch.dims, variant);
                // What a block may ask for from sm_80 on; variant [0] also runs on Turing and on consumer devices.
                let most = if variant.name == source.variants[0].name {
                    64 << 10
                } else {
                    99 << 10
                };
                assert!(shared <= most, "{what}: {shared} bytes of shared memory");
                *launched.entry(launch.kernel.name).or_insert(0) += 1;
            }
        }
        for kernel in tlm::ops::REGISTRY.iter().flat_map(|op| op.kernels) {
            assert!(launched.contains_key(kernel.name), "no case launches {}", kernel.name);
        }
    }
}

#[test]
fn what_the_kernels_take_of_a_multiprocessor_is_as_committed() {
    let Some(nvrtc) = nvrtc() else { return };
    report::compare(nvrtc);
}

#[test]
fn a_mistake_is_reported_with_file_and_line() {
    let Some(nvrtc) = nvrtc() else { return };
    let file = File {
        name: "kernels/broken.cu",
        text: "#include \"common/step.cuh\"\n\n__device__ u32 f() { return missing; }\n",
    };
    let source = Source::new(file, &["f"]);
    let defines = source.defines(&source.variants[0], &Dims::default());
    let error = nvrtc
        .compile(&source, &defines, Precision::F32, 80)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("kernels/broken.cu(3)") && error.contains("missing"),
        "{error}"
    );
}

#[test]
fn heads_too_wide_for_tensor_cores_are_refused_with_a_reason() {
    let Some(nvrtc) = nvrtc() else { return };
    let kernel = sources::kernels().find(|(kernel, _)| kernel.name == "attention.forward");
    let (_, source) = kernel.expect("the registry has attention");
    let mut dims = Dims::default();
    dims.constant("head_size", 256);
    let source = source.storing(Precision::F16);
    let defines = source.defines(&source.variants[0], &dims);
    let error = nvrtc.compile(source, &defines, Precision::F16, 80).unwrap_err();
    assert!(error.to_string().contains("at most 128 columns"), "{error}");
}
