//! `cvt`: between integers and floating point numbers of all widths.

use super::integer::{clamp, number, ones};
use super::{Computation, Rounding, decode, encode};
use crate::ptx::{Class, Mnemonic, Type};
use crate::rows::{RowFunction, binary, unary};

/// What a conversion does besides converting.
#[derive(Clone, Copy)]
struct Conversion {
    to: Type,
    from: Type,
    rounding: Rounding,
    /// Rounds to an integral value.
    integral: Option<Rounding>,
    ftz: bool,
    sat: bool,
    relu: bool,
}

pub(super) fn find(mnemonic: &Mnemonic<'_>) -> Option<Computation> {
    let roundings = [
        ("rn", Rounding::Nearest),
        ("rna", Rounding::NearestAway),
        ("rz", Rounding::Zero),
        ("rm", Rounding::Down),
        ("rp", Rounding::Up),
    ];
    let integral = [
        ("rni", Rounding::Nearest),
        ("rzi", Rounding::Zero),
        ("rmi", Rounding::Down),
        ("rpi", Rounding::Up),
    ];
    let rounding = mnemonic.one_of(&roundings);
    let integral = mnemonic.one_of(&integral);
    let conversion = Conversion {
        rounding: rounding.unwrap_or_default(),
        integral,
        ftz: mnemonic.take("ftz"),
        sat: mnemonic.take("sat"),
        relu: mnemonic.take("relu"),
        to: mnemonic.take_type()?,
        from: mnemonic.take_type()?,
    };
    let (to, from) = (conversion.to, conversion.from);
    let class = if to.is_float() || from.is_float() {
        Class::Float
    } else {
        Class::Integer
    };
    if matches!(to, Type::F16x2 | Type::Bf16x2) {
        if from != Type::F32 {
            return None;
        }
        // The first operand becomes the upper half.
        let function = binary(move |a, b| to_float(conversion, a) << 16 | to_float(conversion, b));
        return Computation::new(function, to, &[from; 2], class);
    }
    if matches!(from, Type::F16x2 | Type::Bf16x2 | Type::Pred) || to == Type::Pred {
        return None;
    }
    let function = match (from.is_float(), to.is_float()) {
        (false, false) => between_integers(conversion),
        (false, true) if from.bits() <= 32 && to == Type::F32 && conversion.rounding == Rounding::Nearest => {
            unary(move |a| u64::from((number(from, a) as i64 as f32).to_bits()))
        }
        (false, true) => from_integer(conversion)?,
        (true, false) => unary(move |a| {
            let x = source(conversion, a);
            let whole = conversion.integral.unwrap_or(Rounding::Zero).integral(x);
            clamp(to, whole as i128) // NaN becomes 0
        }),
        (true, true) => unary(move |a| to_float(conversion, a)),
    };
    Computation::new(function, to, &[from], class)
}

/// The value that is converted.
fn source(conversion: Conversion, pattern: u64) -> f64 {
    let x = decode(conversion.from, pattern);
    let subnormal = conversion.from == Type::F32 && x.abs() < f64::from(f32::MIN_POSITIVE);
    if conversion.ftz && subnormal {
        0f64.copysign(x)
    } else {
        x
    }
}

fn to_float(conversion: Conversion, pattern: u64) -> u64 {
    let to = conversion.to;
    let mut x = source(conversion, pattern);
    if let Some(rounding) = conversion.integral {
        x = rounding.integral(x);
    }
    if conversion.sat {
        x = if x > 0.0 { x.min(1.0) } else { 0.0 }; // NaN becomes 0
    }
    if conversion.relu && x < 0.0 {
        x = 0.0;
    }
    let encoded = encode(to, x, conversion.rounding);
    if conversion.ftz && to == Type::F32 {
        super::float::flushed(encoded)
    } else {
        encoded
    }
}

fn between_integers(conversion: Conversion) -> RowFunction {
    let (to, from) = (conversion.to, conversion.from);
    let mask = ones(to.bits());
    if conversion.sat {
        return unary(move |a| clamp(to, number(from, a)));
    }
    if !from.is_signed() {
        let mask = mask & ones(from.bits());
        return unary(move |a| a & mask);
    }
    let shift = 64 - from.bits();
    unary(move |a| (((a << shift) as i64) >> shift) as u64 & mask)
}

