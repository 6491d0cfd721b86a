//! Operands: from names and literals to registers, and the memory that variables get.

use super::lower::Lowering;
use super::scope::{Declared, Symbol, number};
use super::text::VariableText;
use super::{
    Address, Class, Constant, Guard, Logic, Op, PredicateOperand, PtxError, Register, SharedVariable, Space, Special,
    Type,
};

impl Lowering<'_> {
    pub(super) fn stack_slot(&mut self, declared: &Declared) -> Symbol {
        let offset = self.local_bytes.next_multiple_of(declared.align.max(4));
        self.local_bytes = offset + declared.bytes();
        Symbol::Memory(Constant::Value(u64::from(offset)), Space::Local)
    }

    pub(super) fn stack_slots(&mut self, declarations: &[VariableText]) -> Result<Vec<Symbol>, PtxError> {
        let declared = declarations.iter().map(Declared::parse);
        declared.map(|declared| Ok(self.stack_slot(&declared?))).collect()
    }

    pub(super) fn shared_variable(&mut self, text: &VariableText) -> Result<Symbol, PtxError> {
        let declared = Declared::parse(text)?;
        if declared.count.is_none() {
            return Ok(Symbol::Memory(Constant::DynamicShared, Space::Shared));
        }
        let key = (declared.name.clone(), text.line);
        let offset = match self.shared_offsets.get(&key) {
            Some(offset) => *offset,
            None => {
                let offset = self.static_shared.next_multiple_of(declared.align);
                self.static_shared = offset + declared.bytes();
                self.shared_offsets.insert(key, offset);
                self.shared.push(SharedVariable {
                    name: source_name(&declared.name),
                    offset,
                    bytes: declared.bytes(),
                });
                offset
            }
        };
        Ok(Symbol::Memory(Constant::Value(u64::from(offset)), Space::Shared))
    }

    /// What a name stands for.
    pub fn symbol(&mut self, name: &str) -> Result<Symbol, PtxError> {
        for scope in self.scopes.iter().rev() {
            if let Some(symbol) = scope.names.get(name) {
                return Ok(*symbol);
            }
            if scope.closed {
                break;
            }
        }
        if let Some(at) = self.variables.iter().position(|variable| variable.name == name) {
            return Ok(Symbol::Memory(Constant::Variable(at), Space::Global));
        }
        for text in self.module.variables.iter().filter(|text| text.space == "shared") {
            if Declared::parse(text)?.name == name {
                return self.shared_variable(text);
            }
        }
        self.error(format!("unknown name {name}"))
    }

    /// The register of an operand: a register, a literal, a special register or an address.
    pub fn register(&mut self, text: &str, ty: Type) -> Result<Register, PtxError> {
        if let Some(value) = number(text, ty) {
            return Ok(self.constant(Constant::Value(value)));
        }
        if let Some(special) = special(text) {
            let to = self.fresh();
            let guard = self.guard.take();
            self.emit(Op::Special { special, to }, Class::Integer);
            self.guard = guard;
            return Ok(to);
        }
        match self.symbol(text)? {
            Symbol::Register(register, _) => Ok(register),
            Symbol::Memory(constant, _) => Ok(self.constant(constant)),
            Symbol::Predicate(_) => self.error(format!("predicate {text} where a register should be")),
            Symbol::Parameter(_) => self.error(format!("the address of the kernel's parameter {text} is taken")),
        }
    }

    /// A destination and its declared type; none for `_`.
    pub fn destination(&mut self, text: &str) -> Result<Option<(Register, Type)>, PtxError> {
        if text == "_" {
            return Ok(None);
        }
        match self.symbol(text)? {
            Symbol::Register(register, ty) => Ok(Some((register, ty))),
            _ => self.error(format!("{text} is no register")),
        }
    }

    /// `p` or `!p`, or a literal.
    pub fn predicate(&mut self, text: &str) -> Result<PredicateOperand, PtxError> {
        let (negated, name) = match text.strip_prefix('!') {
            Some(name) => (true, name.trim()),
            None => (false, text),
        };
        if let Some(value) = number(name, Type::B32) {
            let to = self.fresh_predicate();
            let itself = Guard {
                predicate: to,
                negated: false,
            };
            let guard = self.guard.take();
            let op = Op::Predicate {
                logic: Logic::Xor,
                negated: value != 0,
                to,
                from: [itself, itself],
            };
            self.emit(op, Class::Integer);
            self.guard = guard;
            return Ok(Guard { predicate: to, negated });
        }
        match self.symbol(name)? {
            Symbol::Predicate(predicate) => Ok(Guard { predicate, negated }),
            _ => self.error(format!("{name} is no predicate")),
        }
    }

    /// `[base+offset]`: the address and the space of a variable; an offset among a kernel's parameters instead, if the
    /// base is one.
    pub fn address(&mut self, text: &str) -> Result<(Result<Address, u32>, Option<Space>), PtxError> {
        let inner = text.trim_start_matches('[').trim_end_matches(']').trim();
        let (base, offset) = match inner.rfind('+') {
            Some(at) => (inner[..at].trim(), inner[at + 1..].trim()),
            None => (inner, "0"),
        };
        let Some(offset) = number(offset, Type::U64) else {
            return self.error(format!("offset {offset} of {text} is no number"));
        };
        let offset = offset as i64;
        if number(base, Type::U64).is_none()
            && let Symbol::Parameter(start) = self.symbol(base)?
        {
            return Ok((Err(start.wrapping_add(offset as u32)), None));
        }
        let space = match number(base, Type::U64) {
            None => match self.symbol(base)? {
                Symbol::Memory(_, space) => Some(space),
                _ => None,
            },
            Some(_) => None,
        };
        let base = self.register(base, Type::U64)?;
        Ok((Ok(Address { base, offset }), space))
    }
}

