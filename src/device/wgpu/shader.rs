//! WGSL: one module per op file, checked against the kernel tables without any adapter.
//!
//! A module is the variant's defines as constants, `shaders/common/*.wgsl` and the op's file. Its tensors are module variables named as the kernels'
//! arguments; one file serves several kernels, so the binding numbers belong to the file and are found here by name. In
//! the same way the members of the uniform block `constants` are found by the names of the kernels' constants, with `_`
//! for `.`. What an entry point uses must be exactly what its kernel's table says, neither more nor less:
//!
//! | table | WGSL |
//! |---|---|
//! | argument | `var<storage, read_write>` of the name, `array` of the type or of quads of it, read and written as `Access` says |
//! | constant | member of `constants`, read |
//! | variant's threads | `@workgroup_size(THREADS)` |
//! | define, compiled constant | a `const` of that name, which the file reads |
//!
//! The two uniform blocks are `step_params` (binding 0, `common/step.wgsl`) and `constants` (binding 1).

use std::collections::{BTreeMap, BTreeSet};

use wgpu::naga;
use wgpu::naga::valid::GlobalUse;

use crate::device::DeviceError;
use crate::kernel::{Access, DType, Dims, Kernel, Precision, Source, Variant, WGSL_COMMON, WGSL_LANES};

/// Name of the backend in messages.
pub(super) const BACKEND: &str = "wgpu";
/// Name of the uniform block of the step's scalars.
const STEP: &str = "step_params";
/// Name of the uniform block of the launch constants.
const CONSTANTS: &str = "constants";

/// A checked WGSL module.
pub struct Shader {
    /// The module's text.
    pub text: String,
    threads: u32,
    precision: Precision,
    module: naga::Module,
    info: naga::valid::ModuleInfo,
}

/// How a kernel meets its entry point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Binding number of each argument, in the order of the kernel's table.
    pub args: Vec<u32>,
    /// Binding number of the step's scalars, where the kernel reads them.
    pub step: Option<u32>,
    /// The block of launch constants.
    pub constants: Option<Block>,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
}

/// The uniform block of the launch constants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Binding number.
    pub binding: u32,
    /// Words of the block.
    pub words: usize,
    /// For each constant of the kernel's table: its word in the block.
    pub places: Vec<usize>,
}

impl Shader {
    /// Parses and validates the module of a source's variant at a launch's sizes; lanes of the adapter's subgroups are
    /// told to variants that exchange values in them.
    ///
    /// # Errors
    /// [`DeviceError::Compile`] with file, line and column, also where a define is one that the file never reads.
    pub fn new(source: &Source, variant: &Variant, dims: &Dims, lanes: u32) -> Result<Shader, DeviceError> {
        let mut defines = match dims.precision() {
            Precision::F16 => "enable f16;\n".to_string(),
            _ => String::new(),
        };
        // In f32 for kernels without stored tensors, which a plan of any precision launches.
        defines += &format!("alias Stored = {};\n", dims.precision().name());
        defines += &format!("const SUBGROUP = {}u;\n", if variant.subgroups { lanes } else { 1 });
        for (name, value) in source.defines(variant, dims) {
            if name != "THREADS" && !source.file.text.contains(&name) {
                return Err(DeviceError::Compile {
                    backend: BACKEND,
                    file: source.file.name,
                    log: format!("variant {} defines {name}, which the file never reads", variant.name),
                });
            }
            defines += &format!("const {name} = {value}u;\n");
        }
        let parts: Vec<(&'static str, &str)> = [("(defines)", defines.as_str())]
            .into_iter()
            .chain(
                [&WGSL_LANES[usize::from(variant.subgroups)]]
                    .into_iter()
                    .chain(WGSL_COMMON)
                    .chain([&source.file])
                    .map(|file| (file.name, file.text)),
            )
            .collect();
        let text: String = parts.iter().map(|(_, text)| *text).collect();
        let module = naga::front::wgsl::parse_str(&text).map_err(|error| {
            let labels: Vec<_> = error.labels().collect();
            let spans = labels.iter().map(|(span, label)| (*span, label.to_string()));
            located(&parts, error.message(), spans)
        })?;
        let flags = naga::valid::ValidationFlags::all();
        let mut capabilities = naga::valid::Capabilities::empty();
        capabilities.set(
            naga::valid::Capabilities::SHADER_FLOAT16,
            dims.precision() == Precision::F16,
        );
        capabilities.set(naga::valid::Capabilities::SUBGROUP, variant.subgroups);
        let info = naga::valid::Validator::new(flags, capabilities)
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::all())
            .validate(&module)
            .map_err(|error| {
                let mut what = error.as_inner().to_string();
                let mut cause = std::error::Error::source(error.as_inner());
                while let Some(inner) = cause {
                    what = format!("{what}: {inner}");
                    cause = inner.source();
                }
                located(&parts, &what, error.spans().map(|(span, label)| (*span, label.clone())))
            })?;
        let threads = variant.threads;
        Ok(Shader {
            text,
            threads,
            precision: dims.precision(),
            module,
            info,
        })
    }

