//! The generated parts of the documentation: `docs/ops.md` is the registry as a table, `docs/cuda-floors.md` what a step
//! takes at least on two GPUs.
//!
//! `TLM_BLESS=1 cargo test --release --test docs` writes them anew.

#[path = "docs/floors.rs"]
mod floors;

use std::fmt::Write as _;
use std::path::Path;

use tlm::kernel::{Access, Arg, Element, Kernel};
use tlm::ops::REGISTRY;

const HEAD: &str = "\
# Ops

Made from the registry (`src/ops/mod.rs`) by `TLM_BLESS=1 cargo test --release --test docs`; a test compares.

An argument is `name[rows, width]`; the sizes are symbols that a launch binds. `->` divides what a kernel reads from what
it writes; `+` marks what it also reads or can add to; `u32` marks integers, `f32` what is f32 in plans of
every precision; everything else is stored as the plan says (f32, f16, bf16). Every kernel runs on the CPU, in f32.

";

fn argument(arg: &Arg) -> String {
    let [rows, width] = arg.shape;
    let add = if arg.access == Access::InOut { "+" } else { "" };
    let dtype = match arg.element {
        Element::U32 => " u32",
        Element::F32 => " f32",
        Element::Stored => "",
    };
    format!("{add}{}[{rows}, {width}]{dtype}", arg.name)
}

fn arguments(kernel: &Kernel) -> String {
    let list = |written: bool| {
        let chosen = kernel.args.iter().filter(|arg| (arg.access != Access::In) == written);
        chosen.map(argument).collect::<Vec<_>>().join(", ")
    };
    format!("{} -> {}", list(false), list(true))
}

fn table() -> String {
    let mut out = HEAD.to_owned();
    for op in REGISTRY {
        let _ = writeln!(out, "## {}\n", op.name);
        let _ = writeln!(
            out,
            "| kernel | arguments | WGSL: variants | CUDA: variants |\n|---|---|---|---|"
        );
        for kernel in op.kernels {
            let entry = |source: Option<tlm::kernel::Source>| {
                let Some(source) = source else { return String::new() };
                let programs = [Some(&source), source.half].into_iter().flatten();
                let program = |source: &tlm::kernel::Source| {
                    let variants: Vec<&str> = source.names().collect();
                    format!("{}: {}", source.file.name, variants.join(", "))
                };
                programs.map(program).collect::<Vec<_>>().join("; in two bytes ")
            };
            let _ = writeln!(
                out,
                "| `{}` | `{}` | {} | {} |",
                kernel.name,
                arguments(kernel),
                entry(kernel.wgsl),
                entry(kernel.cuda)
            );
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

#[test]
fn the_table_of_ops_is_the_registry() {
    compare("docs/ops.md", &table());
}

#[test]
fn the_floors_are_those_of_the_cost_functions() {
    compare("docs/cuda-floors.md", &floors::table());
}

fn compare(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var("TLM_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, made).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == made,
        "{name} is out of date: TLM_BLESS=1 cargo test --release --test docs"
    );
}
