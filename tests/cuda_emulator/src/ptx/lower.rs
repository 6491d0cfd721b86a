//! From statements to instructions.
//!
//! Names become numbers of registers; literals, addresses of variables and special registers become registers of their
//! own, so that an operand is always a register. Device functions are put in place of their calls: their parameters are
//! bytes of the thread's local memory, which is what `.param` space outside of kernels amounts to.

use std::collections::HashMap;

use super::scope::{Declared, Pending, Scope, Symbol};
use super::text::{FunctionText, ModuleText, Statement, VariableText, statements};
use super::{
    Class, Constant, Guard, Instruction, Kernel, Location, Op, PtxError, Register, SharedVariable, Type, Variable,
    operation,
};

/// Calls within calls at most; more is taken for recursion.
const MAX_DEPTH: usize = 24;

/// Label of a function's end, which no label of a source can be.
const END: &str = "end of function";

/// A kernel being made.
pub struct Lowering<'a> {
    pub(super) module: &'a ModuleText,
    pub(super) variables: &'a [Variable],
    pub(super) code: Vec<Instruction>,
    pub(super) registers: usize,
    pub(super) predicates: usize,
    pub(super) constants: HashMap<Constant, Register>,
    pub(super) scopes: Vec<Scope>,
    /// By name and line of the declaration.
    pub(super) shared_offsets: HashMap<(String, u32), u32>,
    pub(super) shared: Vec<SharedVariable>,
    pub(super) static_shared: u32,
    pub(super) local_bytes: u32,
    pub(super) sites: Vec<u32>,
    pub(super) locations: Vec<Location>,
    pub(super) known_locations: HashMap<Location, u32>,
    pub(super) place: u32,
    pub(super) depth: usize,
    pub(super) guard: Option<Guard>,
    /// Whether an atomic operation on device memory was met.
    pub has_global_atomics: bool,
    /// Line of the PTX text.
    pub line: u32,
}

