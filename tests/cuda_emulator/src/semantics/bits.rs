//! Bits: logic, shifts, fields, counts and permutations.

use super::Computation;
use super::integer::{number, ones};
use crate::ptx::{Class, Mnemonic, Type};
use crate::rows::{RowFunction, binary, ternary, unary};

pub(super) fn find(mnemonic: &Mnemonic<'_>) -> Option<Computation> {
    match mnemonic.operation {
        "prmt" => return permutation(mnemonic),
        "shf" => return funnel(mnemonic),
        _ => {}
    }
    let shift_amount = mnemonic.take("shiftamt");
    let ty = mnemonic.take_type()?;
    let (bits, mask) = (ty.bits(), ones(ty.bits()));
    if !matches!(bits, 16 | 32 | 64) {
        return None;
    }
    let one = |function| Computation::new(function, ty, &[ty], Class::Integer);
    let two = |function| Computation::new(function, ty, &[ty; 2], Class::Integer);
    let count = |function| Computation::new(function, Type::U32, &[ty], Class::Integer);
    let amount = |function| Computation::new(function, ty, &[ty, Type::U32], Class::Integer);
    match mnemonic.operation {
        "and" => two(binary(|a, b| a & b)),
        "or" => two(binary(|a, b| a | b)),
        "xor" => two(binary(|a, b| a ^ b)),
        "not" => one(unary(move |a| !a & mask)),
        "cnot" => one(unary(|a| u64::from(a == 0))),
        "shl" => amount(binary(move |a, b| {
            let by = (b & ones(32)) as u32;
            if by < bits { (a << by) & mask } else { 0 }
        })),
        "shr" if ty.is_signed() => amount(binary(move |a, b| {
            let by = (b & ones(32)).min(u64::from(bits - 1)) as u32;
            (number(ty, a) >> by) as u64 & mask
        })),
        "shr" => amount(binary(move |a, b| {
            let by = (b & ones(32)) as u32;
            if by < bits { (a & mask) >> by } else { 0 }
        })),
        "bfe" => Computation::new(
            ternary(move |a, b, c| extract(ty, a, b, c)),
            ty,
            &[ty, Type::U32, Type::U32],
            Class::Integer,
        ),
        "brev" => one(unary(move |a| (a & mask).reverse_bits() >> (64 - bits))),
        "clz" => count(unary(move |a| u64::from((a & mask).leading_zeros() - (64 - bits)))),
        "popc" => count(unary(move |a| u64::from((a & mask).count_ones()))),
        "bfind" => count(unary(move |a| {
            let value = if ty.is_signed() && number(ty, a) < 0 {
                !a & mask
            } else {
                a & mask
            };
            match value.checked_ilog2() {
                None => ones(32),
                Some(at) if shift_amount => u64::from(bits - 1 - at),
                Some(at) => u64::from(at),
            }
        })),
        "fns" => Computation::new(
            ternary(nth_set),
            Type::B32,
            &[Type::B32, Type::B32, Type::S32],
            Class::Integer,
        ),
        _ => None,
    }
}

/// `bfe`: a field of c bits from bit b on, extended with its sign.
fn extract(ty: Type, a: u64, b: u64, c: u64) -> u64 {
    let bits = ty.bits();
    let (start, length) = ((b & 0xff) as u32, (c & 0xff) as u32);
    let value = a & ones(bits);
    if length == 0 {
        return 0;
    }
    let sign_at = (start + length - 1).min(bits - 1);
    let negative = ty.is_signed() && (value >> sign_at) & 1 == 1;
    let field = value.checked_shr(start).unwrap_or(0);
    if length >= 64 {
        return field;
    }
    let low = field & ones(length);
    let available = bits.saturating_sub(start).min(length);
    let extension = if available == 0 { u64::MAX } else { !ones(available) };
    (if negative { low | extension } else { low }) & ones(bits)
}

/// `fns`: the position of the c-th set bit, from bit b on.
fn nth_set(mask: u64, base: u64, offset: u64) -> u64 {
    let (mask, base, offset) = (mask as u32, base as u32, offset as i32);
    let set = |at: &u32| (mask >> at) & 1 == 1;
    let found = match offset {
        0 => (base < 32 && set(&base)).then_some(base),
        1.. => (base..32).filter(set).nth(offset as usize - 1),
        _ => (0..=base.min(31))
            .rev()
            .filter(set)
            .nth(offset.unsigned_abs() as usize - 1),
    };
    found.map_or(ones(32), u64::from)
}

