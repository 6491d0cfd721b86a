//! The instruction set: memory.

use super::lower::Lowering;
use super::mnemonic::Mnemonic;
use super::operation::expect;
use super::scope::number;
use super::text::split_list;
use super::{Address, Class, Op, PtxError, Register, Space, Type, operation};
use crate::semantics;

/// Hints about caches and orders, which change nothing here: memory is coherent, and races are found.
const HINTS: &[&str] = &[
    "ca",
    "cg",
    "cs",
    "cv",
    "lu",
    "wb",
    "wt",
    "nc",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "volatile",
    "relaxed",
    "acquire",
    "release",
    "acq_rel",
    "weak",
    "cta",
    "gpu",
    "sys",
    "noftz",
];

/// `ld`, `st`, `atom`, `red`, `cp.async` and `ldmatrix`.
pub fn lower(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    match mnemonic.operation {
        "ld" | "ldu" => load(lowering, mnemonic, operands),
        "st" => store(lowering, mnemonic, operands),
        "atom" | "red" => atomic(lowering, mnemonic, operands),
        "ldmatrix" => load_matrix(lowering, mnemonic, operands),
        _ => copy(lowering, mnemonic, operands),
    }
}

/// The space that a mnemonic names; none is generic.
fn space(mnemonic: &Mnemonic<'_>) -> Space {
    let spaces = [
        ("global", Space::Global),
        ("const", Space::Global),
        ("shared", Space::Shared),
        ("shared::cta", Space::Shared),
        ("local", Space::Local),
    ];
    mnemonic.one_of(&spaces).unwrap_or(Space::Generic)
}

/// Elements of a vector.
fn vector(mnemonic: &Mnemonic<'_>) -> usize {
    mnemonic.one_of(&[("v2", 2), ("v4", 4)]).unwrap_or(1)
}

/// The parts of `{a, b}`, or the operand itself.
fn parts(text: &str) -> Vec<&str> {
    split_list(text.trim_start_matches('{').trim_end_matches('}'))
}

/// An address in memory, as opposed to a kernel's parameter.
fn in_memory(lowering: &mut Lowering<'_>, text: &str) -> Result<(Address, Option<Space>), PtxError> {
    match lowering.address(text)? {
        (Ok(address), space) => Ok((address, space)),
        (Err(_), _) => lowering.error(format!("{text} is a parameter of the kernel")),
    }
}

fn load(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let [to, from] = expect(lowering, operands)?;
    let parameter = mnemonic.take("param");
    let space = space(mnemonic);
    mnemonic.ignore(HINTS);
    let count = vector(mnemonic);
    let Some(ty) = mnemonic.take_type() else {
        return Ok(false);
    };
    let destinations: Result<Vec<_>, _> = parts(to).iter().map(|text| lowering.destination(text)).collect();
    let destinations = destinations?;
    if destinations.len() != count {
        return lowering.error(format!("{} of {} registers", mnemonic.text, destinations.len()));
    }
    let widest = destinations
        .iter()
        .flatten()
        .map(|(_, ty)| ty.bits())
        .max()
        .unwrap_or(0);
    let sign_bits = if ty.is_signed() && widest > ty.bits() {
        widest
    } else {
        0
    };
    let to: Vec<Option<Register>> = destinations.iter().map(|to| to.map(|(register, _)| register)).collect();
    let bytes = ty.bytes();
    match lowering.address(from)? {
        (Err(offset), _) if parameter => {
            for (at, to) in (0..).zip(to) {
                if let Some(to) = to {
                    let op = Op::Parameter {
                        to,
                        offset: offset + at * bytes,
                        bytes,
                        sign_bits,
                    };
                    lowering.emit(op, Class::Memory);
                }
            }
        }
        (Ok(address), Some(Space::Local)) if parameter => {
            emit_load(lowering, Space::Local, address, bytes, sign_bits, to);
        }
        (Ok(address), _) if !parameter => emit_load(lowering, space, address, bytes, sign_bits, to),
        _ => return lowering.error(format!("{from} is not in the space of {}", mnemonic.text)),
    }
    Ok(true)
}

fn emit_load(
    lowering: &mut Lowering<'_>,
    space: Space,
    address: Address,
    bytes: u32,
    sign_bits: u32,
    to: Vec<Option<Register>>,
) {
    let site = lowering.site();
    let op = Op::Load {
        space,
        address,
        bytes,
        sign_bits,
        to,
        site,
    };
    lowering.emit(op, Class::Memory);
}

fn store(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let [to, from] = expect(lowering, operands)?;
    let parameter = mnemonic.take("param");
    let space = space(mnemonic);
    mnemonic.ignore(HINTS);
    let count = vector(mnemonic);
    let Some(ty) = mnemonic.take_type() else {
        return Ok(false);
    };
    let from: Result<Vec<Register>, _> = parts(from).iter().map(|text| lowering.register(text, ty)).collect();
    let from = from?;
    if from.len() != count {
        return lowering.error(format!("{} of {} registers", mnemonic.text, from.len()));
    }
    let (address, found) = in_memory(lowering, to)?;
    let space = match (parameter, found) {
        (true, Some(Space::Local)) => Space::Local,
        (true, _) => return lowering.error(format!("{to} is not in .param space")),
        (false, _) => space,
    };
    let site = lowering.site();
    let op = Op::Store {
        space,
        address,
        bytes: ty.bytes(),
        from,
        site,
    };
    lowering.emit(op, Class::Memory);
    Ok(true)
}

