//! The instruction set: arithmetic, moves, comparisons and jumps.

use super::lower::Lowering;
use super::mnemonic::Mnemonic;
use super::scope::{Symbol, number};
use super::text::split_list;
use super::{Class, Constant, Logic, Op, PredicateOperand, PtxError, Register, Space, Type, collective, data};
use crate::rows::{self, binary};
use crate::semantics;

/// Adds an instruction to the kernel.
pub fn lower(lowering: &mut Lowering<'_>, text: &str) -> Result<(), PtxError> {
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let operands = split_list(rest);
    let mnemonic = Mnemonic::new(name);
    let known = one(lowering, &mnemonic, &operands)?;
    match mnemonic.rest() {
        _ if !known => lowering.error(format!("unknown instruction {name}")),
        Some(rest) => lowering.error(format!("unknown modifier {rest} of {name}")),
        None => Ok(()),
    }
}

/// Exactly this many operands.
pub fn expect<'t, const N: usize>(lowering: &Lowering<'_>, operands: &[&'t str]) -> Result<[&'t str; N], PtxError> {
    match operands.try_into() {
        Ok(operands) => Ok(operands),
        Err(_) => lowering.error(format!("{} operands where {N} should be", operands.len())),
    }
}

fn one(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    match mnemonic.operation {
        "ld" | "ldu" | "st" | "atom" | "red" | "cp" | "ldmatrix" => return data::lower(lowering, mnemonic, operands),
        "bar" | "barrier" | "shfl" | "vote" | "match" | "redux" | "activemask" | "mma" => {
            return collective::lower(lowering, mnemonic, operands);
        }
        "membar" | "fence" => {
            mnemonic.ignore(&[
                "cta", "gl", "sys", "gpu", "sc", "acq_rel", "acquire", "release", "proxy", "async",
            ]);
            lowering.emit(Op::Nothing, Class::Memory);
        }
        "prefetch" | "prefetchu" | "discard" | "applypriority" => {
            mnemonic.ignore(&["global", "local", "L1", "L2", "L2::evict_last", "L2::evict_normal"]);
            lowering.emit(Op::Nothing, Class::Memory);
        }
        "nanosleep" | "pmevent" => {
            mnemonic.ignore(&["u32", "mask"]);
            lowering.emit(Op::Nothing, Class::Control);
        }
        "bra" => {
            mnemonic.take("uni");
            let [label] = expect(lowering, operands)?;
            lowering.branch(label);
        }
        "brx" => {
            mnemonic.take("idx");
            mnemonic.take("uni");
            let [index, list] = expect(lowering, operands)?;
            let index = lowering.register(index, Type::U32)?;
            lowering.branch_indexed(index, list)?;
        }
        "call" => {
            mnemonic.take("uni");
            lowering.call(operands)?;
        }
        "ret" => {
            mnemonic.take("uni");
            lowering.return_from();
        }
        "exit" => lowering.emit(Op::Exit, Class::Control),
        "trap" | "brkpt" => lowering.emit(Op::Trap, Class::Control),
        "mov" => return moved(lowering, mnemonic, operands),
        "cvta" => return address_conversion(lowering, mnemonic, operands),
        "setp" | "set" | "testp" => return comparison(lowering, mnemonic, operands),
        "selp" => return selection(lowering, mnemonic, operands),
        "and" | "or" | "xor" | "not" if mnemonic.take("pred") => return logic(lowering, mnemonic, operands),
        "lop3" => return lookup(lowering, mnemonic, operands),
        "bfi" => return insertion(lowering, mnemonic, operands),
        _ if carry(lowering, mnemonic, operands)? => {}
        _ => return computation(lowering, mnemonic, operands),
    }
    Ok(true)
}

