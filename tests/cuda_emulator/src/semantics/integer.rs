//! Arithmetic on integers.

use super::{Computation, Flags};
use crate::ptx::{AtomicKind, Class, Mnemonic, Type};
use crate::rows::{CarryFunction, binary, ternary, unary};

/// All ones in the low bits.
pub fn ones(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

/// A value of a type as a number.
pub fn number(ty: Type, pattern: u64) -> i128 {
    let bits = ty.bits();
    let pattern = pattern & ones(bits);
    if ty.is_signed() {
        let shift = 64 - bits;
        i128::from(((pattern << shift) as i64) >> shift)
    } else {
        i128::from(pattern)
    }
}

/// Twice the width.
fn wide(ty: Type) -> Type {
    match ty {
        Type::U16 => Type::U32,
        Type::S16 => Type::S32,
        Type::U32 => Type::U64,
        _ => Type::S64,
    }
}

/// The clamped number as a pattern.
pub fn clamp(ty: Type, value: i128) -> u64 {
    let bits = ty.bits();
    let (low, high) = if ty.is_signed() {
        (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
    } else {
        (0, (1i128 << bits) - 1)
    };
    value.clamp(low, high) as u64 & ones(bits)
}

pub(super) fn find(mnemonic: &Mnemonic<'_>, ty: Type, flags: Flags) -> Option<Computation> {
    if matches!(ty, Type::Pred | Type::B8 | Type::U8 | Type::S8) {
        return None;
    }
    let bits = ty.bits();
    let mask = ones(bits);
    let one = |function| Computation::new(function, ty, &[ty], Class::Integer);
    let two = |function| Computation::new(function, ty, &[ty; 2], Class::Integer);
    let three = |function| Computation::new(function, ty, &[ty; 3], Class::Integer);
    let clamped = move |value: i128| clamp(ty, value);
    match mnemonic.operation {
        "add" if flags.sat => two(binary(move |a, b| clamped(number(ty, a) + number(ty, b)))),
        "sub" if flags.sat => two(binary(move |a, b| clamped(number(ty, a) - number(ty, b)))),
        "add" => two(binary(move |a, b| a.wrapping_add(b) & mask)),
        "sub" => two(binary(move |a, b| a.wrapping_sub(b) & mask)),
        "mul" | "mad" => products(mnemonic, ty),
        "div" => two(binary(move |a, b| match number(ty, b) {
            0 => mask,
            divisor => (number(ty, a) / divisor) as u64 & mask,
        })),
        "rem" => two(binary(move |a, b| match number(ty, b) {
            0 => a & mask,
            divisor => (number(ty, a) % divisor) as u64 & mask,
        })),
        "min" if bits == 32 && ty.is_signed() => two(binary(|a, b| u64::from((a as i32).min(b as i32) as u32))),
        "max" if bits == 32 && ty.is_signed() => two(binary(|a, b| u64::from((a as i32).max(b as i32) as u32))),
        "min" if ty.is_signed() => two(binary(move |a, b| if number(ty, a) <= number(ty, b) { a } else { b })),
        "max" if ty.is_signed() => two(binary(move |a, b| if number(ty, a) >= number(ty, b) { a } else { b })),
        "min" => two(binary(u64::min)),
        "max" => two(binary(u64::max)),
        "abs" => one(unary(move |a| number(ty, a).unsigned_abs() as u64 & mask)),
        "neg" => one(unary(move |a| a.wrapping_neg() & mask)),
        "sad" => three(ternary(move |a, b, c| {
            c.wrapping_add((number(ty, a) - number(ty, b)).unsigned_abs() as u64) & mask
        })),
        "dp4a" => dot_of_bytes(mnemonic, ty),
        _ => None,
    }
}

fn products(mnemonic: &Mnemonic<'_>, ty: Type) -> Option<Computation> {
    #[derive(Clone, Copy)]
    enum Part {
        Low,
        High,
        Wide,
    }
    let part = mnemonic.one_of(&[("lo", Part::Low), ("hi", Part::High), ("wide", Part::Wide)])?;
    let (bits, mask) = (ty.bits(), ones(ty.bits()));
    let add = mnemonic.operation == "mad";
    let (to, types) = match part {
        Part::Wide => (wide(ty), [ty, ty, wide(ty)]),
        _ => (ty, [ty; 3]),
    };
    let signed = ty.is_signed();
    let function = match (part, bits) {
        (Part::Low, _) if add => ternary(move |a, b, c| a.wrapping_mul(b).wrapping_add(c) & mask),
        (Part::Low, _) => binary(move |a, b| a.wrapping_mul(b) & mask),
        (Part::Wide, 32) if signed => {
            let product = |a: u64, b: u64| (i64::from(a as i32) * i64::from(b as i32)) as u64;
            ternary(move |a, b, c| product(a, b).wrapping_add(u64::from(add) * c))
        }
        (Part::Wide, 32) => ternary(move |a, b, c| (a * b).wrapping_add(u64::from(add) * c)),
        (Part::Wide, _) => {
            let wide_mask = ones(2 * bits);
            ternary(move |a, b, c| {
                ((number(ty, a) * number(ty, b)) as u64).wrapping_add(u64::from(add) * c) & wide_mask
            })
        }
        (Part::High, 32) if !signed => ternary(move |a, b, c| ((a * b) >> 32).wrapping_add(u64::from(add) * c) & mask),
        (Part::High, 64) if !signed => {
            ternary(move |a, b, c| (((u128::from(a) * u128::from(b)) >> 64) as u64).wrapping_add(u64::from(add) * c))
        }
        (Part::High, _) => ternary(move |a, b, c| {
            (((number(ty, a) * number(ty, b)) >> bits) as u64).wrapping_add(u64::from(add) * c) & mask
        }),
    };
    Computation::new(function, to, &types[..if add { 3 } else { 2 }], Class::Integer)
}

/// Four products of bytes, added to c; the type of the second operand's bytes is the next modifier.
fn dot_of_bytes(mnemonic: &Mnemonic<'_>, left: Type) -> Option<Computation> {
    let right = mnemonic.take_type()?;
    let byte = |word: u64, at: u32, signed: bool| {
        let byte = (word >> (8 * at)) as u8;
        if signed { i64::from(byte as i8) } else { i64::from(byte) }
    };
    let function = ternary(move |a, b, c| {
        let dot: i64 = (0..4)
            .map(|at| byte(a, at, left.is_signed()) * byte(b, at, right.is_signed()))
            .sum();
        c.wrapping_add(dot as u64) & ones(32)
    });
    let to = if left.is_signed() || right.is_signed() {
        Type::S32
    } else {
        Type::U32
    };
    Computation::new(function, to, &[Type::B32, Type::B32, to], Class::Integer)
}

/// An instruction with the carry bit: its function, whether it writes the bit, its type and its number of operands.
pub fn carry(mnemonic: &Mnemonic<'_>) -> Option<(CarryFunction, bool, Type, usize)> {
    fn sum32(a: u64, b: u64, _: u64, carry: bool) -> (u64, bool) {
        let sum = (a & ones(32)) + (b & ones(32)) + u64::from(carry);
        (sum & ones(32), sum >> 32 != 0)
    }
    fn sum64(a: u64, b: u64, _: u64, carry: bool) -> (u64, bool) {
        let sum = u128::from(a) + u128::from(b) + u128::from(carry);
        (sum as u64, sum >> 64 != 0)
    }
    // A borrow stands in the carry bit.
    fn difference32(a: u64, b: u64, _: u64, borrow: bool) -> (u64, bool) {
        let difference = (a & ones(32)) as i64 - (b & ones(32)) as i64 - i64::from(borrow);
        (difference as u64 & ones(32), difference < 0)
    }
    fn difference64(a: u64, b: u64, _: u64, borrow: bool) -> (u64, bool) {
        let difference = i128::from(a) - i128::from(b) - i128::from(borrow);
        (difference as u64, difference < 0)
    }
    fn low32(a: u64, b: u64, c: u64, carry: bool) -> (u64, bool) {
        sum32(a.wrapping_mul(b), c, 0, carry)
    }
    fn low64(a: u64, b: u64, c: u64, carry: bool) -> (u64, bool) {
        sum64(a.wrapping_mul(b), c, 0, carry)
    }
    fn high_u32(a: u64, b: u64, c: u64, carry: bool) -> (u64, bool) {
        sum32((a * b) >> 32, c, 0, carry)
    }
    fn high_s32(a: u64, b: u64, c: u64, carry: bool) -> (u64, bool) {
        let product = i64::from(a as i32) * i64::from(b as i32);
        sum32((product >> 32) as u64, c, 0, carry)
    }
    fn high_u64(a: u64, b: u64, c: u64, carry: bool) -> (u64, bool) {
        sum64(((u128::from(a) * u128::from(b)) >> 64) as u64, c, 0, carry)
    }
    let operation = mnemonic.operation;
    let reads = matches!(operation, "addc" | "subc" | "madc");
    let writes = mnemonic.take("cc");
    if !reads && !writes {
        return None;
    }
    let (low, high) = (mnemonic.take("lo"), mnemonic.take("hi"));
    let ty = mnemonic.take_type()?;
    let (function, operands): (CarryFunction, usize) = match (operation, ty.bits()) {
        ("add" | "addc", 32) => (sum32, 2),
        ("add" | "addc", 64) => (sum64, 2),
        ("sub" | "subc", 32) => (difference32, 2),
        ("sub" | "subc", 64) => (difference64, 2),
        ("mad" | "madc", 32) if low => (low32, 3),
        ("mad" | "madc", 64) if low => (low64, 3),
        ("mad" | "madc", 32) if high && ty.is_signed() => (high_s32, 3),
        ("mad" | "madc", 32) if high => (high_u32, 3),
        ("mad" | "madc", 64) if high && !ty.is_signed() => (high_u64, 3),
        _ => return None,
    };
    Some((function, writes, ty, operands))
}

/// What an atomic operation does; half precision and floating point sums round to nearest.
pub fn atomic(operation: &str, ty: Type) -> Option<AtomicKind> {
    fn halves(ty: Type, a: u64, b: u64) -> u64 {
        let sum = |shift: u32| {
            let (x, y) = ((a >> shift) & 0xffff, (b >> shift) & 0xffff);
            let sum = super::sticky_sum(super::decode(ty, x), super::decode(ty, y));
            super::encode(ty, sum, super::Rounding::Nearest) << shift
        };
        if ty.bits() == 16 { sum(0) } else { sum(0) | sum(16) }
    }
    let update: crate::ptx::Arithmetic = match (operation, ty) {
        ("add", Type::U32 | Type::S32) => |a, b| (a + b) & ones(32),
        ("add", Type::U64 | Type::S64) => u64::wrapping_add,
        ("add", Type::F32) => |a, b| u64::from((f32::from_bits(a as u32) + f32::from_bits(b as u32)).to_bits()),
        ("add", Type::F64) => |a, b| (f64::from_bits(a) + f64::from_bits(b)).to_bits(),
        ("add", Type::F16) => |a, b| halves(Type::F16, a, b),
        ("add", Type::F16x2) => |a, b| halves(Type::F16x2, a, b),
        ("add", Type::Bf16) => |a, b| halves(Type::Bf16, a, b),
        ("add", Type::Bf16x2) => |a, b| halves(Type::Bf16x2, a, b),
        ("min", Type::U32 | Type::U64) => u64::min,
        ("max", Type::U32 | Type::U64) => u64::max,
        ("min", Type::S32) => |a, b| u64::from((a as i32).min(b as i32) as u32),
        ("max", Type::S32) => |a, b| u64::from((a as i32).max(b as i32) as u32),
        ("min", Type::S64) => |a, b| (a as i64).min(b as i64) as u64,
        ("max", Type::S64) => |a, b| (a as i64).max(b as i64) as u64,
        ("inc", Type::U32) => |a, b| if a >= b { 0 } else { a + 1 },
        ("dec", Type::U32) => |a, b| if a == 0 || a > b { b } else { a - 1 },
        ("and", Type::B32 | Type::B64) => |a, b| a & b,
        ("or", Type::B32 | Type::B64) => |a, b| a | b,
        ("xor", Type::B32 | Type::B64) => |a, b| a ^ b,
        ("exch", Type::B32 | Type::B64) => |_, b| b,
        ("cas", Type::B16 | Type::B32 | Type::B64) => return Some(AtomicKind::CompareAndSwap),
        _ => return None,
    };
    Some(AtomicKind::Update(update))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, a: u64, b: u64, c: u64) -> u64 {
        let mnemonic = Mnemonic::new(text);
        let found = crate::semantics::find(&mnemonic).unwrap_or_else(|| panic!("{text} is unknown"));
        assert_eq!(mnemonic.rest(), None, "{text}");
        let mut out = [0; 32];
        (found.function)(&[a; 32], &[b; 32], &[c; 32], &mut out);
        out[7]
    }

    #[test]
    fn products_have_halves_and_signs() {
        assert_eq!(run("mul.hi.u32", 0xffff_ffff, 0xffff_ffff, 0), 0xffff_fffe);
        assert_eq!(run("mul.hi.s32", 0xffff_ffff, 0xffff_ffff, 0), 0);
        assert_eq!(run("mul.wide.s32", 0xffff_ffff, 2, 0), u64::MAX - 1);
        assert_eq!(run("mul.wide.u16", 0xffff, 0xffff, 0), 0xfffe_0001);
        assert_eq!(run("mad.lo.s32", 0xffff_ffff, 3, 1), 0xffff_fffe);
        assert_eq!(run("mad.wide.u32", 0xffff_ffff, 2, 3), 0x2_0000_0001);
        assert_eq!(run("mul.hi.s64", u64::MAX, 5, 0), u64::MAX);
    }

    #[test]
    fn signs_matter_where_they_should() {
        assert_eq!(run("div.s32", 0xffff_fff9, 2, 0), 0xffff_fffd);
        assert_eq!(run("rem.s32", 0xffff_fff9, 2, 0), 0xffff_ffff);
        assert_eq!(run("min.s32", 0xffff_ffff, 1, 0), 0xffff_ffff);
        assert_eq!(run("min.u32", 0xffff_ffff, 1, 0), 1);
        assert_eq!(run("shr.s32", 0x8000_0000, 31, 0), 0xffff_ffff);
        assert_eq!(run("shr.s32", 0x8000_0000, 40, 0), 0xffff_ffff);
        assert_eq!(run("shr.u32", 0x8000_0000, 40, 0), 0);
        assert_eq!(run("add.sat.s32", 0x7fff_ffff, 1, 0), 0x7fff_ffff);
        assert_eq!(run("abs.s32", 0xffff_fffe, 0, 0), 2);
        assert_eq!(run("dp4a.s32.s32", 0xff01_0203, 0x0102_0304, 10), 10 + 12 + 6 + 2 - 1);
    }
}
