//! The instruction set: what threads do together.

use super::lower::Lowering;
use super::mnemonic::Mnemonic;
use super::operation::expect;
use super::text::split_list;
use super::{BarrierKind, Class, Constant, MatrixKind, Op, PtxError, Reduction, Register, ShuffleKind, Type, VoteKind};
use crate::ptx::Arithmetic;
use crate::ptx::AtomicKind;
use crate::semantics;

/// Barriers, exchanges within a warp and matrix products.
pub fn lower(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    match mnemonic.operation {
        "bar" | "barrier" => barrier(lowering, mnemonic, operands),
        "shfl" => shuffle(lowering, mnemonic, operands),
        "vote" => vote(lowering, mnemonic, operands),
        "match" => matching(lowering, mnemonic, operands),
        "redux" => reduction(lowering, mnemonic, operands),
        "activemask" => {
            let [to] = expect(lowering, operands)?;
            mnemonic.take_type();
            if let Some((to, _)) = lowering.destination(to)? {
                lowering.emit(Op::ActiveMask { to }, Class::Warp);
            }
            Ok(true)
        }
        _ => multiply(lowering, mnemonic, operands),
    }
}

fn barrier(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    if mnemonic.take("warp") {
        if !mnemonic.take("sync") {
            return Ok(false);
        }
        let [members] = expect(lowering, operands)?;
        let members = lowering.register(members, Type::B32)?;
        lowering.emit(Op::WarpSync { members }, Class::Warp);
        return Ok(true);
    }
    mnemonic.ignore(&["aligned", "cta"]);
    let mut count = false;
    let (kind, numbers) = if mnemonic.take("sync") {
        (BarrierKind::Sync, operands)
    } else if mnemonic.take("arrive") {
        (BarrierKind::Arrive, operands)
    } else if mnemonic.take("red") {
        let reductions = [
            ("popc", Reduction::Count),
            ("and", Reduction::All),
            ("or", Reduction::Any),
        ];
        let Some(reduction) = mnemonic.one_of(&reductions) else {
            return Ok(false);
        };
        count = matches!(reduction, Reduction::Count);
        mnemonic.take_type();
        let [to, numbers @ .., source] = operands else {
            return lowering.error("bar.red needs a destination and a predicate");
        };
        let source = lowering.predicate(source)?;
        let destination = if count {
            match lowering.destination(to)? {
                Some((to, _)) => to,
                None => lowering.fresh(),
            }
        } else {
            lowering.predicate(to)?.predicate
        };
        let kind = BarrierKind::Reduce {
            reduction,
            source,
            destination,
        };
        (kind, numbers)
    } else {
        return Ok(false);
    };
    let (number, threads) = match numbers {
        [] => (lowering.constant(Constant::Value(0)), None),
        [number] => (lowering.register(number, Type::U32)?, None),
        [number, threads] => {
            let number = lowering.register(number, Type::U32)?;
            (number, Some(lowering.register(threads, Type::U32)?))
        }
        _ => return lowering.error(format!("{} with {} operands", mnemonic.text, operands.len())),
    };
    let op = Op::Barrier {
        kind,
        number,
        threads,
        count,
    };
    lowering.emit(op, Class::Control);
    Ok(true)
}

/// `register|predicate`
fn with_predicate(lowering: &mut Lowering<'_>, text: &str) -> Result<(Option<Register>, Option<Register>), PtxError> {
    let (to, predicate) = match text.split_once('|') {
        Some((to, predicate)) => (to, Some(predicate)),
        None => (text, None),
    };
    let to = lowering.destination(to.trim())?.map(|(register, _)| register);
    let predicate = match predicate {
        Some(text) if text.trim() != "_" => Some(lowering.predicate(text.trim())?.predicate),
        _ => None,
    };
    Ok((to, predicate))
}

fn shuffle(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let kinds = [
        ("up", ShuffleKind::Up),
        ("down", ShuffleKind::Down),
        ("bfly", ShuffleKind::Butterfly),
        ("idx", ShuffleKind::Index),
    ];
    if !mnemonic.take("sync") {
        return lowering.error("shfl without .sync, which sm_70 and later do not have");
    }
    let Some(kind) = mnemonic.one_of(&kinds) else {
        return Ok(false);
    };
    if mnemonic.take_type().map(Type::bits) != Some(32) {
        return Ok(false);
    }
    let [to, a, b, c, members] = expect(lowering, operands)?;
    let (to, found) = with_predicate(lowering, to)?;
    let to = to.unwrap_or_else(|| lowering.fresh());
    let mut from = [0; 3];
    for (register, text) in from.iter_mut().zip([a, b, c]) {
        *register = lowering.register(text, Type::B32)?;
    }
    let members = lowering.register(members, Type::B32)?;
    let op = Op::Shuffle {
        kind,
        to,
        found,
        from,
        members,
    };
    lowering.emit(op, Class::Warp);
    Ok(true)
}