    /// Checks a kernel's entry points against its table and resolves names to binding numbers.
    ///
    /// # Errors
    /// [`DeviceError::Interface`] with the first disagreement.
    pub fn interface(&self, kernel: &Kernel, source: &Source) -> Result<Interface, DeviceError> {
        let disagree = |what: String| DeviceError::Interface {
            kernel: kernel.name,
            file: source.file.name,
            what,
        };
        let mut entries = Vec::new();
        for name in source.entries {
            let index = self.module.entry_points.iter().position(|entry| entry.name == *name);
            let index = index.ok_or_else(|| disagree(format!("the file has no entry point `{name}`")))?;
            let entry = &self.module.entry_points[index];
            if entry.workgroup_size != [self.threads, 1, 1] {
                let (found, threads) = (entry.workgroup_size, self.threads);
                return Err(disagree(format!(
                    "workgroup size of `{name}` is {found:?}, table says {threads} threads"
                )));
            }
            entries.push((entry, self.info.get_entry_point(index)));
        }
        let mut args = vec![None; kernel.args.len()];
        let mut interface = Interface {
            args: Vec::new(),
            step: None,
            constants: None,
            workgroup_bytes: self.workgroup_bytes(&entries),
        };
        for (handle, variable) in self.module.global_variables.iter() {
            let used = entries
                .iter()
                .fold(GlobalUse::empty(), |all, (_, uses)| all | uses[handle]);
            let Some(binding) = variable.binding.as_ref().filter(|_| !used.is_empty()) else {
                continue;
            };
            let name = variable.name.as_deref().unwrap_or_default();
            if binding.group != 0 {
                return Err(disagree(format!("`{name}` is bound to group {}, not 0", binding.group)));
            }
            if name == STEP {
                interface.step = Some(binding.binding);
            } else if name == CONSTANTS {
                let ty = &self.module.types[variable.ty].inner;
                let read = entries
                    .iter()
                    .flat_map(|(entry, _)| self.members_read(entry, handle))
                    .collect();
                let block = self.block(kernel, ty, binding.binding, &read).map_err(disagree)?;
                interface.constants = Some(block);
            } else {
                let slot = kernel.args.iter().position(|arg| arg.name == name);
                let slot = slot.ok_or_else(|| disagree(format!("uses `{name}`, which is no argument")))?;
                self.check_argument(kernel, slot, variable, used).map_err(disagree)?;
                args[slot] = Some(binding.binding);
            }
        }
        for (arg, binding) in kernel.args.iter().zip(args) {
            let binding = binding.ok_or_else(|| disagree(format!("never uses the argument `{}`", arg.name)))?;
            interface.args.push(binding);
        }
        if interface.constants.is_none() && !kernel.constants.is_empty() {
            return Err(disagree("never reads `constants`".to_string()));
        }
        Ok(interface)
    }

    /// The most workgroup memory that one of the entry points uses.
    fn workgroup_bytes(&self, entries: &[(&naga::EntryPoint, &naga::valid::FunctionInfo)]) -> u32 {
        let of_entry = |uses: &naga::valid::FunctionInfo| -> u32 {
            let variables = self.module.global_variables.iter();
            let used = variables.filter(|(handle, variable)| {
                variable.space == naga::AddressSpace::WorkGroup && !uses[*handle].is_empty()
            });
            let bytes = |(_, variable): (_, &naga::GlobalVariable)| {
                self.module.types[variable.ty].inner.size(self.module.to_ctx())
            };
            used.map(bytes).sum()
        };
        entries.iter().map(|(_, uses)| of_entry(uses)).max().unwrap_or(0)
    }

