//! The registry's CUDA programs: each file with each of its sets of defines, at sizes that models have.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::sync::OnceLock;

use rayon::prelude::*;
use tlm::device::cuda::{Compiled, Nvrtc};
use tlm::kernel::{Dims, Element, Kernel, Precision, Source, Variant};
use tlm::ops::REGISTRY;
use tlm::plan::Launch;

#[path = "../harness/plan.rs"]
#[expect(dead_code, reason = "the harness also runs plans")]
mod plan;

/// Turing, Ampere, Ada, Hopper, Blackwell.
const ARCHITECTURES: [u32; 8] = [75, 80, 86, 89, 90, 100, 103, 120];

/// One of each generation, and with `TLM_EVERY_ARCHITECTURE=1` all.
pub fn architectures() -> &'static [u32] {
    if std::env::var("TLM_EVERY_ARCHITECTURE").is_ok_and(|value| value == "1") {
        return &ARCHITECTURES;
    }
    skip("sm_86, sm_89, sm_100 and sm_103; TLM_EVERY_ARCHITECTURE=1 compiles for them as well");
    &[75, 80, 90, 120]
}

/// What an architecture's kernels can store: Turing's tensor cores do not know bf16.
pub fn precisions(architecture: u32) -> &'static [Precision] {
    match architecture {
        75 => &[Precision::F32, Precision::F16],
        _ => &[Precision::F32, Precision::F16, Precision::Bf16],
    }
}

/// Architectures of which the programs are kept: those of the committed table.
pub const REPORTED: [u32; 2] = [80, 90];

/// Values of what is compiled in, the usual one first: heads of 64, 32 and 128 columns; rows of a base model, rows that take a
/// block and rows that are not aligned.
const COMPILED: [(&str, &[u32]); 2] = [("head_size", &[64, 32, 128]), ("width", &[768, 2048, 130])];

#[expect(
    clippy::explicit_write,
    reason = "a passing test keeps what eprintln writes to itself"
)]
pub fn skip(what: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {what}").unwrap();
}

/// The compiler, if it is there.
pub fn nvrtc() -> Option<&'static Nvrtc> {
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
                skip(&error.to_string());
                None
            }
        }
    };
    NVRTC.get_or_init(load).as_ref()
}

/// Kernels with their CUDA sources.
pub fn kernels() -> impl Iterator<Item = (&'static Kernel, &'static Source)> {
    let kernels = REGISTRY.iter().flat_map(|op| op.kernels).copied();
    kernels.filter_map(|kernel| Some((kernel, kernel.cuda.as_ref()?)))
}

/// The passes around the products of the vendor's library, each source once.
pub fn passes() -> Vec<&'static Source> {
    let mut passes: Vec<&'static Source> = Vec::new();
    for product in kernels().filter_map(|(_, source)| source.product) {
        if passes.iter().all(|source| source.file.name != product.around.file.name) {
            passes.push(product.around);
        }
    }
    passes
}

/// A source and the other program that it has for elements of two bytes.
pub fn all_of(source: &'static Source) -> impl Iterator<Item = &'static Source> {
    [Some(source), source.half].into_iter().flatten()
}

/// A file with everything that is defined before it.
pub struct Program {
    pub source: &'static Source,
    pub variant: &'static Variant,
    pub dims: Dims,
    pub defines: Vec<(String, u32)>,
    pub precision: Precision,
    pub architecture: u32,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, precision) = (self.source.file.name, self.precision.name());
        write!(f, "{file} ({}", self.variant.name)?;
        for name in self.source.compiled {
            write!(f, ", {name} {}", self.dims.word(name))?;
        }
        write!(f, "), {precision}, sm_{}", self.architecture)
    }
}

