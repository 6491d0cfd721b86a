//! What each kernel takes of a multiprocessor and the occupancy that follows; with NVIDIA's disassembler also what its machine
//! code is made of. The result is the committed table `docs/cuda-kernels.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rayon::prelude::*;
use tlm::device::cuda::{Compiled, Nvrtc};
use tlm::kernel::{Precision, Source};

use crate::sources::{Program, REPORTED, functions, kernels, passes, reported, skip};

const HEAD: &str = "\
# CUDA kernels

Made by `TLM_BLESS=1 TLM_REQUIRE_NVRTC=1 cargo test --release --test cuda` from what the compiler says; a test compares,
where the compiler has the same version. Nothing here was run on hardware.

A line is an entry point in a variant, at a size that is compiled in (`d`: columns of a head, `w`: columns of a row). Blocks
and warps are those that fit a multiprocessor together, by registers, shared memory (static and dynamic, of a block) and
threads. HMMA, LDSM and LDGSTS count instructions of the machine code: products of tensor cores, loads of their operands
from shared memory, copies to it that run beside the computation. No kernel has local memory (spills, or arrays that are
indexed at run time), which the test asserts. `-`: the disassembler was not there.

";

/// What a multiprocessor has.
struct Multiprocessor {
    architecture: u32,
    /// Bytes of shared memory; each block takes 1 KiB more than it asks for.
    shared: u32,
    warps: u32,
    blocks: u32,
}

const MULTIPROCESSORS: [Multiprocessor; 2] = [
    Multiprocessor {
        architecture: 80,
        shared: 164 << 10,
        warps: 64,
        blocks: 32,
    },
    Multiprocessor {
        architecture: 90,
        shared: 228 << 10,
        warps: 64,
        blocks: 32,
    },
];

impl Multiprocessor {
    /// Blocks that fit: a warp's registers come in units of 256 from one of four parts of 16,384.
    fn blocks(&self, threads: u32, registers: u32, shared: u32) -> u32 {
        let warps = threads.div_ceil(32);
        let of_warp = (registers * 32).next_multiple_of(256).max(256);
        let by_registers = 16_384 / of_warp * 4 / warps;
        let by_shared = self.shared / (shared + 1024).next_multiple_of(128);
        by_registers.min(by_shared).min(self.warps / warps).min(self.blocks)
    }
}

/// Instructions of machine code by entry point and name.
type Mix = BTreeMap<String, BTreeMap<String, u32>>;

/// NVIDIA's `cuobjdump`: on the path, or in a virtual environment beside NVRTC.
fn disassembler() -> Option<PathBuf> {
    let environments = std::env::var("VIRTUAL_ENV").into_iter().chain([".venv".to_string()]);
    let patterns = environments.map(|root| format!("{root}/lib/python*/site-packages/nvidia/*/bin/cuobjdump"));
    let packaged = patterns.flat_map(|pattern| glob::glob(&pattern).into_iter().flatten().flatten());
    let mut candidates = packaged.chain([PathBuf::from("cuobjdump")]);
    candidates.find(|tool| Command::new(tool).arg("--version").output().is_ok())
}

/// The PTX of the instructions that are counted: [`COUNTED`] come from nothing else.
const MADE_OF: [&str; 3] = ["mma.sync", "ldmatrix", "cp.async"];
const COUNTED: [&str; 3] = ["HMMA", "LDSM", "LDGSTS"];

/// The machine code of a program; nothing for one without any of the instructions, as the disassembler takes its time.
fn mix(tool: &Path, compiled: &Compiled) -> Mix {
    if !MADE_OF.iter().any(|instruction| compiled.ptx.contains(instruction)) {
        return Mix::new();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("program.cubin");
    std::fs::write(&file, &compiled.cubin).unwrap();
    let output = Command::new(tool).arg("-sass").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut mix = Mix::new();
    let mut current = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(name) = line.trim().strip_prefix("Function : ") {
            current = name.to_string();
            mix.entry(current.clone()).or_default();
        }
        // `/*0030*/   @!P0 LDGSTS.E.BYPASS.128 [R3], ... ;`
        let Some((address, code)) = line.trim().split_once("*/") else {
            continue;
        };
        if !address.starts_with("/*") || address.starts_with("/* ") {
            continue;
        }
        let words = code.split_whitespace().filter(|word| !word.starts_with('@'));
        let Some(operation) = words.into_iter().next() else {
            continue;
        };
        let name = operation.split(['.', ';']).next().unwrap_or_default();
        *mix.entry(current.clone())
            .or_default()
            .entry(name.to_string())
            .or_insert(0) += 1;
    }
    mix
}

