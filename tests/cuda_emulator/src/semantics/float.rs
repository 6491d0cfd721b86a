//! Arithmetic on f32 and f64.

use super::rounding::{sticky_quotient, sticky_root};
use super::{Computation, Flags, Rounding, encode, sticky_sum};
use crate::ptx::{Class, Mnemonic, Type};
use crate::rows::{RowFunction, binary, ternary, unary};

const NOT_A_NUMBER: u64 = 0x7fff_ffff;
const SIGN: u64 = 0x8000_0000;

#[inline(always)]
fn value(pattern: u64) -> f32 {
    f32::from_bits(pattern as u32)
}

#[inline(always)]
fn pattern(value: f32) -> u64 {
    if value.is_nan() {
        NOT_A_NUMBER
    } else {
        u64::from(value.to_bits())
    }
}

/// Zero with the number's sign if it is subnormal.
#[inline(always)]
pub fn flushed(pattern: u64) -> u64 {
    if pattern & 0x7f80_0000 == 0 {
        pattern & SIGN
    } else {
        pattern
    }
}

/// What the flags do to an operand.
fn operand(flags: Flags, pattern: u64) -> u64 {
    if flags.ftz { flushed(pattern) } else { pattern }
}

/// What the flags do to a result.
fn result(flags: Flags, pattern: u64) -> u64 {
    let pattern = operand(flags, pattern);
    if !flags.sat {
        return pattern;
    }
    let value = value(pattern);
    u64::from(if value > 0.0 { value.min(1.0) } else { 0.0 }.to_bits()) // NaN becomes 0
}

/// A function that is fast with default flags; otherwise it computes with f64, sticky, and rounds.
fn one(flags: Flags, fast: fn(f32) -> f32, exact: fn(f64) -> f64) -> RowFunction {
    if flags.rounding == Rounding::Nearest && !flags.ftz && !flags.sat {
        return unary(move |a| pattern(fast(value(a))));
    }
    unary(move |a| {
        let x = f64::from(value(operand(flags, a)));
        result(flags, encode(Type::F32, exact(x), flags.rounding))
    })
}

fn slow_two(flags: Flags, exact: fn(f64, f64) -> f64) -> RowFunction {
    binary(move |a, b| {
        let (x, y) = (value(operand(flags, a)), value(operand(flags, b)));
        result(
            flags,
            encode(Type::F32, exact(f64::from(x), f64::from(y)), flags.rounding),
        )
    })
}

pub(super) fn find(mnemonic: &Mnemonic<'_>, ty: Type, flags: Flags) -> Option<Computation> {
    if ty == Type::F64 {
        return find_f64(mnemonic, flags);
    }
    let approximate = mnemonic.take("approx") | mnemonic.take("full");
    let plain = flags.rounding == Rounding::Nearest && !flags.ftz && !flags.sat;
    let function = match mnemonic.operation {
        "add" if plain => binary(|a, b| pattern(value(a) + value(b))),
        "sub" if plain => binary(|a, b| pattern(value(a) - value(b))),
        "mul" if plain => binary(|a, b| pattern(value(a) * value(b))),
        "div" if plain => binary(|a, b| pattern(value(a) / value(b))),
        "fma" | "mad" if plain => ternary(
            #[inline(always)]
            |a, b, c| pattern(value(a).mul_add(value(b), value(c))),
        ),
        "add" => slow_two(flags, sticky_sum),
        "sub" => slow_two(flags, |x, y| sticky_sum(x, -y)),
        "mul" => slow_two(flags, |x, y| x * y),
        "div" => slow_two(flags, sticky_quotient),
        "fma" | "mad" => ternary(move |a, b, c| {
            let [x, y, z] = [a, b, c].map(|pattern| f64::from(value(operand(flags, pattern))));
            result(flags, encode(Type::F32, sticky_sum(x * y, z), flags.rounding))
        }),
        "rcp" => one(flags, |x| 1.0 / x, |x| sticky_quotient(1.0, x)),
        "sqrt" => one(flags, f32::sqrt, sticky_root),
        "rsqrt" if approximate => one(flags, |x| (1.0 / f64::from(x).sqrt()) as f32, |x| 1.0 / x.sqrt()),
        "ex2" if approximate => one(flags, |x| f64::from(x).exp2() as f32, f64::exp2),
        "lg2" if approximate => one(flags, |x| f64::from(x).log2() as f32, f64::log2),
        "sin" if approximate => one(flags, |x| f64::from(x).sin() as f32, f64::sin),
        "cos" if approximate => one(flags, |x| f64::from(x).cos() as f32, f64::cos),
        "tanh" if approximate => one(flags, |x| f64::from(x).tanh() as f32, f64::tanh),
        "abs" => unary(move |a| operand(flags, a) & !SIGN),
        "neg" => unary(move |a| operand(flags, a) ^ SIGN),
        "copysign" => binary(|a, b| (a & SIGN) | (b & !SIGN)),
        "min" | "max" => {
            let largest = mnemonic.operation == "max";
            let xor_sign = mnemonic.take("xorsign") && mnemonic.take("abs");
            binary(move |a, b| {
                let (a, b) = (operand(flags, a), operand(flags, b));
                if !xor_sign {
                    return extreme(a, b, largest, flags.nan);
                }
                let magnitude = extreme(a & !SIGN, b & !SIGN, largest, flags.nan);
                (magnitude & !SIGN) | ((a ^ b) & SIGN)
            })
        }
        _ => return None,
    };
    let operands = match mnemonic.operation {
        "fma" | "mad" => 3,
        "add" | "sub" | "mul" | "div" | "min" | "max" | "copysign" => 2,
        _ => 1,
    };
    Computation::new(function, ty, &[ty; 3][..operands], Class::Float)
}