impl<'a> Lowering<'a> {
    /// For a kernel of a module.
    pub fn new(module: &'a ModuleText, variables: &'a [Variable]) -> Lowering<'a> {
        let nowhere = Location {
            file: "(no line information)".to_string(),
            line: 0,
            inlined_at: None,
        };
        Lowering {
            module,
            variables,
            code: Vec::new(),
            registers: 0,
            predicates: 0,
            constants: HashMap::new(),
            scopes: vec![Scope {
                closed: true,
                ..Scope::default()
            }],
            shared_offsets: HashMap::new(),
            shared: Vec::new(),
            static_shared: 0,
            local_bytes: 0,
            sites: Vec::new(),
            locations: vec![nowhere],
            known_locations: HashMap::new(),
            place: 0,
            depth: 0,
            guard: None,
            has_global_atomics: false,
            line: 0,
        }
    }

    /// An error here.
    pub fn error<T>(&self, what: impl Into<String>) -> Result<T, PtxError> {
        Err(PtxError::new(self.line, what))
    }

    /// Declares a kernel's parameters; their offsets and sizes.
    pub fn kernel_parameters(&mut self, function: &FunctionText) -> Result<Vec<(u32, u32)>, PtxError> {
        let (mut places, mut end) = (Vec::new(), 0u32);
        for parameter in &function.parameters {
            let declared = Declared::parse(parameter)?;
            let offset = end.next_multiple_of(declared.align);
            end = offset + declared.bytes();
            places.push((offset, declared.bytes()));
            self.declare(&declared.name, Symbol::Parameter(offset));
        }
        Ok(places)
    }

    /// The body of a kernel.
    pub fn kernel_body(&mut self, function: &FunctionText) -> Result<(), PtxError> {
        self.line = function.line;
        let Some(body) = &function.body else {
            return self.error(format!("kernel {} has no body", function.name));
        };
        self.body(body, function.line)?;
        self.emit(Op::Exit, Class::Control);
        self.close_scope()
    }

    /// Goes through a device function whose arguments are anywhere.
    pub fn check_function(&mut self, function: &FunctionText) -> Result<(), PtxError> {
        let results = self.stack_slots(&function.results)?;
        let arguments = self.stack_slots(&function.parameters)?;
        self.inline(function, &results, &arguments)
    }

    /// The finished kernel.
    pub fn finish(
        self,
        name: String,
        parameters: Vec<(u32, u32)>,
        max_threads: u32,
        required_block: Option<[u32; 3]>,
    ) -> Kernel {
        let mut constants: Vec<_> = self
            .constants
            .into_iter()
            .map(|(constant, at)| (at, constant))
            .collect();
        constants.sort_by_key(|(at, _)| *at);
        Kernel {
            name,
            code: self.code,
            registers: self.registers,
            predicates: self.predicates,
            constants,
            parameters,
            shared: self.shared,
            static_shared: self.static_shared,
            local_bytes: self.local_bytes.next_multiple_of(16),
            sites: self.sites,
            locations: self.locations,
            has_global_atomics: self.has_global_atomics,
            max_threads,
            required_block,
        }
    }

    /// The statements of a body, in the current scope.
    fn body(&mut self, body: &str, line: u32) -> Result<(), PtxError> {
        let mut last_label = String::new();
        for (line, statement) in statements(body, line)? {
            self.line = line;
            match statement {
                Statement::Open => self.scopes.push(Scope::default()),
                Statement::Close => self.close_scope()?,
                Statement::Label(name) => {
                    last_label = name.to_string();
                    let here = self.here();
                    self.scope().labels.insert(name.to_string(), here);
                }
                Statement::Loc(text) => self.loc(text)?,
                Statement::Directive(text) => self.directive(text, &last_label)?,
                Statement::Instruction(text) => self.instruction(text)?,
            }
        }
        Ok(())
    }

    fn instruction(&mut self, text: &str) -> Result<(), PtxError> {
        let (guard, rest) = match text.strip_prefix('@') {
            None => (None, text),
            Some(text) => {
                let (predicate, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
                (Some(self.predicate(predicate)?), rest.trim())
            }
        };
        self.guard = guard;
        operation::lower(self, rest)?;
        self.guard = None;
        Ok(())
    }

    fn directive(&mut self, text: &str, last_label: &str) -> Result<(), PtxError> {
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let variable = |space: &str, line: u32| VariableText {
            space: space.to_string(),
            rest: rest.to_string(),
            line,
        };
        match word {
            ".reg" => self.declare_registers(rest),
            ".local" | ".param" => {
                let declared = Declared::parse(&variable("local", self.line))?;
                let symbol = self.stack_slot(&declared);
                self.declare(&declared.name, symbol);
                Ok(())
            }
            ".shared" => {
                let symbol = self.shared_variable(&variable("shared", self.line))?;
                let declared = Declared::parse(&variable("shared", self.line))?;
                self.declare(&declared.name, symbol);
                Ok(())
            }
            ".branchtargets" => {
                let labels = rest.split(',').map(|label| label.trim().to_string()).collect();
                self.scope().targets.insert(last_label.to_string(), labels);
                Ok(())
            }
            ".pragma" => Ok(()),
            _ => self.error(format!("unknown directive {word}")),
        }
    }

    fn declare_registers(&mut self, text: &str) -> Result<(), PtxError> {
        let (ty, names) = text.trim().split_once(char::is_whitespace).unwrap_or((text, ""));
        let Some(ty) = Type::named(ty.trim_start_matches('.')) else {
            return self.error(format!("registers of unknown type {ty}"));
        };
        for name in names.split(',').map(str::trim) {
            match name.split_once('<') {
                None => self.declare_register(name.to_string(), ty)?,
                Some((prefix, count)) => {
                    let Ok(count) = count.trim_end_matches('>').trim().parse::<u32>() else {
                        return self.error(format!("{name}: no number of registers"));
                    };
                    for at in 0..count {
                        self.declare_register(format!("{prefix}{at}"), ty)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn declare_register(&mut self, name: String, ty: Type) -> Result<(), PtxError> {
        let symbol = if ty == Type::Pred {
            Symbol::Predicate(self.fresh_predicate())
        } else {
            Symbol::Register(self.fresh(), ty)
        };
        if self.registers > Register::MAX as usize || self.predicates > Register::MAX as usize {
            return self.error("a kernel with more than 65535 registers");
        }
        self.declare(&name, symbol);
        Ok(())
    }

    /// `.loc file line column[, function_name label, inlined_at file line column]`
    fn loc(&mut self, text: &str) -> Result<(), PtxError> {
        let position = |text: &str| {
            let mut numbers = text.split_whitespace().map_while(|word| word.parse::<u32>().ok());
            let (file, line) = (numbers.next()?, numbers.next()?);
            let name = self.module.files.iter().find(|(number, _)| *number == file);
            Some((
                name.map_or_else(|| format!("file {file}"), |(_, name)| relative(name)),
                line,
            ))
        };
        let (own, inlined) = match text.split_once("inlined_at") {
            Some((own, outer)) => (own, position(outer)),
            None => (text, None),
        };
        let Some((file, line)) = position(own) else {
            return self.error(format!(".loc {text}: no file and line"));
        };
        if line == 0 {
            return Ok(()); // of the compiler's making
        }
        let location = Location {
            file,
            line,
            inlined_at: inlined,
        };
        let next = self.locations.len() as u32;
        self.place = *self.known_locations.entry(location.clone()).or_insert(next);
        if self.place == next {
            self.locations.push(location);
        }
        Ok(())
    }

    fn close_scope(&mut self) -> Result<(), PtxError> {
        let Some(scope) = self.scopes.pop() else {
            return self.error("a brace closes what was not open");
        };
        for pending in scope.pending {
            match (scope.labels.get(&pending.label), self.scopes.last_mut()) {
                (Some(target), _) => match &mut self.code[pending.at].op {
                    Op::Branch { target: place } => *place = *target,
                    Op::BranchIndexed { targets, .. } => targets[pending.slot] = *target,
                    _ => {}
                },
                (None, Some(outer)) if !scope.closed => outer.pending.push(pending),
                _ => {
                    return Err(PtxError::new(pending.line, format!("no label {}", pending.label)));
                }
            }
        }
        Ok(())
    }

    /// Puts a function's body here.
    fn inline(&mut self, function: &FunctionText, results: &[Symbol], arguments: &[Symbol]) -> Result<(), PtxError> {
        let Some(body) = &function.body else {
            return self.error(format!("call of {}, which is not in the module", function.name));
        };
        if self.depth == MAX_DEPTH {
            return self.error(format!("recursion: calls of {} are nested too deeply", function.name));
        }
        let mut scope = Scope {
            closed: true,
            ..Scope::default()
        };
        let formals = function.results.iter().chain(&function.parameters);
        for (formal, actual) in formals.zip(results.iter().chain(arguments)) {
            scope.names.insert(Declared::parse(formal)?.name, *actual);
        }
        let (line, place) = (self.line, self.place);
        self.scopes.push(scope);
        self.depth += 1;
        self.body(body, function.line)?;
        self.depth -= 1;
        let here = self.here();
        self.scope().labels.insert(END.to_string(), here);
        (self.line, self.place) = (line, place);
        self.close_scope()
    }

    /// `call`
    pub fn call(&mut self, operands: &[&str]) -> Result<(), PtxError> {
        let (results, operands) = match operands.first() {
            Some(first) if first.starts_with('(') => (*first, &operands[1..]),
            _ => ("()", operands),
        };
        let (Some(name), arguments) = (operands.first(), operands.get(1).copied().unwrap_or("()")) else {
            return self.error("a call of nothing");
        };
        let Some(function) = self.module.functions.iter().find(|function| function.name == *name) else {
            return self.error(format!("call of {name}, which is no function of the module"));
        };
        let mut bind = |list: &str| -> Result<Vec<Symbol>, PtxError> {
            let names = list.trim_matches(['(', ')']).split(',').map(str::trim);
            names
                .filter(|name| !name.is_empty())
                .map(|name| self.symbol(name))
                .collect()
        };
        let (results, arguments) = (bind(results)?, bind(arguments)?);
        if results.len() != function.results.len() || arguments.len() != function.parameters.len() {
            return self.error(format!("call of {name} with another number of arguments"));
        }
        let skipped = self.guard.take().map(|guard| Guard {
            negated: !guard.negated,
            ..guard
        });
        let label = format!("after call {}", self.code.len());
        if skipped.is_some() {
            self.guard = skipped;
            self.branch(&label);
            self.guard = None;
        }
        self.inline(function, &results, &arguments)?;
        let here = self.here();
        self.scope().labels.insert(label, here);
        Ok(())
    }

    /// `ret`
    pub fn return_from(&mut self) {
        if self.depth == 0 {
            self.emit(Op::Exit, Class::Control);
        } else {
            self.branch(END);
        }
    }

    /// A jump.
    pub fn branch(&mut self, label: &str) {
        let at = self.code.len();
        self.emit(Op::Branch { target: 0 }, Class::Control);
        self.later(at, 0, label);
    }

    /// A jump through a table.
    pub fn branch_indexed(&mut self, index: Register, list: &str) -> Result<(), PtxError> {
        let lists = self.scopes.iter().rev();
        let Some(labels) = lists.filter_map(|scope| scope.targets.get(list)).next().cloned() else {
            return self.error(format!("no list of labels {list}"));
        };
        let at = self.code.len();
        let targets = vec![0; labels.len()];
        self.emit(Op::BranchIndexed { index, targets }, Class::Control);
        for (slot, label) in labels.iter().enumerate() {
            self.later(at, slot, label);
        }
        Ok(())
    }

    fn later(&mut self, at: usize, slot: usize, label: &str) {
        let (label, line) = (label.to_string(), self.line);
        self.scope().pending.push(Pending { at, slot, label, line });
    }

    fn here(&self) -> u32 {
        self.code.len() as u32
    }

    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("the outermost scope is closed last")
    }

    fn declare(&mut self, name: &str, symbol: Symbol) {
        self.scope().names.insert(name.to_string(), symbol);
    }

    /// Adds an instruction, guarded as the statement is.
    pub fn emit(&mut self, op: Op, class: Class) {
        self.code.push(Instruction {
            op,
            guard: self.guard,
            place: self.place,
            class,
        });
    }

    /// A number for a memory instruction here.
    pub fn site(&mut self) -> u16 {
        self.sites.push(self.place);
        (self.sites.len() - 1).min(u16::MAX as usize) as u16
    }

    /// A register without a name.
    pub fn fresh(&mut self) -> Register {
        self.registers += 1;
        (self.registers - 1) as Register
    }

    /// A predicate without a name.
    pub fn fresh_predicate(&mut self) -> Register {
        self.predicates += 1;
        (self.predicates - 1) as Register
    }

    /// The register that holds a constant.
    pub fn constant(&mut self, constant: Constant) -> Register {
        if let Some(found) = self.constants.get(&constant) {
            return *found;
        }
        let at = self.fresh();
        self.constants.insert(constant, at);
        at
    }
}

/// NVRTC puts the current folder before the names it is told.
fn relative(name: &str) -> String {
    let folder = std::env::current_dir().unwrap_or_default();
    let path = std::path::Path::new(name);
    path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned()
}