fn atomic(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let names = ["add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas"];
    let space = space(mnemonic);
    mnemonic.ignore(HINTS);
    let Some(name) = names.iter().find(|name| mnemonic.take(name)) else {
        return Ok(false);
    };
    let Some(ty) = mnemonic.take_type() else {
        return Ok(false);
    };
    let Some(kind) = semantics::atomic(name, ty) else {
        return Ok(false);
    };
    let (to, rest) = match (mnemonic.operation, operands) {
        ("atom", [to, rest @ ..]) => (lowering.destination(to)?.map(|(register, _)| register), rest),
        _ => (None, operands),
    };
    let (address, value, second) = match (*name, rest) {
        ("cas", [address, compared, value]) => (address, compared, value),
        ("cas", _) => return lowering.error("cas needs two values"),
        (_, [address, value]) => (address, value, value),
        _ => return lowering.error(format!("{} with {} operands", mnemonic.text, operands.len())),
    };
    let (address, _) = in_memory(lowering, address)?;
    let from = [lowering.register(value, ty)?, lowering.register(second, ty)?];
    lowering.has_global_atomics |= space != Space::Shared;
    let site = lowering.site();
    let op = Op::Atomic {
        space,
        address,
        bytes: ty.bytes(),
        kind,
        to,
        from,
        site,
    };
    lowering.emit(op, Class::Memory);
    Ok(true)
}

fn load_matrix(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let [to, from] = expect(lowering, operands)?;
    if !(mnemonic.take("sync") && mnemonic.take("aligned") && mnemonic.take("m8n8")) {
        return Ok(false);
    }
    let Some(count) = mnemonic.one_of(&[("x1", 1), ("x2", 2), ("x4", 4)]) else {
        return Ok(false);
    };
    let transposed = mnemonic.take("trans");
    let shared = mnemonic.take("shared") || mnemonic.take("shared::cta");
    if mnemonic.take_type() != Some(Type::B16) {
        return Ok(false);
    }
    if !shared {
        return lowering.error("ldmatrix of a generic address: say .shared");
    }
    let destinations: Result<Vec<_>, _> = parts(to).iter().map(|text| lowering.destination(text)).collect();
    let to: Vec<Register> = destinations?
        .into_iter()
        .flatten()
        .map(|(register, _)| register)
        .collect();
    if to.len() != count {
        return lowering.error(format!("{} of {} registers", mnemonic.text, to.len()));
    }
    let (address, _) = in_memory(lowering, from)?;
    let site = lowering.site();
    let op = Op::LoadMatrix {
        address,
        transposed,
        to,
        site,
    };
    lowering.emit(op, Class::Memory);
    Ok(true)
}

/// `cp.async` and what waits for it.
fn copy(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    if !mnemonic.take("async") {
        return Ok(false);
    }
    if mnemonic.take("commit_group") {
        lowering.emit(Op::CopyCommit, Class::Memory);
        return Ok(true);
    }
    if mnemonic.take("wait_all") {
        lowering.emit(Op::CopyWait { groups: None }, Class::Memory);
        return Ok(true);
    }
    if mnemonic.take("wait_group") {
        let [groups] = expect(lowering, operands)?;
        let Some(groups) = number(groups, Type::U32) else {
            return lowering.error(format!("{groups} is no number of groups"));
        };
        let groups = Some(groups as u32);
        lowering.emit(Op::CopyWait { groups }, Class::Memory);
        return Ok(true);
    }
    let through_l1 = mnemonic.take("ca");
    if !(through_l1 || mnemonic.take("cg")) || !mnemonic.take("global") {
        return Ok(false);
    }
    if !(mnemonic.take("shared") || mnemonic.take("shared::cta")) {
        return Ok(false);
    }
    mnemonic.ignore(HINTS);
    let [to, from, bytes, rest @ ..] = operands else {
        return lowering.error(format!("{} with {} operands", mnemonic.text, operands.len()));
    };
    let bytes = match (number(bytes, Type::U32), through_l1) {
        (Some(bytes @ (4 | 8)), true) => bytes as u32,
        (Some(16), _) => 16,
        _ => return lowering.error(format!("{} of {bytes} bytes", mnemonic.text)),
    };
    let (to, _) = in_memory(lowering, to)?;
    let (from, _) = in_memory(lowering, from)?;
    let (source_bytes, ignore) = match rest {
        [] => (None, None),
        [operand] if operation::is_predicate(lowering, operand) => (None, Some(lowering.predicate(operand)?)),
        [operand] => (Some(lowering.register(operand, Type::U32)?), None),
        _ => return lowering.error(format!("{} with a cache policy", mnemonic.text)),
    };
    let site = lowering.site();
    let op = Op::CopyAsync {
        to,
        from,
        bytes,
        source_bytes,
        ignore,
        site,
    };
    lowering.emit(op, Class::Memory);
    Ok(true)
}