fn vote(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let kinds = [
        ("all", VoteKind::All),
        ("any", VoteKind::Any),
        ("uni", VoteKind::Uniform),
        ("ballot", VoteKind::Ballot),
    ];
    if !mnemonic.take("sync") {
        return lowering.error("vote without .sync, which sm_70 and later do not have");
    }
    let Some(kind) = mnemonic.one_of(&kinds) else {
        return Ok(false);
    };
    mnemonic.take_type();
    let [to, from, members] = expect(lowering, operands)?;
    let from = lowering.predicate(from)?;
    let to = match kind {
        VoteKind::Ballot => lowering.destination(to)?.map(|(register, _)| register),
        _ => Some(lowering.predicate(to)?.predicate),
    };
    let to = to.unwrap_or_else(|| lowering.fresh());
    let members = lowering.register(members, Type::B32)?;
    let op = Op::Vote {
        kind,
        to,
        from,
        members,
    };
    lowering.emit(op, Class::Warp);
    Ok(true)
}

fn matching(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let Some(all) = mnemonic.one_of(&[("all", true), ("any", false)]) else {
        return Ok(false);
    };
    let ty = match (mnemonic.take("sync"), mnemonic.take_type()) {
        (true, Some(ty)) => ty,
        _ => return Ok(false),
    };
    let [to, from, members] = expect(lowering, operands)?;
    let (to, same) = with_predicate(lowering, to)?;
    let to = to.unwrap_or_else(|| lowering.fresh());
    let from = lowering.register(from, ty)?;
    let members = lowering.register(members, Type::B32)?;
    let op = Op::Match {
        all,
        to,
        same,
        from,
        members,
    };
    lowering.emit(op, Class::Warp);
    Ok(true)
}

fn reduction(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    let names = ["add", "min", "max", "and", "or", "xor"];
    let name = names.iter().find(|name| mnemonic.take(name));
    let (Some(name), true, Some(ty)) = (name, mnemonic.take("sync"), mnemonic.take_type()) else {
        return Ok(false);
    };
    let Some(AtomicKind::Update(function)) = semantics::atomic(name, ty) else {
        return Ok(false);
    };
    let function: Arithmetic = function;
    let [to, from, members] = expect(lowering, operands)?;
    let to = lowering.destination(to)?.map(|(register, _)| register);
    let to = to.unwrap_or_else(|| lowering.fresh());
    let from = lowering.register(from, ty)?;
    let members = lowering.register(members, Type::B32)?;
    let op = Op::Reduce {
        function,
        to,
        from,
        members,
    };
    lowering.emit(op, Class::Warp);
    Ok(true)
}

fn multiply(lowering: &mut Lowering<'_>, mnemonic: &Mnemonic<'_>, operands: &[&str]) -> Result<bool, PtxError> {
    if !(mnemonic.take("sync") && mnemonic.take("aligned")) {
        return Ok(false);
    }
    let shapes = [("m16n8k16", 16), ("m16n8k8", 8), ("m16n8k4", 4)];
    let Some(depth) = mnemonic.one_of(&shapes) else {
        return Ok(false);
    };
    if !(mnemonic.take("row") && mnemonic.take("col")) {
        return Ok(false);
    }
    let types = [
        mnemonic.take_type(),
        mnemonic.take_type(),
        mnemonic.take_type(),
        mnemonic.take_type(),
    ];
    let kind = match (types.map(|ty| ty.unwrap_or(Type::Pred)), depth) {
        ([Type::F32, Type::F16, Type::F16, Type::F32], 8 | 16) => MatrixKind::F16 {
            depth,
            half_sums: false,
        },
        ([Type::F16, Type::F16, Type::F16, Type::F16], 8 | 16) => MatrixKind::F16 { depth, half_sums: true },
        ([Type::F32, Type::Bf16, Type::Bf16, Type::F32], 8 | 16) => MatrixKind::Bf16 { depth },
        ([Type::F32, Type::Tf32, Type::Tf32, Type::F32], 4 | 8) => MatrixKind::Tf32 { depth },
        _ => return Ok(false),
    };
    let [d, a, b, c] = expect(lowering, operands)?;
    let list = |text: &str| -> Vec<String> {
        let inner = text.trim_start_matches('{').trim_end_matches('}');
        split_list(inner).into_iter().map(str::to_string).collect()
    };
    let sums = if matches!(kind, MatrixKind::F16 { half_sums: true, .. }) {
        Type::B32
    } else {
        Type::F32
    };
    let destinations: Result<Vec<_>, _> = list(d).iter().map(|text| lowering.destination(text)).collect();
    let d: Vec<Register> = destinations?
        .into_iter()
        .flatten()
        .map(|(register, _)| register)
        .collect();
    let mut registers = |text: &str, ty: Type| -> Result<Vec<Register>, PtxError> {
        list(text).iter().map(|text| lowering.register(text, ty)).collect()
    };
    let (a, b, c) = (registers(a, Type::B32)?, registers(b, Type::B32)?, registers(c, sums)?);
    let (of_a, of_b, of_c) = crate::execute::fragment_sizes(kind);
    if (a.len(), b.len(), c.len(), d.len()) != (of_a, of_b, of_c, of_c) {
        return lowering.error(format!("{} with fragments of other sizes", mnemonic.text));
    }
    lowering.emit(Op::Multiply { kind, d, a, b, c }, Class::Matrix);
    Ok(true)
}
