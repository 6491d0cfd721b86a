//! Comparisons: `setp`, `set` and `testp`.

use super::decode;
use super::integer::number;
use crate::ptx::Type;
use crate::rows::{MaskFunction, comparison};

/// The comparison of a name for a type. Comparisons of numbers that are not one (`lt`, ...) are false, those whose
/// name ends in u are true.
pub fn comparison_of(name: &str, ty: Type, ftz: bool) -> Option<MaskFunction> {
    if !ty.is_float() {
        return integers(name, ty);
    }
    if matches!(ty, Type::F16x2 | Type::Bf16x2 | Type::Tf32) {
        return None;
    }
    if ty == Type::F32 && !ftz {
        return f32s(name);
    }
    let read = move |pattern: u64| {
        let pattern = if ftz { super::float::flushed(pattern) } else { pattern };
        decode(ty, pattern)
    };
    Some(match name {
        "eq" => comparison(move |a, b| read(a) == read(b)),
        "ne" => comparison(move |a, b| read(a) < read(b) || read(a) > read(b)),
        "lt" => comparison(move |a, b| read(a) < read(b)),
        "le" => comparison(move |a, b| read(a) <= read(b)),
        "gt" => comparison(move |a, b| read(a) > read(b)),
        "ge" => comparison(move |a, b| read(a) >= read(b)),
        "equ" => comparison(move |a, b| !(read(a) < read(b) || read(a) > read(b))),
        "neu" => comparison(move |a, b| read(a) != read(b)),
        "ltu" => comparison(move |a, b| !matches!(read(a).partial_cmp(&read(b)), Some(o) if o.is_ge())),
        "leu" => comparison(move |a, b| !matches!(read(a).partial_cmp(&read(b)), Some(o) if o.is_gt())),
        "gtu" => comparison(move |a, b| !matches!(read(a).partial_cmp(&read(b)), Some(o) if o.is_le())),
        "geu" => comparison(move |a, b| !matches!(read(a).partial_cmp(&read(b)), Some(o) if o.is_lt())),
        "num" => comparison(move |a, b| !read(a).is_nan() && !read(b).is_nan()),
        "nan" => comparison(move |a, b| read(a).is_nan() || read(b).is_nan()),
        _ => return None,
    })
}

fn f32s(name: &str) -> Option<MaskFunction> {
    fn read(pattern: u64) -> f32 {
        f32::from_bits(pattern as u32)
    }
    Some(match name {
        "eq" => comparison(|a, b| read(a) == read(b)),
        "ne" => comparison(|a, b| read(a) < read(b) || read(a) > read(b)),
        "lt" => comparison(|a, b| read(a) < read(b)),
        "le" => comparison(|a, b| read(a) <= read(b)),
        "gt" => comparison(|a, b| read(a) > read(b)),
        "ge" => comparison(|a, b| read(a) >= read(b)),
        "equ" => comparison(|a, b| !(read(a) < read(b) || read(a) > read(b))),
        "neu" => comparison(|a, b| read(a) != read(b)),
        "ltu" => comparison(|a, b| !matches!(read(a).partial_cmp(&read(b)), Some(o) if o.is_ge())),
        "leu" => comparison(|a, b| !matches!(read(a).partial_cmp(&read(b)), Some(o) if o.is_gt())),
        "gtu" => comparison(|a, b| !matches!(read(a).partial_cmp(&read(b)), Some(o) if o.is_le())),
        "geu" => comparison(|a, b| !matches!(read(a).partial_cmp(&read(b)), Some(o) if o.is_lt())),
        "num" => comparison(|a, b| !read(a).is_nan() && !read(b).is_nan()),
        "nan" => comparison(|a, b| read(a).is_nan() || read(b).is_nan()),
        _ => return None,
    })
}

fn integers(name: &str, ty: Type) -> Option<MaskFunction> {
    let shift = 64 - ty.bits();
    if ty.is_signed() {
        let read = move |pattern: u64| (pattern << shift) as i64;
        return Some(match name {
            "eq" => comparison(move |a, b| read(a) == read(b)),
            "ne" => comparison(move |a, b| read(a) != read(b)),
            "lt" => comparison(move |a, b| read(a) < read(b)),
            "le" => comparison(move |a, b| read(a) <= read(b)),
            "gt" => comparison(move |a, b| read(a) > read(b)),
            "ge" => comparison(move |a, b| read(a) >= read(b)),
            _ => return None,
        });
    }
    let read = move |pattern: u64| number(ty, pattern) as u64;
    Some(match name {
        "eq" => comparison(move |a, b| read(a) == read(b)),
        "ne" => comparison(move |a, b| read(a) != read(b)),
        "lt" | "lo" => comparison(move |a, b| read(a) < read(b)),
        "le" | "ls" => comparison(move |a, b| read(a) <= read(b)),
        "gt" | "hi" => comparison(move |a, b| read(a) > read(b)),
        "ge" | "hs" => comparison(move |a, b| read(a) >= read(b)),
        _ => return None,
    })
}

/// `testp`: a property of one number.
pub fn test_property(name: &str, ty: Type) -> Option<MaskFunction> {
    if !matches!(ty, Type::F32 | Type::F64) {
        return None;
    }
    let read = move |pattern: u64| decode(ty, pattern);
    let smallest = if ty == Type::F32 {
        f64::from(f32::MIN_POSITIVE)
    } else {
        f64::MIN_POSITIVE
    };
    Some(match name {
        "finite" => comparison(move |a, _| read(a).is_finite()),
        "infinite" => comparison(move |a, _| read(a).is_infinite()),
        "number" => comparison(move |a, _| !read(a).is_nan()),
        "notanumber" => comparison(move |a, _| read(a).is_nan()),
        "normal" => comparison(move |a, _| read(a).is_finite() && read(a).abs() >= smallest),
        "subnormal" => comparison(move |a, _| read(a) != 0.0 && read(a).abs() < smallest),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_with_what_is_no_number_are_false_unless_they_say_otherwise() {
        let nan = [u64::from(f32::NAN.to_bits()); 32];
        let one = [u64::from(1.0f32.to_bits()); 32];
        for name in ["eq", "ne", "lt", "le", "gt", "ge", "num"] {
            assert_eq!(comparison_of(name, Type::F32, false).unwrap()(&nan, &one), 0, "{name}");
            assert_eq!(comparison_of(name, Type::F32, true).unwrap()(&nan, &one), 0, "{name}");
        }
        for name in ["equ", "neu", "ltu", "leu", "gtu", "geu", "nan"] {
            assert_eq!(
                comparison_of(name, Type::F32, false).unwrap()(&nan, &one),
                u32::MAX,
                "{name}"
            );
        }
        assert_eq!(comparison_of("ltu", Type::F32, false).unwrap()(&one, &one), 0);
        assert_eq!(comparison_of("leu", Type::F32, false).unwrap()(&one, &one), u32::MAX);
    }
}
