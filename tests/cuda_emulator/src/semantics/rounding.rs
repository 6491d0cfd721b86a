//! Rounding to any of the floating point formats, once and in any direction.
//!
//! Values are computed in f64. Where that is inexact, the last bit of the f64 is made odd ("sticky"), which keeps what a
//! later rounding to at most 51 bits needs to know, so that the value is rounded as if it had been exact.

use crate::ptx::Type;

/// Directions of rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    #[default]
    Nearest,
    /// To nearest, ties away from zero.
    NearestAway,
    /// Towards zero.
    Zero,
    /// Towards minus infinity.
    Down,
    /// Towards infinity.
    Up,
}

impl Rounding {
    /// To an integer.
    pub fn integral(self, x: f64) -> f64 {
        match self {
            Rounding::Nearest => x.round_ties_even(),
            Rounding::NearestAway => x.round(),
            Rounding::Zero => x.trunc(),
            Rounding::Down => x.floor(),
            Rounding::Up => x.ceil(),
        }
    }
}

/// A floating point format of at most 32 bits.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    mantissa_bits: u32,
    exponent_bits: u32,
    /// Bits below the mantissa: tf32 stands in the high bits of a word.
    shift: u32,
    not_a_number: u64,
}

impl Format {
    /// Of a type of up to 32 bits.
    pub fn of(ty: Type) -> Format {
        let (mantissa_bits, exponent_bits, shift, not_a_number) = match ty {
            Type::F16 | Type::F16x2 => (10, 5, 0, 0x7fff),
            Type::Bf16 | Type::Bf16x2 => (7, 8, 0, 0x7fff),
            Type::Tf32 => (10, 8, 13, 0x7fff_ffff),
            _ => (23, 8, 0, 0x7fff_ffff),
        };
        Format {
            mantissa_bits,
            exponent_bits,
            shift,
            not_a_number,
        }
    }

    /// The pattern of a value.
    pub fn encode(self, x: f64, rounding: Rounding) -> u64 {
        if x.is_nan() {
            return self.not_a_number;
        }
        let negative = x.is_sign_negative();
        let sign = u64::from(negative) << (self.mantissa_bits + self.exponent_bits);
        let exponent_limit = (1u64 << self.exponent_bits) - 1;
        let infinity = exponent_limit << self.mantissa_bits;
        if x.is_infinite() {
            return (sign | infinity) << self.shift;
        }
        let bits = x.to_bits() & !(1 << 63);
        if bits == 0 {
            return sign << self.shift;
        }
        // x = mantissa * 2^(exponent - 52)
        let field = (bits >> 52) as i32;
        let mantissa = (bits & ((1 << 52) - 1)) | (u64::from(field != 0) << 52);
        let exponent = field.max(1) - 1023;
        let bias = (1 << (self.exponent_bits - 1)) - 1;
        let lowest = exponent.max(1 - bias);
        let dropped = (lowest - exponent + 52 - self.mantissa_bits as i32).min(63) as u32;
        let kept = mantissa >> dropped;
        let rest = mantissa & ((1 << dropped) - 1);
        let half = 1 << (dropped - 1);
        let up = match rounding {
            Rounding::Nearest => rest > half || (rest == half && kept & 1 == 1),
            Rounding::NearestAway => rest >= half,
            Rounding::Zero => false,
            Rounding::Down => negative && rest != 0,
            Rounding::Up => !negative && rest != 0,
        };
        let field = (lowest + bias) as u64;
        let encoded = (field << self.mantissa_bits) + kept + u64::from(up) - (1 << self.mantissa_bits);
        let to_infinity = match rounding {
            Rounding::Nearest | Rounding::NearestAway => true,
            Rounding::Zero => false,
            Rounding::Down => negative,
            Rounding::Up => !negative,
        };
        let limit = if to_infinity { infinity } else { infinity - 1 };
        (sign | encoded.min(limit)) << self.shift
    }

    /// The value of a pattern.
    pub fn decode(self, pattern: u64) -> f64 {
        let pattern = pattern >> self.shift;
        let mantissa = pattern & ((1 << self.mantissa_bits) - 1);
        let field = (pattern >> self.mantissa_bits) & ((1 << self.exponent_bits) - 1);
        let negative = (pattern >> (self.mantissa_bits + self.exponent_bits)) & 1 == 1;
        let bias = (1 << (self.exponent_bits - 1)) - 1;
        let magnitude = if field == (1 << self.exponent_bits) - 1 {
            if mantissa == 0 { f64::INFINITY } else { f64::NAN }
        } else {
            let significand = mantissa | (u64::from(field != 0) << self.mantissa_bits);
            let exponent = (field as i32).max(1) - bias - self.mantissa_bits as i32;
            significand as f64 * f64::from_bits(((exponent + 1023) as u64) << 52)
        };
        if negative { -magnitude } else { magnitude }
    }
}

