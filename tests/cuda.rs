//! Every CUDA kernel compiles for every supported architecture, and its signature is its kernel's table, on machines
//! without a GPU: NVRTC needs none.
//!
//! Without NVRTC the tests that need it say so and pass; `TLM_REQUIRE_NVRTC=1` makes them fail. To install it:
//! `python3 -m venv .venv && .venv/bin/pip install nvidia-cuda-nvrtc`.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::OnceLock;

use tlm::device::cuda::{Compiled, Nvrtc};
use tlm::kernel::{Access, Dims, Element, File, Kernel, Precision, Source};
use tlm::ops::REGISTRY;

/// Turing, Ampere, Ada, Hopper, Blackwell.
const ARCHITECTURES: [u32; 8] = [75, 80, 86, 89, 90, 100, 103, 120];

#[expect(
    clippy::explicit_write,
    reason = "a passing test keeps what eprintln writes to itself"
)]
fn nvrtc() -> Option<&'static Nvrtc> {
    static NVRTC: OnceLock<Option<Nvrtc>> = OnceLock::new();
    let load = || {
        let found = Nvrtc::find();
        let required = std::env::var("TLM_REQUIRE_NVRTC").is_ok_and(|value| value == "1");
        match found {
            Ok(nvrtc) => {
                println!("NVRTC {:?} from {}", nvrtc.version(), nvrtc.path());
                Some(nvrtc)
            }
            Err(error) if required => panic!("TLM_REQUIRE_NVRTC=1, but {error}"),
            Err(error) => {
                writeln!(std::io::stderr(), "SKIPPED: {error}").unwrap();
                None
            }
        }
    };
    NVRTC.get_or_init(load).as_ref()
}

fn kernels() -> impl Iterator<Item = (&'static Kernel, &'static Source)> {
    let kernels = REGISTRY.iter().flat_map(|op| op.kernels).copied();
    kernels.filter_map(|kernel| Some((kernel, kernel.cuda.as_ref()?)))
}

/// Each file once per set of defines, compiled for an architecture.
fn compile_all(nvrtc: &Nvrtc, architecture: u32) -> BTreeMap<String, Compiled> {
    let mut compiled = BTreeMap::new();
    for (_, source) in kernels() {
        for variant in source.variants {
            let key = format!("{} {variant:?}", source.file.name);
            compiled.entry(key).or_insert_with(|| {
                let result = nvrtc.compile(
                    source,
                    &source.defines(variant, &Dims::default()),
                    Precision::F32,
                    architecture,
                );
                result.unwrap_or_else(|error| panic!("sm_{architecture}: {error}"))
            });
        }
    }
    compiled
}

/// A parameter: whether it is a pointer to constant data, a pointer, or a number; and its name.
type Parameter = (String, String);

/// What the kernel's table says the parameters are.
fn expected(kernel: &Kernel) -> Vec<Parameter> {
    let pointer = |arg: &tlm::kernel::Arg| {
        let element = match arg.element {
            Element::F32 => "float",
            Element::U32 => "u32",
            Element::Stored => "float",
        };
        let constant = if arg.access == Access::In { "const " } else { "" };
        (format!("{constant}{element}*"), arg.name.to_string())
    };
    let mut parameters: Vec<Parameter> = kernel.args.iter().map(pointer).collect();
    parameters.push(("const StepParams*".to_string(), "step_params".to_string()));
    let constants = kernel
        .constants
        .iter()
        .map(|name| ("word".to_string(), name.replace('.', "_")));
    parameters.extend(constants);
    parameters
}

/// The parameters of an entry point as its source declares them.
fn declared(source: &Source, entry: &str) -> Option<Vec<Parameter>> {
    let text = source.file.text;
    let start = text.find(&format!(" {entry}("))?;
    let head = text[..start]
        .rsplit("extern \"C\" __global__ void __launch_bounds__(THREADS)")
        .next()?;
    if !head.is_empty() {
        return None;
    }
    let list = &text[start..start + text[start..].find(") {")?];
    let list: String = list[list.find('(')? + 1..]
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let parameter = |declaration: &str| {
        let words: Vec<&str> = declaration
            .split_whitespace()
            .filter(|word| *word != "__restrict__")
            .collect();
        let (name, kind) = words.split_last().expect("a parameter has a type and a name");
        let kind = kind.join(" ");
        let kind = if matches!(kind.as_str(), "u32" | "float") {
            "word".to_string()
        } else {
            kind
        };
        (kind, name.to_string())
    };
    Some(list.split(',').map(parameter).collect())
}

#[test]
fn every_signature_is_its_kernel_table() {
    for (kernel, source) in kernels() {
        for entry in source.entries {
            let declared = declared(source, entry);
            let declared = declared.unwrap_or_else(|| panic!("{}: no entry point {entry}", source.file.name));
            assert_eq!(declared, expected(kernel), "{}: {entry}", source.file.name);
        }
    }
}

/// Sizes of the parameters of an entry point in PTX, in bytes, and its `.maxntid`.
fn entry_in_ptx(ptx: &str, entry: &str) -> Option<(Vec<u32>, u32)> {
    let start = ptx.find(&format!(".entry {entry}("))?;
    let head = &ptx[start..start + ptx[start..].find('{')?];
    let (list, rest) = head.split_once(')')?;
    let sizes = list.matches(".param .").count();
    let size = |declaration: &str| match declaration.split_whitespace().next() {
        Some("u64") => 8,
        Some("u32" | "f32") => 4,
        other => panic!("{entry}: parameter of type {other:?}"),
    };
    let parameters: Vec<u32> = list.split(".param .").skip(1).map(size).collect();
    assert_eq!(parameters.len(), sizes);
    let threads = rest
        .split(".maxntid")
        .nth(1)?
        .split([',', '\n'])
        .next()?
        .trim()
        .parse()
        .ok()?;
    Some((parameters, threads))
}

#[test]
fn every_kernel_compiles_without_warnings_or_spills_for_every_architecture() {
    let Some(nvrtc) = nvrtc() else { return };
    for architecture in ARCHITECTURES {
        for (key, compiled) in compile_all(nvrtc, architecture) {
            let what = format!("{key}, sm_{architecture}");
            assert!(!compiled.log.contains("warning"), "{what}:\n{}", compiled.log);
            assert!(compiled.cubin.starts_with(b"\x7fELF"), "{what}: no machine code");
            let spills = compiled.log.lines().filter(|line| line.contains("spill stores"));
            let mut functions = 0;
            for line in spills {
                functions += 1;
                assert!(
                    line.contains(" 0 bytes spill stores, 0 bytes spill loads"),
                    "{what}: {line}"
                );
            }
            assert_eq!(
                functions,
                compiled.ptx.matches(".entry ").count(),
                "{what}: ptxas reports every kernel"
            );
        }
    }
}

#[test]
fn every_compiled_entry_point_takes_what_its_kernel_table_says() {
    let Some(nvrtc) = nvrtc() else { return };
    let compiled = compile_all(nvrtc, 80);
    for (kernel, source) in kernels() {
        for variant in source.variants {
            let ptx = &compiled[&format!("{} {variant:?}", source.file.name)].ptx;
            let pointers = vec![8; kernel.args.len() + 1];
            let words = vec![4; kernel.constants.len()];
            let parameters = [pointers, words].concat();
            for entry in source.entries {
                let found = entry_in_ptx(ptx, entry).expect("the entry point is in the PTX");
                assert_eq!(found, (parameters.clone(), variant.threads), "{entry}");
            }
        }
    }
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