    fn check_argument(
        &self,
        kernel: &Kernel,
        slot: usize,
        variable: &naga::GlobalVariable,
        used: GlobalUse,
    ) -> Result<(), String> {
        let arg = &kernel.args[slot];
        let writable = naga::StorageAccess::LOAD | naga::StorageAccess::STORE;
        if variable.space != (naga::AddressSpace::Storage { access: writable }) {
            return Err(format!("`{}` is not var<storage, read_write>", arg.name));
        }
        let scalar = match &self.module.types[variable.ty].inner {
            naga::TypeInner::Array { base, .. } => self.module.types[*base].inner.scalar(),
            _ => None,
        };
        let dtype = arg.element.dtype(self.precision);
        let expected = match dtype {
            DType::F32 => Some(naga::Scalar::F32),
            DType::U32 => Some(naga::Scalar::U32),
            DType::F16 => Some(naga::Scalar::F16),
            DType::Bf16 => None, // WGSL has no such type
        };
        if scalar.is_none() || scalar != expected {
            return Err(format!("`{}` is not an array of {dtype:?}", arg.name));
        }
        let (read, written) = (used.contains(GlobalUse::READ), used.contains(GlobalUse::WRITE));
        let agrees = match arg.access {
            Access::In => read && !written,
            Access::Out => written && !read,
            Access::InOut => written && read,
        };
        if !agrees {
            let found = format!("read: {read}, written: {written}");
            return Err(format!("`{}` is {:?} in the table, here {found}", arg.name, arg.access));
        }
        Ok(())
    }

    /// Finds the kernel's constants among the members of the block; every one must be read, and no other.
    fn block(
        &self,
        kernel: &Kernel,
        ty: &naga::TypeInner,
        binding: u32,
        read: &BTreeSet<u32>,
    ) -> Result<Block, String> {
        let naga::TypeInner::Struct { members, span } = ty else {
            return Err("`constants` is no structure".to_string());
        };
        let mut unclaimed: BTreeMap<&str, usize> = BTreeMap::new();
        for &index in read {
            let member = &members[index as usize];
            let name = member.name.as_deref().unwrap_or_default();
            let word =
                matches!(self.module.types[member.ty].inner, naga::TypeInner::Scalar(scalar) if scalar.width == 4);
            if !word {
                return Err(format!("`constants.{name}` is not a word"));
            }
            unclaimed.insert(name, member.offset as usize / 4);
        }
        let mut places = Vec::new();
        for constant in kernel.constants {
            let place = unclaimed.remove(constant.replace('.', "_").as_str());
            places.push(place.ok_or_else(|| format!("never reads the constant `{constant}`"))?);
        }
        if let Some(name) = unclaimed.keys().next() {
            return Err(format!("reads `constants.{name}`, which is no constant of the table"));
        }
        Ok(Block {
            binding,
            words: *span as usize / 4,
            places,
        })
    }

    /// Members of a structure variable that an entry point reads, itself or through the functions it calls.
    fn members_read(&self, entry: &naga::EntryPoint, variable: naga::Handle<naga::GlobalVariable>) -> BTreeSet<u32> {
        let mut members = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut waiting = vec![&entry.function];
        while let Some(function) = waiting.pop() {
            for (_, expression) in function.expressions.iter() {
                let naga::Expression::AccessIndex { base, index } = expression else {
                    continue;
                };
                if function.expressions[*base] == naga::Expression::GlobalVariable(variable) {
                    members.insert(*index);
                }
            }
            let mut called = Vec::new();
            calls(&function.body, &mut called);
            for callee in called {
                if seen.insert(callee) {
                    waiting.push(&self.module.functions[callee]);
                }
            }
        }
        members
    }
}

fn calls(block: &naga::Block, called: &mut Vec<naga::Handle<naga::Function>>) {
    for statement in block.iter() {
        match statement {
            naga::Statement::Call { function, .. } => called.push(*function),
            naga::Statement::Block(inner) => calls(inner, called),
            naga::Statement::If { accept, reject, .. } => {
                calls(accept, called);
                calls(reject, called);
            }
            naga::Statement::Loop { body, continuing, .. } => {
                calls(body, called);
                calls(continuing, called);
            }
            naga::Statement::Switch { cases, .. } => cases.iter().for_each(|case| calls(&case.body, called)),
            _ => {}
        }
    }
}