/// Anything that is a function of registers.
fn computation(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let Some(found) = semantics::find(mnemonic) else {
        return Ok(false);
    };
    if operands.len() != found.from.len() + 1 {
        return lowering.error(format!("{} with {} operands", mnemonic.text, operands.len()));
    }
    let mut from = [0; 3];
    for ((register, text), ty) in from.iter_mut().zip(&operands[1..]).zip(&found.from) {
        *register = lowering.register(text, *ty)?;
    }
    let Some((to, declared)) = lowering.destination(operands[0])? else {
        return Ok(true);
    };
    // cvt writes narrow signed values to wide registers with their sign.
    let function = if mnemonic.operation == "cvt" && found.to.is_signed() && declared.bits() > found.to.bits() {
        extended(found.function, found.to.bits(), declared.bits())
    } else {
        found.function
    };
    lowering.emit(Op::Compute { function, to, from }, found.class);
    Ok(true)
}

/// A function whose result of some bits is extended with its sign.
fn extended(function: rows::RowFunction, from: u32, to: u32) -> rows::RowFunction {
    Box::new(move |a, b, c, out| {
        function(a, b, c, out);
        for value in out {
            *value = (((*value << (64 - from)) as i64) >> (64 - from)) as u64 & (u64::MAX >> (64 - to));
        }
    })
}

fn carry(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    if !matches!(mnemonic.operation, "add" | "addc" | "sub" | "subc" | "mad" | "madc") {
        return Ok(false);
    }
    let Some((function, writes, ty, count)) = semantics::carry(mnemonic) else {
        return Ok(false);
    };
    if operands.len() != count + 1 {
        return lowering.error(format!("{} with {} operands", mnemonic.text, operands.len()));
    }
    let reads = mnemonic.operation.ends_with('c');
    let mut from = [0; 3];
    for (register, text) in from.iter_mut().zip(&operands[1..]) {
        *register = lowering.register(text, ty)?;
    }
    if let Some((to, _)) = lowering.destination(operands[0])? {
        let op = Op::Carry {
            function,
            reads,
            writes,
            to,
            from,
        };
        lowering.emit(op, Class::Integer);
    }
    Ok(true)
}

fn moved(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let [to, from] = expect(lowering, operands)?;
    let Some(ty) = mnemonic.take_type() else {
        return Ok(false);
    };
    if ty == Type::Pred {
        let from = lowering.predicate(from)?;
        let to = lowering.predicate(to)?.predicate;
        emit_logic(lowering, Logic::Or, false, to, [from, from]);
        return Ok(true);
    }
    if let Some(list) = from.strip_prefix('{') {
        let list = split_list(list.trim_end_matches('}'));
        let bits = ty.bits() / list.len().max(1) as u32;
        let part = narrow(bits);
        let parts: Result<Vec<Register>, _> = list.iter().map(|text| lowering.register(text, part)).collect();
        let parts = parts?;
        if let Some((to, _)) = lowering.destination(to)? {
            lowering.emit(Op::Pack { to, parts, bits }, Class::Integer);
        }
        return Ok(true);
    }
    if let Some(list) = to.strip_prefix('{') {
        let list = split_list(list.trim_end_matches('}'));
        let bits = ty.bits() / list.len().max(1) as u32;
        let from = lowering.register(from, ty)?;
        let parts: Result<Vec<_>, _> = list.iter().map(|text| lowering.destination(text)).collect();
        let parts = parts?
            .into_iter()
            .map(|part| part.map(|(register, _)| register))
            .collect();
        lowering.emit(Op::Unpack { parts, bits, from }, Class::Integer);
        return Ok(true);
    }
    let from = lowering.register(from, ty)?;
    copy(lowering, to, from)?;
    Ok(true)
}

fn narrow(bits: u32) -> Type {
    match bits {
        8 => Type::B8,
        16 => Type::B16,
        32 => Type::B32,
        _ => Type::B64,
    }
}

fn copy(lowering: &mut Lowering<'_>, to: &str, from: Register) -> Result<(), PtxError> {
    if let Some((to, _)) = lowering.destination(to)? {
        let op = Op::Compute {
            function: rows::unary(|a| a),
            to,
            from: [from, from, from],
        };
        lowering.emit(op, Class::Integer);
    }
    Ok(())
}

