//! A loaded module: kernels as lists of instructions, variables, and the memory that each kernel needs.

use std::collections::HashMap;

use super::lower::Lowering;
use super::scope::Declared;
use super::text::{FunctionText, ModuleText, cut};
use super::{Instruction, Location, PtxError, Register};

/// A variable of a module in device memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// What it holds at first.
    pub bytes: Vec<u8>,
    /// Alignment.
    pub align: usize,
}

/// A variable in shared memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedVariable {
    /// Name as in the sources, as far as PTX tells.
    pub name: String,
    /// Where it starts.
    pub offset: u32,
    /// Bytes.
    pub bytes: u32,
}

/// What a register is filled with before a kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    /// A number.
    Value(u64),
    /// The address of a variable of the module.
    Variable(usize),
    /// Where dynamic shared memory starts.
    DynamicShared,
}

/// An entry point.
pub struct Kernel {
    /// Name.
    pub name: String,
    /// Instructions.
    pub code: Vec<Instruction>,
    /// Number of registers.
    pub registers: usize,
    /// Number of predicates.
    pub predicates: usize,
    /// Registers that hold constants.
    pub constants: Vec<(Register, Constant)>,
    /// Offset and size of each parameter.
    pub parameters: Vec<(u32, u32)>,
    /// Shared variables of static size.
    pub shared: Vec<SharedVariable>,
    /// Bytes of static shared memory.
    pub static_shared: u32,
    /// Bytes of a thread's own memory.
    pub local_bytes: u32,
    /// Places of the memory instructions, by their site.
    pub sites: Vec<u32>,
    /// Places in the sources.
    pub locations: Vec<Location>,
    /// Whether it has atomic operations on device memory.
    pub has_global_atomics: bool,
    /// Threads of a block at most, as declared.
    pub max_threads: u32,
    /// Dimensions that a block must have, as declared.
    pub required_block: Option<[u32; 3]>,
}

impl Kernel {
    /// Bytes of all parameters.
    pub fn parameter_bytes(&self) -> usize {
        self.parameters
            .iter()
            .map(|(offset, bytes)| (offset + bytes) as usize)
            .max()
            .unwrap_or(0)
    }
}

/// A module.
pub struct Module {
    /// Entry points by name.
    pub kernels: HashMap<String, std::sync::Arc<Kernel>>,
    /// Variables in device memory.
    pub variables: Vec<Variable>,
}

impl Module {
    /// Loads PTX.
    pub fn load(text: &str) -> Result<Module, PtxError> {
        let module = cut(text)?;
        let mut variables = Vec::new();
        for variable in &module.variables {
            if variable.space != "shared" {
                variables.push(Declared::parse(variable)?.into_variable(variable.line)?);
            }
        }
        let mut kernels = HashMap::new();
        for function in module.functions.iter().filter(|function| function.entry) {
            let kernel = load_kernel(&module, &variables, function)?;
            kernels.insert(function.name.clone(), std::sync::Arc::new(kernel));
        }
        // A device function that no kernel calls is checked all the same.
        for function in module.functions.iter().filter(|function| !function.entry) {
            if function.body.is_some() {
                Lowering::new(&module, &variables).check_function(function)?;
            }
        }
        Ok(Module { kernels, variables })
    }
}

fn load_kernel(module: &ModuleText, variables: &[Variable], function: &FunctionText) -> Result<Kernel, PtxError> {
    let mut lowering = Lowering::new(module, variables);
    let parameters = lowering.kernel_parameters(function)?;
    lowering.kernel_body(function)?;
    let limit = |directive: &str| dimensions(&function.directives, directive);
    let required_block = limit(".reqntid");
    let max_threads = required_block
        .or(limit(".maxntid"))
        .map_or(1024, |[x, y, z]| (x * y * z).min(1024));
    Ok(lowering.finish(function.name.clone(), parameters, max_threads, required_block))
}

/// Numbers behind a directive such as `.maxntid 256, 1, 1`.
fn dimensions(directives: &str, directive: &str) -> Option<[u32; 3]> {
    let rest = directives.split(directive).nth(1)?;
    let rest = rest.split('.').next()?;
    let mut found = [1; 3];
    for (dimension, text) in found.iter_mut().zip(rest.split(',')) {
        *dimension = text.trim().parse().ok()?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = ".version 9.0\n.target sm_80\n.address_size 64\n";

    fn error(body: &str) -> String {
        let text = format!("{EMPTY}.visible .entry k(.param .u64 p)\n{{\n.reg .b32 %r<4>;\n{body}\nret;\n}}\n");
        match Module::load(&text) {
            Ok(_) => panic!("{body} loads"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_unknown_is_an_error_that_names_it_and_its_line() {
        assert_eq!(
            error("tex.1d.v4.f32.s32 {%r1}, [p];"),
            "PTX line 7: unknown instruction tex.1d.v4.f32.s32"
        );
        assert_eq!(
            error("add.funny.u32 %r1, %r2, %r3;"),
            "PTX line 7: unknown modifier .funny of add.funny.u32"
        );
        assert_eq!(error("add.u32 %r1, %r2, %r9;"), "PTX line 7: unknown name %r9");
        assert_eq!(error("bra $nowhere;"), "PTX line 7: no label $nowhere");
    }

    #[test]
    fn variables_have_their_first_values() {
        let text = format!(
            "{EMPTY}.const .align 4 .b8 table[6] = {{0, 255, 1}};\n.global .align 8 .f64 x = 0d3FF0000000000000;\n\
             .global .align 4 .u32 y = -1;"
        );
        let module = Module::load(&text).unwrap();
        assert_eq!(module.variables[0].bytes, [0, 255, 1, 0, 0, 0]);
        assert_eq!(module.variables[1].bytes, 1f64.to_le_bytes());
        assert_eq!(module.variables[2].bytes, [255; 4]);
    }

    #[test]
    fn blocks_of_inline_assembly_have_registers_and_labels_of_their_own() {
        let text = format!(
            "{EMPTY}.visible .entry k(.param .u64 p)\n.maxntid 256, 1, 1\n{{\n.reg .b32 %r<4>;\n.reg .pred %p<2>;\n\
             {{ .reg .b64 %r1; mov.u64 %r1, 5; bra done; done: }}\n{{ bra done; done: }}\nadd.u32 %r2, %r1, 1;\nret;\n}}"
        );
        let kernel = &Module::load(&text).unwrap().kernels["k"];
        assert_eq!(kernel.max_threads, 256);
        assert_eq!(kernel.parameters, [(0, 8)]);
        let targets = kernel.code.iter().filter_map(|instruction| match instruction.op {
            super::super::Op::Branch { target } => Some(target),
            _ => None,
        });
        assert_eq!(targets.collect::<Vec<_>>(), [2, 3]);
    }
}