/// A compile error with its places translated from the joined text to the files `parts` (name, text) that it came from.
fn located(
    parts: &[(&'static str, &str)],
    what: &str,
    spans: impl Iterator<Item = (naga::Span, String)>,
) -> DeviceError {
    let place = |span: naga::Span| {
        let mut offset = span.to_range()?.start;
        for (name, text) in parts {
            if offset < text.len() {
                let before = &text[..offset];
                let line = before.matches('\n').count() + 1;
                let column = offset - before.rfind('\n').map_or(0, |newline| newline + 1) + 1;
                let code = text.lines().nth(line - 1).unwrap_or_default().trim();
                return Some(format!("{name}:{line}:{column}: `{code}`"));
            }
            offset -= text.len();
        }
        None
    };
    let mut log = what.to_string();
    for (span, label) in spans {
        if let Some(place) = place(span) {
            log += &format!("\n  {place}: {label}");
        }
    }
    DeviceError::Compile {
        backend: BACKEND,
        file: parts.last().map_or("", |(name, _)| name),
        log,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::File;
    use crate::ops::copy::COPY;

    fn compile(text: &'static str) -> Result<Interface, String> {
        let file = File {
            name: "test.wgsl",
            text,
        };
        let source = Source::new(file, &["copy"]);
        let shader =
            Shader::new(&source, &source.variants[0], &Dims::default(), 1).map_err(|error| error.to_string())?;
        shader.interface(&COPY, &source).map_err(|error| error.to_string())
    }

    const GOOD: &str = "
        struct Constants { rows: u32, rows_count: u32, rows_start: u32, other: f32, width: u32, accumulate_y: u32 }
        @group(0) @binding(1) var<uniform> constants: Constants;
        @group(0) @binding(7) var<storage, read_write> x: array<f32>;
        @group(0) @binding(5) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(256)
        fn copy(@builtin(global_invocation_id) id: vec3<u32>) {
            let c = constants.accumulate_y + constants.width;
            y[id.x] += x[id.x + live(constants.rows, constants.rows_count, constants.rows_start) + c];
        }";

    #[test]
    fn names_are_resolved_to_bindings_and_words() {
        let interface = compile(GOOD).unwrap();
        assert_eq!((interface.args, interface.step), (vec![7, 5], Some(0)));
        let block = interface.constants.unwrap();
        assert_eq!((block.binding, block.words, block.places), (1, 6, vec![0, 1, 2, 4, 5]));
    }

    #[test]
    fn every_disagreement_with_the_table_is_an_error() {
        for (from, to, message) in [
            ("fn copy(", "fn copied(", "no entry point `copy`"),
            ("workgroup_size(256)", "workgroup_size(64)", "workgroup size"),
            (
                "y[id.x] +=",
                "y[id.x] =",
                "`y` is InOut in the table, here read: false, written: true",
            ),
            (
                "read_write> x: array<f32>",
                "read> x: array<f32>",
                "not var<storage, read_write>",
            ),
            (
                "constants.width",
                "u32(constants.other)",
                "never reads the constant `width`",
            ),
            (
                "+ constants.width",
                "+ constants.width + u32(constants.other)",
                "`constants.other`",
            ),
            ("let c =", "x[0] = 1.0; let c =", "`x` is In in the table"),
        ] {
            assert!(GOOD.contains(from));
            let text: &'static str = GOOD.replace(from, to).leak();
            let error = compile(text).unwrap_err();
            assert!(error.contains(message), "{from} -> {to}: {error}");
        }
    }

    #[test]
    fn a_mistake_is_reported_with_its_own_file_and_line() {
        let error = compile("\nfn broken() {\n    let a = 1u + missing;\n}\n").unwrap_err();
        assert!(error.contains("test.wgsl:3:18"), "{error}");
        let error = compile("\nfn broken() -> u32 {\n    return 1.5f;\n}\n").unwrap_err();
        assert!(error.contains("test.wgsl:"), "{error}");
    }
}