/// An integer of any width to any format; to f64 to nearest only.
fn from_integer(conversion: Conversion) -> Option<RowFunction> {
    let (to, from, rounding) = (conversion.to, conversion.from, conversion.rounding);
    if to == Type::F64 {
        let exact = from.bits() <= 32 || rounding == Rounding::Nearest;
        return exact.then(|| unary(move |a| (number(from, a) as f64).to_bits()));
    }
    Some(unary(move |a| {
        let value = number(from, a);
        let magnitude = value.unsigned_abs();
        // At most 53 bits, the last of them sticky.
        let shift = (128 - magnitude.leading_zeros()).saturating_sub(53);
        let kept = (magnitude >> shift) as u64 | u64::from(magnitude & ((1 << shift) - 1) != 0);
        let x = kept as f64 * f64::from(shift).exp2();
        encode(to, if value < 0 { -x } else { x }, rounding)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, a: u64, b: u64) -> u64 {
        let mnemonic = Mnemonic::new(text);
        let found = crate::semantics::find(&mnemonic).unwrap_or_else(|| panic!("{text} is unknown"));
        assert_eq!(mnemonic.rest(), None, "{text}");
        let mut out = [0; 32];
        (found.function)(&[a; 32], &[b; 32], &[0; 32], &mut out);
        out[3]
    }

    fn bits(x: f32) -> u64 {
        u64::from(x.to_bits())
    }

    #[test]
    fn numbers_become_integers_in_range() {
        assert_eq!(run("cvt.rzi.s32.f32", bits(-2.7), 0), 0xffff_fffe);
        assert_eq!(run("cvt.rni.s32.f32", bits(2.5), 0), 2);
        assert_eq!(run("cvt.rpi.s32.f32", bits(2.1), 0), 3);
        assert_eq!(run("cvt.rzi.s32.f32", bits(1e20), 0), 0x7fff_ffff);
        assert_eq!(run("cvt.rzi.u32.f32", bits(-1.0), 0), 0);
        assert_eq!(run("cvt.rzi.s32.f32", bits(f32::NAN), 0), 0);
        assert_eq!(run("cvt.rzi.u64.f32", bits(1e10), 0), 10_000_000_000);
        assert_eq!(run("cvt.rni.f32.f32", bits(-3.5), 0), bits(-4.0));
    }

    #[test]
    fn integers_become_numbers() {
        assert_eq!(run("cvt.rn.f32.s32", 0xffff_ffff, 0), bits(-1.0));
        assert_eq!(run("cvt.rn.f32.u32", 0xffff_ffff, 0), bits(4_294_967_296.0));
        assert_eq!(run("cvt.rz.f32.u32", 0xffff_ffff, 0), bits(4_294_967_040.0));
        assert_eq!(
            run("cvt.rn.f32.u64", (1 << 60) + (1 << 36) + 1, 0),
            bits(((1u64 << 60) + (1 << 37)) as f32)
        );
        assert_eq!(run("cvt.rn.f16.s32", 3, 0), 0x4200);
        assert_eq!(run("cvt.s32.s8", 0x1ff, 0), 0xffff_ffff);
        assert_eq!(run("cvt.u64.u32", 0xffff_ffff_0000_0001, 0), 1);
        assert_eq!(run("cvt.s64.s32", 0x8000_0000, 0), 0xffff_ffff_8000_0000);
        assert_eq!(run("cvt.sat.u8.s32", 0xffff_ffff, 0), 0);
    }

    #[test]
    fn halves_are_packed_upper_first() {
        assert_eq!(run("cvt.rn.bf16x2.f32", bits(1.0), bits(-2.0)), 0x3f80_c000);
        assert_eq!(run("cvt.rn.f16x2.f32", bits(1.0), bits(-2.0)), 0x3c00_c000);
        assert_eq!(run("cvt.rn.relu.bf16.f32", bits(-1.0), 0), 0);
        assert_eq!(run("cvt.rn.bf16.f32", 0x3f80_8000, 0), 0x3f80);
        assert_eq!(run("cvt.rn.bf16.f32", 0x3f81_8000, 0), 0x3f82);
        assert_eq!(run("cvt.rz.bf16.f32", 0x3f80_ffff, 0), 0x3f80);
        assert_eq!(run("cvt.f32.bf16", 0x3f80, 0), bits(1.0));
        assert_eq!(run("cvt.rna.tf32.f32", 0x3f80_1000, 0), 0x3f80_2000);
        assert_eq!(run("cvt.f64.f32", bits(0.5), 0), 0.5f64.to_bits());
        assert_eq!(run("cvt.rn.f32.f64", 0.1f64.to_bits(), 0), bits(0.1));
    }
}