/// Every program of one precision and architecture once, whichever kernels share it. Launches that store nothing are f32's
/// in plans of any precision.
pub fn programs(precision: Precision, architecture: u32) -> Vec<Program> {
    let stores = |kernel: &Kernel| kernel.args.iter().any(|arg| arg.element == Element::Stored);
    let mut programs = BTreeMap::new();
    let launched = kernels().filter(|(kernel, _)| precision == Precision::F32 || stores(kernel));
    for source in launched.map(|(_, source)| source.storing(precision)).chain(passes()) {
        let sizes = |variant| sizes(source, architecture).map(move |dims| (variant, dims));
        for (variant, dims) in source.variants.iter().flat_map(sizes) {
            let defines = source.defines(variant, &dims);
            let program = Program {
                source,
                variant,
                dims,
                defines: defines.clone(),
                precision,
                architecture,
            };
            programs.entry((source.file.name, defines)).or_insert(program);
        }
    }
    programs.into_values().collect()
}

/// The sizes at which a source is compiled: all for the architectures of the table, the usual one for the others.
fn sizes(source: &Source, architecture: u32) -> impl Iterator<Item = Dims> {
    let values: &[u32] = match source.compiled {
        [] => &[0],
        [name] => {
            COMPILED
                .iter()
                .find(|(compiled, _)| compiled == name)
                .expect("a list of values")
                .1
        }
        _ => panic!("{}: more than one value is compiled in", source.file.name),
    };
    let values = if REPORTED.contains(&architecture) {
        values
    } else {
        &values[..1]
    };
    let compiled = source.compiled;
    values.iter().map(move |&value| {
        let mut dims = Dims::default();
        if let [name] = compiled {
            dims.constant(name, value);
        }
        dims
    })
}

/// Compiles programs side by side.
pub fn compile(nvrtc: &Nvrtc, programs: Vec<Program>) -> Vec<(Program, Compiled)> {
    let compile = |program: Program| {
        let compiled = nvrtc.compile(
            program.source,
            &program.defines,
            program.precision,
            program.architecture,
        );
        let compiled = compiled.unwrap_or_else(|error| panic!("{program}: {error}"));
        (program, compiled)
    };
    programs.into_par_iter().map(compile).collect()
}

/// All programs of an architecture of the committed table, compiled once for all tests.
pub fn reported(nvrtc: &Nvrtc, architecture: u32) -> &'static [(Program, Compiled)] {
    static COMPILED: [OnceLock<Vec<(Program, Compiled)>>; 2] = [const { OnceLock::new() }; 2];
    let at = REPORTED.iter().position(|&reported| reported == architecture);
    COMPILED[at.expect("it is reported")].get_or_init(|| {
        let of_precision = |&precision: &Precision| programs(precision, architecture);
        compile(nvrtc, precisions(architecture).iter().flat_map(of_precision).collect())
    })
}

/// What ptxas says about an entry point.
#[derive(Clone, Copy, Debug, Default)]
pub struct Function {
    pub registers: u32,
    pub shared: u32,
    pub spilled: u32,
    /// Bytes of local memory of a thread: spills, and arrays that are indexed at run time.
    pub stack: u32,
}

/// ptxas's account by entry point.
pub fn functions(log: &str) -> BTreeMap<String, Function> {
    let mut functions: BTreeMap<String, Function> = BTreeMap::new();
    let mut current = String::new();
    let number = |line: &str, before: &str| -> Option<u32> {
        let end = line.find(before)?;
        line[..end]
            .rsplit([' ', ','])
            .find(|word| !word.is_empty())?
            .parse()
            .ok()
    };
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            current = rest.split('\'').next().unwrap_or_default().to_string();
            functions.entry(current.clone()).or_default();
        }
        let Some(function) = functions.get_mut(&current) else {
            continue;
        };
        if let Some(bytes) = number(line, " bytes stack frame") {
            function.stack = bytes;
        }
        if let Some(bytes) = number(line, " bytes spill stores") {
            function.spilled = bytes + number(line, " bytes spill loads").unwrap_or(0);
        }
        if let Some(registers) = number(line, " registers") {
            function.registers = registers;
            function.shared = number(line, " bytes smem").unwrap_or(0);
        }
    }
    functions
}

/// All launches of all cases of the registry.
pub fn launches(precision: Precision) -> Vec<Launch> {
    let cases = REGISTRY.iter().flat_map(|op| (op.cases)());
    let launches = cases.flat_map(|case| {
        let recorded = plan::record(&case, Vec::new(), precision);
        recorded.expect("cases can be recorded").plan.launches
    });
    launches.collect()
}