/// The name in the sources of `_ZZ9group_sumjfE9sum_terms` and the like: what stands behind the last length.
fn source_name(mangled: &str) -> String {
    if !mangled.starts_with("_Z") {
        return mangled.to_string();
    }
    let bytes = mangled.as_bytes();
    for start in 1..bytes.len() {
        let digits = mangled[start..].bytes().take_while(u8::is_ascii_digit).count();
        let length = mangled[start..start + digits].parse::<usize>();
        if let (Ok(length), false) = (length, bytes[start - 1].is_ascii_digit())
            && start + digits + length == mangled.len()
        {
            return mangled[start + digits..].to_string();
        }
    }
    mangled.to_string()
}

fn special(text: &str) -> Option<Special> {
    let dimension = |text: &str| ["x", "y", "z"].iter().position(|name| *name == text);
    let name = text.strip_prefix('%')?;
    if let Some((register, part)) = name.split_once('.') {
        let at = dimension(part)?;
        return Some(match register {
            "tid" => Special::Thread(at),
            "ntid" => Special::BlockSize(at),
            "ctaid" => Special::Block(at),
            "nctaid" => Special::GridSize(at),
            _ => return None,
        });
    }
    Some(match name {
        "laneid" => Special::Lane,
        "warpid" => Special::Warp,
        "nwarpid" => Special::Warps,
        "lanemask_eq" => Special::LaneMask(|lane| 1 << lane),
        "lanemask_le" => Special::LaneMask(|lane| u32::MAX >> (31 - lane)),
        "lanemask_lt" => Special::LaneMask(|lane| (1 << lane) - 1),
        "lanemask_ge" => Special::LaneMask(|lane| u32::MAX << lane),
        "lanemask_gt" => Special::LaneMask(|lane| (u32::MAX << lane) & !(1 << lane)),
        "clock" | "clock64" | "clock_hi" | "globaltimer" | "globaltimer_lo" => Special::Clock,
        "smid" => Special::Multiprocessor,
        "nsmid" => Special::Multiprocessors,
        "dynamic_smem_size" => Special::DynamicShared,
        "total_smem_size" => Special::TotalShared,
        _ => return None,
    })
}
