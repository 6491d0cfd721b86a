//! What instructions compute: from a mnemonic to a function of rows.
//!
//! Arithmetic is IEEE 754 with the rounding that the instruction names; fused multiply-adds round once; `.ftz` takes and
//! gives zero for subnormal numbers; results that are not numbers are the pattern 0x7fffffff as on hardware. Approximate
//! instructions (`ex2.approx`, `rcp.approx`, `sin.approx`, `div.full`, ...) give the correctly rounded f32 of an f64
//! computation: they are more accurate than hardware, so their errors cannot be studied here.

mod bits;
mod compare;
mod convert;
mod float;
mod half;
mod integer;
mod rounding;

pub use bits::{insertion, lookup};
pub use compare::{comparison_of, test_property};
pub use integer::{atomic, carry};
pub use rounding::{Rounding, decode, encode, sticky_sum};

use crate::ptx::{Class, Type};
use crate::rows::RowFunction;

/// What an instruction computes.
pub struct Computation {
    /// The function.
    pub function: RowFunction,
    /// Type of the result.
    pub to: Type,
    /// Types of the operands.
    pub from: Vec<Type>,
    /// What it counts as.
    pub class: Class,
}

impl Computation {
    fn new(function: RowFunction, to: Type, from: &[Type], class: Class) -> Option<Computation> {
        Some(Computation {
            function,
            to,
            from: from.to_vec(),
            class,
        })
    }
}

/// Modifiers that arithmetic instructions may have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// Rounding; to nearest if none is named.
    pub rounding: Rounding,
    /// Subnormal numbers are zero.
    pub ftz: bool,
    /// Results are clamped to [0, 1].
    pub sat: bool,
    /// Negative results are zero.
    pub relu: bool,
    /// `.NaN`: an operand that is not a number makes the result one.
    pub nan: bool,
}

/// The computation of a mnemonic whose modifiers are all understood; none if the operation is unknown for the type.
pub fn find(mnemonic: &crate::ptx::Mnemonic<'_>) -> Option<Computation> {
    match mnemonic.operation {
        "cvt" => return convert::find(mnemonic),
        "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "prmt" | "bfe" | "bfi" | "bfind" | "brev"
        | "clz" | "popc" | "fns" => return bits::find(mnemonic),
        _ => {}
    }
    let rounding = [
        ("rn", Rounding::Nearest),
        ("rz", Rounding::Zero),
        ("rm", Rounding::Down),
        ("rp", Rounding::Up),
    ];
    let flags = Flags {
        rounding: mnemonic.one_of(&rounding).unwrap_or_default(),
        ftz: mnemonic.take("ftz"),
        sat: mnemonic.take("sat"),
        relu: mnemonic.take("relu"),
        nan: mnemonic.take("NaN"),
    };
    let ty = mnemonic.take_type()?;
    match ty {
        Type::F32 | Type::F64 => float::find(mnemonic, ty, flags),
        Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 => half::find(mnemonic, ty, flags),
        _ => integer::find(mnemonic, ty, flags),
    }
}