/// The smaller or larger of two f32; the one that is a number if the other isn't, unless `nan`.
fn extreme(a: u64, b: u64, largest: bool, nan: bool) -> u64 {
    let (x, y) = (value(a), value(b));
    match (x.is_nan(), y.is_nan()) {
        (true, true) => NOT_A_NUMBER,
        (true, false) | (false, true) if nan => NOT_A_NUMBER,
        (true, false) => b,
        (false, true) => a,
        // -0 is smaller than 0.
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

fn find_f64(mnemonic: &Mnemonic<'_>, flags: Flags) -> Option<Computation> {
    fn value(pattern: u64) -> f64 {
        f64::from_bits(pattern)
    }
    fn pattern(value: f64) -> u64 {
        encode(Type::F64, value, Rounding::Nearest)
    }
    const SIGN: u64 = 1 << 63;
    if flags.rounding != Rounding::Nearest || flags.sat {
        return None;
    }
    let ty = Type::F64;
    let one = |function| Computation::new(function, ty, &[ty], Class::Float);
    let two = |function| Computation::new(function, ty, &[ty; 2], Class::Float);
    match mnemonic.operation {
        "add" => two(binary(|a, b| pattern(value(a) + value(b)))),
        "sub" => two(binary(|a, b| pattern(value(a) - value(b)))),
        "mul" => two(binary(|a, b| pattern(value(a) * value(b)))),
        "div" => two(binary(|a, b| pattern(value(a) / value(b)))),
        "fma" | "mad" => Computation::new(
            ternary(
                #[inline(always)]
                |a, b, c| pattern(value(a).mul_add(value(b), value(c))),
            ),
            ty,
            &[ty; 3],
            Class::Float,
        ),
        "rcp" => one(unary(|a| pattern(1.0 / value(a)))),
        "sqrt" => one(unary(|a| pattern(value(a).sqrt()))),
        "rsqrt" if mnemonic.take("approx") => one(unary(|a| pattern(1.0 / value(a).sqrt()))),
        "abs" => one(unary(|a| a & !SIGN)),
        "neg" => one(unary(|a| a ^ SIGN)),
        "copysign" => two(binary(|a, b| (a & SIGN) | (b & !SIGN))),
        "min" => two(binary(|a, b| pattern(value(a).min(value(b))))),
        "max" => two(binary(|a, b| pattern(value(a).max(value(b))))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::find;

    fn run(text: &str, operands: &[f32]) -> f32 {
        let mnemonic = Mnemonic::new(text);
        let found = find(&mnemonic).unwrap_or_else(|| panic!("{text} is unknown"));
        assert_eq!(mnemonic.rest(), None, "{text}");
        assert_eq!(found.from.len(), operands.len(), "{text}");
        let row = |at: usize| [u64::from(operands.get(at).copied().unwrap_or_default().to_bits()); 32];
        let mut out = [0; 32];
        (found.function)(&row(0), &row(1), &row(2), &mut out);
        value(out[31])
    }

    #[test]
    fn multiply_add_rounds_once() {
        // (1 + 2^-12)^2 - 1 - 2^-11 = 2^-24, which a rounded product would lose.
        let x = 1.0 + 2f32.powi(-12);
        assert_eq!(run("fma.rn.f32", &[x, x, -1.0 - 2f32.powi(-11)]), 2f32.powi(-24));
        assert_eq!(run("fma.rn.ftz.f32", &[x, x, -1.0 - 2f32.powi(-11)]), 2f32.powi(-24));
        assert_eq!(
            run("fma.rz.f32", &[1.0, 1.0, -(2f32.powi(-60))]),
            1.0 - f32::EPSILON / 2.0
        );
    }

    #[test]
    fn directions_and_flags_are_honoured() {
        assert_eq!(run("div.rn.f32", &[1.0, 3.0]), 1.0 / 3.0);
        assert_eq!(run("div.rp.f32", &[1.0, 3.0]), 1.0 / 3.0);
        assert_eq!(run("div.rz.f32", &[1.0, 3.0]), 0.333_333_3);
        assert_eq!(run("add.rp.f32", &[1.0, 1e-30]), 1.0 + f32::EPSILON);
        assert_eq!(run("add.ftz.f32", &[1e-40, 1e-40]).to_bits(), 0);
        assert_eq!(run("mul.ftz.f32", &[-1e-30, 1e-10]).to_bits(), 0x8000_0000);
        assert_eq!(run("mul.sat.f32", &[3.0, 3.0]), 1.0);
        assert_eq!(run("add.sat.f32", &[f32::NAN, 1.0]), 0.0);
        assert_eq!(
            run("add.f32", &[f32::INFINITY, f32::NEG_INFINITY]).to_bits(),
            0x7fff_ffff
        );
        assert_eq!(run("copysign.f32", &[-1.0, 3.0]), -3.0);
    }

    #[test]
    fn extremes_prefer_numbers() {
        assert_eq!(run("min.f32", &[f32::NAN, 3.0]), 3.0);
        assert_eq!(run("max.f32", &[3.0, f32::NAN]), 3.0);
        assert!(run("max.NaN.f32", &[3.0, f32::NAN]).is_nan());
        assert_eq!(run("min.f32", &[0.0, -0.0]).to_bits(), 0x8000_0000);
        assert_eq!(run("max.f32", &[-0.0, 0.0]).to_bits(), 0);
    }
}