/// The value of a floating point number of any type.
pub fn decode(ty: Type, pattern: u64) -> f64 {
    match ty {
        Type::F64 => f64::from_bits(pattern),
        Type::F32 => f64::from(f32::from_bits(pattern as u32)),
        _ => Format::of(ty).decode(pattern),
    }
}

/// The pattern of a value in any type; to f64 nothing is rounded.
pub fn encode(ty: Type, x: f64, rounding: Rounding) -> u64 {
    match ty {
        Type::F64 if x.is_nan() => 0x7fff_ffff_ffff_ffff,
        Type::F64 => x.to_bits(),
        Type::F32 if rounding == Rounding::Nearest && !x.is_nan() => u64::from((x as f32).to_bits()),
        _ => Format::of(ty).encode(x, rounding),
    }
}

/// Makes the last bit odd if `error`, the exact value less `x`, is not zero.
fn sticky(x: f64, error: f64) -> f64 {
    if error == 0.0 || !error.is_finite() || x.to_bits() & 1 == 1 {
        return x;
    }
    // The exact value lies between x and its neighbour on the error's side; the odd one of the two is the neighbour.
    let away = (error > 0.0) == (x > 0.0);
    let bits = x.to_bits();
    f64::from_bits(if away { bits + 1 } else { bits - 1 })
}

/// `x + y`, with a sticky last bit.
pub fn sticky_sum(x: f64, y: f64) -> f64 {
    let sum = x + y;
    let virtual_y = sum - x;
    let error = (x - (sum - virtual_y)) + (y - virtual_y);
    sticky(sum, error)
}

/// `x / y`, with a sticky last bit.
pub fn sticky_quotient(x: f64, y: f64) -> f64 {
    let quotient = x / y;
    let remainder = (-quotient).mul_add(y, x);
    sticky(quotient, if y < 0.0 { -remainder } else { remainder })
}

/// The square root, with a sticky last bit.
pub fn sticky_root(x: f64) -> f64 {
    let root = x.sqrt();
    sticky(root, (-root).mul_add(root, x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_to_even_and_become_subnormal() {
        let f16 = |x: f64| encode(Type::F16, x, Rounding::Nearest);
        assert_eq!(f16(1.0), 0x3c00);
        assert_eq!(f16(-2.0), 0xc000);
        assert_eq!(f16(65504.0), 0x7bff);
        assert_eq!(f16(65519.99), 0x7bff);
        assert_eq!(f16(65520.0), 0x7c00);
        assert_eq!(f16(2f64.powi(-24)), 0x0001);
        assert_eq!(f16(2f64.powi(-25)), 0x0000);
        assert_eq!(f16(2f64.powi(-25) * 1.000_000_1), 0x0001);
        assert_eq!(f16(2f64.powi(-14)), 0x0400);
        assert_eq!(f16(1.0 + 2f64.powi(-11)), 0x3c00);
        assert_eq!(f16(1.0 + 3.0 * 2f64.powi(-11)), 0x3c02);
        let bf16 = |x: f64, rounding| encode(Type::Bf16, x, rounding);
        assert_eq!(bf16(1.0 + 2f64.powi(-8), Rounding::Nearest), 0x3f80);
        assert_eq!(bf16(1.0 + 3.0 * 2f64.powi(-8), Rounding::Nearest), 0x3f82);
        assert_eq!(bf16(1.0 + 2f64.powi(-8), Rounding::Up), 0x3f81);
        assert_eq!(bf16(-1.0 - 2f64.powi(-20), Rounding::Down), 0xbf81);
        assert_eq!(bf16(f64::NAN, Rounding::Nearest), 0x7fff);
        assert_eq!(
            encode(Type::Tf32, 1.0 + 2f64.powi(-11), Rounding::NearestAway),
            0x3f80_2000
        );
    }

    #[test]
    fn every_half_survives_decoding() {
        for ty in [Type::F16, Type::Bf16] {
            for pattern in 0..0x1_0000u64 {
                let value = decode(ty, pattern);
                if !value.is_nan() {
                    assert_eq!(encode(ty, value, Rounding::Nearest), pattern);
                }
            }
        }
    }

    #[test]
    fn inexact_sums_keep_the_direction() {
        let sum = sticky_sum(1.0, 2f64.powi(-70));
        assert_eq!(
            encode(Type::F32, sum, Rounding::Up),
            u64::from((1.0f32 + f32::EPSILON).to_bits())
        );
        assert_eq!(encode(Type::F32, sum, Rounding::Nearest), u64::from(1.0f32.to_bits()));
        let sum = sticky_sum(1.0, -(2f64.powi(-70)));
        assert_eq!(encode(Type::F32, sum, Rounding::Zero), u64::from(1.0f32.to_bits()) - 1);
    }
}