/// `cvta`: between generic addresses and those of a space, which differ by where the space's window starts.
fn address_conversion(
    lowering: &mut Lowering<'_>,
    mnemonic: &Mnemonic<'_>,
    operands: &[&str],
) -> Result<bool, PtxError> {
    let [to, from] = expect(lowering, operands)?;
    let back = mnemonic.take("to");
    let spaces = [
        ("global", Space::Global),
        ("const", Space::Global),
        ("shared", Space::Shared),
        ("shared::cta", Space::Shared),
        ("local", Space::Local),
    ];
    let Some(space) = mnemonic.one_of(&spaces) else {
        return Ok(false);
    };
    if mnemonic.take_type() != Some(Type::U64) {
        return Ok(false);
    }
    let from = lowering.register(from, Type::U64)?;
    let start = crate::execute::window(space);
    let start = lowering.constant(Constant::Value(if back { start.wrapping_neg() } else { start }));
    if let Some((to, _)) = lowering.destination(to)? {
        let op = Op::Compute {
            function: binary(u64::wrapping_add),
            to,
            from: [from, start, start],
        };
        lowering.emit(op, Class::Integer);
    }
    Ok(true)
}

fn comparison(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let property = mnemonic.operation == "testp";
    let Some(name) = mnemonic.next() else {
        return Ok(false);
    };
    let logic = mnemonic.one_of(&[("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)]);
    let ftz = mnemonic.take("ftz");
    // set has the type of its result before that of its operands.
    let result = (mnemonic.operation == "set").then(|| mnemonic.take_type()).flatten();
    let Some(ty) = mnemonic.take_type() else {
        return Ok(false);
    };
    let function = if property {
        semantics::test_property(name, ty)
    } else {
        semantics::comparison_of(name, ty, ftz)
    };
    let Some(function) = function else {
        return Ok(false);
    };
    let wanted = if property { 2 } else { 3 } + usize::from(logic.is_some());
    if operands.len() != wanted {
        return lowering.error(format!("{} with {} operands", mnemonic.text, operands.len()));
    }
    let a = lowering.register(operands[1], ty)?;
    let b = if property {
        a
    } else {
        lowering.register(operands[2], ty)?
    };
    let combine = match logic {
        None => None,
        Some(logic) => Some((logic, lowering.predicate(operands[3])?)),
    };
    if let Some(result) = result {
        let ones = if result == Type::F32 {
            0x3f80_0000
        } else {
            u64::MAX >> (64 - result.bits())
        };
        let ones = lowering.constant(Constant::Value(ones));
        let zero = lowering.constant(Constant::Value(0));
        let predicate = lowering.fresh_predicate();
        emit_compare(lowering, function, Some(predicate), None, [a, b], combine);
        if let Some((to, _)) = lowering.destination(operands[0])? {
            let predicate = PredicateOperand {
                predicate,
                negated: false,
            };
            let from = [ones, zero];
            lowering.emit(Op::Select { to, from, predicate }, Class::Integer);
        }
        return Ok(true);
    }
    let (first, second) = match operands[0].split_once('|') {
        Some((first, second)) => (first, Some(second)),
        None => (operands[0], None),
    };
    let mut predicate = |text: &str| -> Result<Option<Register>, PtxError> {
        Ok(if text == "_" {
            None
        } else {
            Some(lowering.predicate(text)?.predicate)
        })
    };
    let to = predicate(first)?;
    let opposite = second.map(&mut predicate).transpose()?.flatten();
    emit_compare(lowering, function, to, opposite, [a, b], combine);
    Ok(true)
}

fn emit_compare(
    lowering: &mut Lowering<'_>,
    function: rows::MaskFunction,
    to: Option<Register>,
    opposite: Option<Register>,
    from: [Register; 2],
    combine: Option<(Logic, PredicateOperand)>,
) {
    let op = Op::Compare {
        function,
        to,
        opposite,
        from,
        combine,
    };
    lowering.emit(op, Class::Integer);
}

fn selection(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let [to, yes, no, predicate] = expect(lowering, operands)?;
    let Some(ty) = mnemonic.take_type() else {
        return Ok(false);
    };
    let from = [lowering.register(yes, ty)?, lowering.register(no, ty)?];
    let predicate = lowering.predicate(predicate)?;
    if let Some((to, _)) = lowering.destination(to)? {
        lowering.emit(Op::Select { to, from, predicate }, Class::Integer);
    }
    Ok(true)
}

fn logic(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let (logic, negated) = match mnemonic.operation {
        "and" => (Logic::And, false),
        "or" => (Logic::Or, false),
        "xor" => (Logic::Xor, false),
        _ => (Logic::Or, true),
    };
    let Some(to) = operands.first() else {
        return Ok(false);
    };
    let to = lowering.predicate(to)?.predicate;
    let from: Result<Vec<_>, _> = operands[1..].iter().map(|text| lowering.predicate(text)).collect();
    let from = match (negated, from?.as_slice()) {
        (true, [a]) => [*a, *a],
        (false, [a, b]) => [*a, *b],
        _ => return lowering.error(format!("{} with {} operands", mnemonic.text, operands.len())),
    };
    emit_logic(lowering, logic, negated, to, from);
    Ok(true)
}

fn emit_logic(lowering: &mut Lowering<'_>, logic: Logic, negated: bool, to: Register, from: [PredicateOperand; 2]) {
    let op = Op::Predicate {
        logic,
        negated,
        to,
        from,
    };
    lowering.emit(op, Class::Integer);
}

fn lookup(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    if mnemonic.take_type() != Some(Type::B32) {
        return Ok(false);
    }
    let [to, a, b, c, table] = expect(lowering, operands)?;
    let Some(table) = number(table, Type::B8) else {
        return lowering.error(format!("the table {table} of lop3 is no number"));
    };
    let mut from = [0; 3];
    for (register, text) in from.iter_mut().zip([a, b, c]) {
        *register = lowering.register(text, Type::B32)?;
    }
    if let Some((to, _)) = lowering.destination(to)? {
        let function = semantics::lookup(table as u8);
        lowering.emit(Op::Compute { function, to, from }, Class::Integer);
    }
    Ok(true)
}

/// `bfi` has four operands: position and length become one.
fn insertion(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let ty = match mnemonic.take_type() {
        Some(ty @ (Type::B32 | Type::B64)) => ty,
        _ => return Ok(false),
    };
    let [to, a, b, start, length] = expect(lowering, operands)?;
    let (a, b) = (lowering.register(a, ty)?, lowering.register(b, ty)?);
    let field = match (number(start, Type::U32), number(length, Type::U32)) {
        (Some(start), Some(length)) => lowering.constant(Constant::Value(start | length << 32)),
        _ => {
            let (start, length) = (
                lowering.register(start, Type::U32)?,
                lowering.register(length, Type::U32)?,
            );
            let both = lowering.fresh();
            let op = Op::Compute {
                function: binary(|start, length| (start & 0xffff_ffff) | length << 32),
                to: both,
                from: [start, length, length],
            };
            lowering.emit(op, Class::Integer);
            both
        }
    };
    if let Some((to, _)) = lowering.destination(to)? {
        let op = Op::Compute {
            function: semantics::insertion(ty),
            to,
            from: [a, b, field],
        };
        lowering.emit(op, Class::Integer);
    }
    Ok(true)
}

/// Whether a text names a predicate.
pub fn is_predicate(lowering: &mut Lowering<'_>, text: &str) -> bool {
    matches!(lowering.symbol(text.trim_start_matches('!')), Ok(Symbol::Predicate(_)))
}