fn permutation(mnemonic: &Mnemonic<'_>) -> Option<Computation> {
    let modes = [
        ("f4e", 1u32),
        ("b4e", 2),
        ("rc8", 3),
        ("ecl", 4),
        ("ecr", 5),
        ("rc16", 6),
    ];
    let ty = mnemonic.take_type()?;
    let mode = mnemonic.one_of(&modes).unwrap_or(0);
    let function = ternary(move |a, b, selector| {
        let bytes = (a & ones(32)) | (b << 32);
        let low = (selector & 3) as u32;
        let source = |at: u32| match mode {
            0 => (selector >> (4 * at)) as u32 & 15,
            1 => low + at,
            2 => (low + 8 - at) & 7,
            3 => low,
            4 => at.max(low),
            5 => at.min(low),
            _ => 2 * (low & 1) + (at & 1),
        };
        let byte = |at: u32| {
            let source = source(at);
            let byte = (bytes >> (8 * (source & 7))) & 0xff;
            let sign = if byte >= 0x80 { 0xff } else { 0 };
            (if source & 8 != 0 { sign } else { byte }) << (8 * at)
        };
        byte(0) | byte(1) | byte(2) | byte(3)
    });
    (ty == Type::B32).then_some(())?;
    Computation::new(function, ty, &[ty; 3], Class::Integer)
}

fn funnel(mnemonic: &Mnemonic<'_>) -> Option<Computation> {
    let left = mnemonic.one_of(&[("l", true), ("r", false)])?;
    let wrap = mnemonic.one_of(&[("wrap", true), ("clamp", false)])?;
    let ty = mnemonic.take_type()?;
    let function = ternary(move |a, b, c| {
        let both = (a & ones(32)) | (b << 32);
        let amount = c & ones(32);
        let by = if wrap { amount & 31 } else { amount.min(32) };
        let shifted = if left { (both << by) >> 32 } else { both >> by };
        shifted & ones(32)
    });
    Computation::new(function, ty, &[ty, ty, Type::U32], Class::Integer)
}

/// `bfi`: b with a field of a inserted; its position stands in the low half of c, its length in the high half.
pub fn insertion(ty: Type) -> RowFunction {
    let bits = ty.bits();
    ternary(move |a, b, c| {
        let (start, length) = ((c & 0xff) as u32, ((c >> 32) & 0xff) as u32);
        if length == 0 || start >= bits {
            return b & ones(bits);
        }
        let field = ones(length.min(64)) << start;
        ((b & !field) | ((a << start) & field)) & ones(bits)
    })
}

/// `lop3`: any function of three bits, from its table.
pub fn lookup(table: u8) -> RowFunction {
    ternary(move |a, b, c| {
        let mut out = 0;
        for row in 0..8 {
            let term = (if row & 4 != 0 { a } else { !a })
                & (if row & 2 != 0 { b } else { !b })
                & (if row & 1 != 0 { c } else { !c });
            out |= if table >> row & 1 == 1 { term } else { 0 };
        }
        out & ones(32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_extracted_with_their_sign() {
        assert_eq!(extract(Type::U32, 0xabcd_1234, 8, 8), 0x12);
        assert_eq!(extract(Type::S32, 0x0000_8000, 8, 8), 0xffff_ff80);
        assert_eq!(extract(Type::S32, 0x8000_0000, 28, 8), 0xffff_fff8);
        assert_eq!(extract(Type::U32, 0xffff_ffff, 40, 4), 0);
    }

    #[test]
    fn set_bits_are_found_in_both_directions() {
        assert_eq!(nth_set(0b1011_0000, 0, 2), 5);
        assert_eq!(nth_set(0b1011_0000, 7, 0xffff_ffff), 7);
        assert_eq!(nth_set(0b1011_0000, 6, 0), 0xffff_ffff);
    }

    #[test]
    fn three_input_logic_follows_its_table() {
        let mut out = [0; 32];
        lookup(0x96)(&[0b1100; 32], &[0b1010; 32], &[0b0110; 32], &mut out);
        assert_eq!(out[0], 0b1100 ^ 0b1010 ^ 0b0110);
        lookup(0xf0 & 0xcc | 0xaa)(&[0b1100; 32], &[0b1010; 32], &[0b0110; 32], &mut out);
        assert_eq!(out[0], 0b1100 & 0b1010 | 0b0110);
    }
}
