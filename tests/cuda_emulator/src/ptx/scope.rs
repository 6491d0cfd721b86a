//! Names: what is declared between a pair of braces, and how declarations and numbers are written.

use std::collections::HashMap;

use super::text::VariableText;
use super::{Constant, PtxError, Register, Space, Type, Variable};

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Symbol {
    /// A register.
    Register(Register, Type),
    /// A predicate.
    Predicate(Register),
    /// Memory, by its address.
    Memory(Constant, Space),
    /// A kernel's parameter, by its offset.
    Parameter(u32),
}

/// A jump to a label that was not met yet.
pub struct Pending {
    /// Index of the instruction.
    pub at: usize,
    /// Which of its targets.
    pub slot: usize,
    /// The label.
    pub label: String,
    /// Line of the text.
    pub line: u32,
}

/// What is declared between a pair of braces.
#[derive(Default)]
pub struct Scope {
    /// Registers, variables and parameters.
    pub names: HashMap<String, Symbol>,
    /// Labels.
    pub labels: HashMap<String, u32>,
    /// Jumps that are not resolved.
    pub pending: Vec<Pending>,
    /// Lists of labels.
    pub targets: HashMap<String, Vec<String>>,
    /// Whether names outside are hidden, as in the body of a function.
    pub closed: bool,
}

/// A variable's declaration.
pub struct Declared {
    /// Name.
    pub name: String,
    /// Type of an element.
    pub ty: Type,
    /// Alignment.
    pub align: u32,
    /// Number of elements; none where it is open.
    pub count: Option<u32>,
    /// First values.
    values: Vec<String>,
}

impl Declared {
    /// `.align 4 .b8 name[16] = {0, 1}` and the like.
    pub fn parse(text: &VariableText) -> Result<Declared, PtxError> {
        let error = |what: String| PtxError::new(text.line, what);
        let (declaration, values) = match text.rest.split_once('=') {
            Some((declaration, values)) => (declaration, values.trim()),
            None => (text.rest.as_str(), ""),
        };
        let (mut align, mut ty, mut vector) = (None, None, 1);
        let mut words = declaration.split_whitespace().peekable();
        let mut name = String::new();
        while let Some(word) = words.next() {
            match word {
                ".align" => align = words.next().and_then(|word| word.parse().ok()),
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                ".ptr" => {} // says what a pointer points to
                ".global" | ".const" | ".shared" | ".local" => {}
                _ if word.starts_with('.') => {
                    ty = Some(Type::named(&word[1..]).ok_or_else(|| error(format!("unknown directive {word}")))?);
                }
                _ => {
                    name = word.to_string() + &words.collect::<String>();
                    break;
                }
            }
        }
        let ty = ty.ok_or_else(|| error(format!("variable without a type: {declaration}")))?;
        let mut count = Some(vector);
        let extents = name.find('[').map(|at| name.split_off(at)).unwrap_or_default();
        for extent in extents.split('[').skip(1) {
            let extent = extent.trim_end_matches(']');
            count = match (extent.parse::<u32>(), count) {
                (Ok(extent), Some(count)) => Some(count * extent),
                _ if extent.is_empty() => None,
                _ => return Err(error(format!("extent {extent:?} of {name} is no number"))),
            };
        }
        let values = values.trim_start_matches('{').trim_end_matches('}');
        let values = values
            .split(',')
            .map(|value| value.trim_matches(['{', '}', ' ', '\n', '\t']));
        Ok(Declared {
            align: align.unwrap_or(ty.bytes()),
            values: values.filter(|value| !value.is_empty()).map(str::to_string).collect(),
            name,
            ty,
            count,
        })
    }

    /// Size.
    pub fn bytes(&self) -> u32 {
        self.count.unwrap_or(0) * self.ty.bytes()
    }

    /// With its first values.
    pub fn into_variable(self, line: u32) -> Result<Variable, PtxError> {
        let mut bytes = vec![0; self.bytes() as usize];
        let width = self.ty.bytes() as usize;
        for (at, value) in self.values.iter().enumerate() {
            let Some(value) = number(value, self.ty) else {
                return Err(PtxError::new(line, format!("{value} in {} is no number", self.name)));
            };
            let Some(place) = bytes.get_mut(at * width..(at + 1) * width) else {
                return Err(PtxError::new(line, format!("{} has too many values", self.name)));
            };
            place.copy_from_slice(&value.to_le_bytes()[..width]);
        }
        Ok(Variable {
            name: self.name,
            bytes,
            align: self.align as usize,
        })
    }
}

/// A literal as the pattern of a type.
pub fn number(text: &str, ty: Type) -> Option<u64> {
    let mask = u64::MAX >> (64 - ty.bits());
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let hexadecimal = |digits: &str| u64::from_str_radix(digits, 16).ok();
    if digits == "WARP_SZ" {
        return Some(32);
    }
    if let Some(bits) = digits.strip_prefix("0f").or(digits.strip_prefix("0F")) {
        let value = f32::from_bits(hexadecimal(bits)? as u32);
        let value = if negative { -value } else { value };
        return Some(match ty {
            Type::F64 => f64::from(value).to_bits(),
            _ => u64::from(value.to_bits()) & mask,
        });
    }
    if let Some(bits) = digits.strip_prefix("0d").or(digits.strip_prefix("0D")) {
        return float(f64::from_bits(hexadecimal(bits)?), negative, ty);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let whole = digits.trim_end_matches(['U', 'u']);
    let value = if let Some(rest) = whole.strip_prefix("0x").or(whole.strip_prefix("0X")) {
        hexadecimal(rest)
    } else if let Some(rest) = whole.strip_prefix("0b") {
        u64::from_str_radix(rest, 2).ok()
    } else if whole.len() > 1 && whole.starts_with('0') && whole.bytes().all(|byte| byte.is_ascii_digit()) {
        u64::from_str_radix(whole, 8).ok()
    } else {
        whole.parse().ok()
    };
    match value {
        Some(value) if ty.is_float() && ty.bits() >= 32 && !whole.starts_with("0x") => {
            float(value as f64, negative, ty)
        }
        Some(value) => Some(if negative { value.wrapping_neg() } else { value } & mask),
        None => float(digits.parse().ok()?, negative, ty),
    }
}

fn float(value: f64, negative: bool, ty: Type) -> Option<u64> {
    let value = if negative { -value } else { value };
    match ty {
        Type::F32 | Type::B32 => Some(u64::from((value as f32).to_bits())),
        Type::F64 | Type::B64 => Some(value.to_bits()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_patterns_of_their_type() {
        assert_eq!(number("-1", Type::U32), Some(0xffff_ffff));
        assert_eq!(number("-1", Type::U64), Some(u64::MAX));
        assert_eq!(number("0f3F800000", Type::F32), Some(0x3f80_0000));
        assert_eq!(number("0d3FF0000000000000", Type::F64), Some(1f64.to_bits()));
        assert_eq!(number("0x1fU", Type::B16), Some(31));
        assert_eq!(number("1.5", Type::F32), Some(0x3fc0_0000));
        assert_eq!(number("010", Type::U32), Some(8));
        assert_eq!(number("%r1", Type::U32), None);
    }
}