/// A line of the table without its precisions.
fn line(
    at: &Multiprocessor,
    source: &Source,
    program: &Program,
    compiled: &Compiled,
    entry: &str,
    mix: Option<&Mix>,
) -> String {
    let function = functions(&compiled.log)[entry];
    let dynamic = source.shared_bytes(&program.dims, program.variant);
    let threads = program.variant.threads;
    let blocks = at.blocks(threads, function.registers, function.shared + dynamic);
    let counted = match mix {
        Some(mix) => {
            let count = |name: &str| mix.get(entry).and_then(|mix| mix.get(name)).copied().unwrap_or(0);
            assert_eq!(count("LDL") + count("STL"), 0, "{program}: {entry} uses local memory");
            if program.source.file.name.ends_with("_half.cu") {
                for name in COUNTED {
                    assert!(count(name) > 0, "{program}: {entry} has no {name}");
                }
            }
            COUNTED.map(|name| count(name).to_string())
        }
        None => ["-", "-", "-"].map(str::to_string),
    };
    let sizes = program.source.compiled.iter().map(|name| {
        let short = if *name == "head_size" { "d" } else { "w" };
        format!(", {short} {}", program.dims.word(name))
    });
    let sizes: String = sizes.collect();
    assert!(blocks > 0, "{program}: {entry} does not fit a multiprocessor");
    format!(
        "{}{sizes} | STORES | {threads} | {} | {} + {dynamic} | {blocks} | {} | {} |",
        program.variant.name,
        function.registers,
        function.shared,
        blocks * threads.div_ceil(32),
        counted.join(" | ")
    )
}

fn table(nvrtc: &Nvrtc, tool: Option<&Path>) -> String {
    let (major, minor) = nvrtc.version();
    let mut out = HEAD.to_string();
    let _ = writeln!(out, "Compiler: NVRTC {major}.{minor}.");
    assert_eq!(MULTIPROCESSORS.each_ref().map(|at| at.architecture), REPORTED);
    for at in &MULTIPROCESSORS {
        let _ = writeln!(
            out,
            "\n## sm_{}: {} KiB of shared memory, {} warps\n\n\
             | entry | variant | stores | threads | registers | shared bytes | blocks | warps | HMMA | LDSM | LDGSTS |\n\
             |---|---|---|---|---|---|---|---|---|---|---|",
            at.architecture,
            at.shared >> 10,
            at.warps
        );
        let compiled = reported(nvrtc, at.architecture);
        let mixes = compiled
            .par_iter()
            .map(|(_, compiled)| tool.map(|tool| mix(tool, compiled)));
        let mixes: Vec<Option<Mix>> = mixes.collect();
        for source in kernels().map(|(_, source)| source).chain(passes()) {
            for entry in source.entries {
                // Lines that differ in the precision alone are one.
                let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
                for ((program, compiled), mix) in compiled.iter().zip(&mixes) {
                    // Kernels of one file share its programs, each with its own shared memory.
                    let source = source.storing(program.precision);
                    if source.file.name != program.source.file.name {
                        continue;
                    }
                    let text = line(at, source, program, compiled, entry, mix.as_ref());
                    let precision = program.precision.name();
                    match lines.iter_mut().find(|(line, _)| *line == text) {
                        Some((_, precisions)) => precisions.push(precision),
                        None => lines.push((text, vec![precision])),
                    }
                }
                assert!(!lines.is_empty(), "{}: {entry} is compiled", source.file.name);
                for (line, precisions) in lines {
                    let line = line.replace("STORES", &precisions.join(", "));
                    let _ = writeln!(out, "| `{entry}` | {line}");
                }
            }
        }
    }
    out
}

/// Compares with the committed table, or writes it.
pub fn compare(nvrtc: &Nvrtc) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cuda-kernels.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let tool = disassembler();
    if tool.is_none() {
        skip(
            "no cuobjdump, so that no machine code is looked at: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm",
        );
    }
    let table = table(nvrtc, tool.as_deref());
    if std::env::var("TLM_BLESS").is_ok_and(|value| value == "1") {
        assert!(tool.is_some(), "the table has columns that need cuobjdump");
        std::fs::write(&path, &table).unwrap();
        return;
    }
    let (major, minor) = nvrtc.version();
    if tool.is_none() || !written.contains(&format!("Compiler: NVRTC {major}.{minor}.\n")) {
        skip("docs/cuda-kernels.md is of another compiler than this one, or cannot be made whole: not compared");
        return;
    }
    assert!(
        written == table,
        "docs/cuda-kernels.md is out of date: TLM_BLESS=1 cargo test --release --test cuda"
    );
}

#[test]
fn occupancy_is_that_of_known_kernels() {
    let at = &MULTIPROCESSORS[0];
    assert_eq!(at.blocks(256, 32, 0), 8, "by threads");
    assert_eq!(at.blocks(256, 128, 0), 2, "by registers");
    assert_eq!(at.blocks(128, 168, 32 << 10), 3, "by registers");
    assert_eq!(at.blocks(128, 32, 64 << 10), 2, "by shared memory");
    assert_eq!(at.blocks(32, 16, 0), 32, "by blocks");
}

#[test]
fn half_programs_run_for_elements_of_two_bytes() {
    for (kernel, source) in kernels().filter(|(_, source)| source.half.is_some()) {
        assert_eq!(
            source.storing(Precision::F32).file.name,
            source.file.name,
            "{}",
            kernel.name
        );
        for precision in [Precision::F16, Precision::Bf16] {
            assert!(
                source.storing(precision).file.name.ends_with("_half.cu"),
                "{}",
                kernel.name
            );
        }
    }
}
