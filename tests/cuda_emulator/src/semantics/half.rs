//! Arithmetic on f16 and bf16, alone and in pairs: computed exactly, rounded once.

use super::{Computation, Flags, Rounding, decode, encode, sticky_sum};
use crate::ptx::{Class, Mnemonic, Type};
use crate::rows::ternary;

const SIGN: u64 = 0x8000;

/// One half's function of up to three patterns.
type HalfFunction = fn(Type, Flags, u64, u64, u64) -> u64;

/// What the flags do to a result.
fn rounded(ty: Type, flags: Flags, x: f64) -> u64 {
    let clamped = if flags.sat && x.is_nan() {
        0.0
    } else if flags.sat {
        x.clamp(0.0, 1.0)
    } else if flags.relu && x < 0.0 {
        0.0
    } else {
        x
    };
    flushed(ty, flags, encode(ty, clamped, flags.rounding))
}

fn flushed(ty: Type, flags: Flags, pattern: u64) -> u64 {
    let exponent = if matches!(ty, Type::F16 | Type::F16x2) {
        0x7c00
    } else {
        0x7f80
    };
    if flags.ftz && pattern & exponent == 0 {
        pattern & SIGN
    } else {
        pattern
    }
}

fn read(ty: Type, flags: Flags, pattern: u64) -> f64 {
    decode(ty, flushed(ty, flags, pattern))
}

fn sum(ty: Type, flags: Flags, a: u64, b: u64, _: u64) -> u64 {
    rounded(ty, flags, sticky_sum(read(ty, flags, a), read(ty, flags, b)))
}

fn difference(ty: Type, flags: Flags, a: u64, b: u64, _: u64) -> u64 {
    rounded(ty, flags, sticky_sum(read(ty, flags, a), -read(ty, flags, b)))
}

fn product(ty: Type, flags: Flags, a: u64, b: u64, _: u64) -> u64 {
    rounded(ty, flags, read(ty, flags, a) * read(ty, flags, b))
}

fn fused(ty: Type, flags: Flags, a: u64, b: u64, c: u64) -> u64 {
    let product = read(ty, flags, a) * read(ty, flags, b);
    rounded(ty, flags, sticky_sum(product, read(ty, flags, c)))
}

fn smaller(ty: Type, flags: Flags, a: u64, b: u64, _: u64) -> u64 {
    extreme(ty, flags, a, b, false)
}

fn larger(ty: Type, flags: Flags, a: u64, b: u64, _: u64) -> u64 {
    extreme(ty, flags, a, b, true)
}

fn extreme(ty: Type, flags: Flags, a: u64, b: u64, largest: bool) -> u64 {
    let (a, b) = (flushed(ty, flags, a), flushed(ty, flags, b));
    let (x, y) = (decode(ty, a), decode(ty, b));
    match (x.is_nan(), y.is_nan()) {
        (true, true) => 0x7fff,
        (true, false) | (false, true) if flags.nan => 0x7fff,
        (true, false) => b,
        (false, true) => a,
        _ if x == y => {
            if largest {
                a & b
            } else {
                a | b
            }
        }
        _ => {
            if (x < y) == largest {
                b
            } else {
                a
            }
        }
    }
}

fn opposite(ty: Type, flags: Flags, a: u64, _: u64, _: u64) -> u64 {
    flushed(ty, flags, a) ^ SIGN
}

fn magnitude(ty: Type, flags: Flags, a: u64, _: u64, _: u64) -> u64 {
    flushed(ty, flags, a) & !SIGN
}

fn power_of_two(ty: Type, flags: Flags, a: u64, _: u64, _: u64) -> u64 {
    rounded(ty, flags, read(ty, flags, a).exp2())
}

fn hyperbolic_tangent(ty: Type, flags: Flags, a: u64, _: u64, _: u64) -> u64 {
    rounded(ty, flags, read(ty, flags, a).tanh())
}

pub(super) fn find(mnemonic: &Mnemonic<'_>, ty: Type, flags: Flags) -> Option<Computation> {
    if flags.rounding != Rounding::Nearest {
        return None;
    }
    let approximate = mnemonic.take("approx");
    let (half, operands): (HalfFunction, usize) = match mnemonic.operation {
        "add" => (sum, 2),
        "sub" => (difference, 2),
        "mul" => (product, 2),
        "fma" => (fused, 3),
        "min" => (smaller, 2),
        "max" => (larger, 2),
        "neg" => (opposite, 1),
        "abs" => (magnitude, 1),
        "ex2" if approximate => (power_of_two, 1),
        "tanh" if approximate => (hyperbolic_tangent, 1),
        _ => return None,
    };
    let function = if ty.bits() == 16 {
        ternary(move |a, b, c| half(ty, flags, a & 0xffff, b & 0xffff, c & 0xffff))
    } else {
        ternary(move |a, b, c| {
            let low = half(ty, flags, a & 0xffff, b & 0xffff, c & 0xffff);
            let high = |pattern: u64| (pattern >> 16) & 0xffff;
            low | half(ty, flags, high(a), high(b), high(c)) << 16
        })
    };
    Computation::new(function, ty, &[ty; 3][..operands], Class::Float)
}
