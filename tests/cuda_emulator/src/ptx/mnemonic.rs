//! Mnemonics: the operation and the modifiers behind its dots, each of which somebody must have understood.

use std::cell::RefCell;

/// Types of operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
    Pred,
}

impl Type {
    /// By the name PTX gives it.
    pub fn named(name: &str) -> Option<Type> {
        Some(match name {
            "b8" => Type::B8,
            "b16" => Type::B16,
            "b32" => Type::B32,
            "b64" => Type::B64,
            "u8" => Type::U8,
            "u16" => Type::U16,
            "u32" => Type::U32,
            "u64" => Type::U64,
            "s8" => Type::S8,
            "s16" => Type::S16,
            "s32" => Type::S32,
            "s64" => Type::S64,
            "f16" => Type::F16,
            "f16x2" => Type::F16x2,
            "bf16" => Type::Bf16,
            "bf16x2" => Type::Bf16x2,
            "tf32" => Type::Tf32,
            "f32" => Type::F32,
            "f64" => Type::F64,
            "pred" => Type::Pred,
            _ => return None,
        })
    }

    /// Width.
    pub fn bits(self) -> u32 {
        match self {
            Type::Pred => 1,
            Type::B8 | Type::U8 | Type::S8 => 8,
            Type::B16 | Type::U16 | Type::S16 | Type::F16 | Type::Bf16 => 16,
            Type::B64 | Type::U64 | Type::S64 | Type::F64 => 64,
            _ => 32,
        }
    }

    /// Bytes in memory.
    pub fn bytes(self) -> u32 {
        self.bits().div_ceil(8)
    }

    /// Whether it is an integer with a sign.
    pub fn is_signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }

    /// Whether it is a number with a fraction.
    pub fn is_float(self) -> bool {
        use Type::{Bf16, Bf16x2, F16, F16x2, F32, F64, Tf32};
        matches!(self, F16 | F16x2 | Bf16 | Bf16x2 | Tf32 | F32 | F64)
    }
}

/// An operation and its modifiers.
pub struct Mnemonic<'a> {
    /// Everything, for messages.
    pub text: &'a str,
    /// What stands before the first dot.
    pub operation: &'a str,
    modifiers: RefCell<Vec<&'a str>>,
}

impl<'a> Mnemonic<'a> {
    /// Cuts at the dots.
    pub fn new(text: &'a str) -> Mnemonic<'a> {
        let mut parts = text.split('.');
        Mnemonic {
            text,
            operation: parts.next().unwrap_or_default(),
            modifiers: RefCell::new(parts.collect()),
        }
    }

    /// Whether a modifier is there; it counts as understood.
    pub fn take(&self, modifier: &str) -> bool {
        let mut modifiers = self.modifiers.borrow_mut();
        match modifiers.iter().position(|found| *found == modifier) {
            Some(at) => {
                modifiers.remove(at);
                true
            }
            None => false,
        }
    }

    /// Takes all of these, in whatever number they are there.
    pub fn ignore(&self, harmless: &[&str]) {
        self.modifiers.borrow_mut().retain(|found| !harmless.contains(found));
    }

    /// The first of these that is there.
    pub fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        choices
            .iter()
            .find(|(name, _)| self.take(name))
            .map(|(_, choice)| *choice)
    }

    /// The next type.
    pub fn take_type(&self) -> Option<Type> {
        let mut modifiers = self.modifiers.borrow_mut();
        let at = modifiers.iter().position(|name| Type::named(name).is_some())?;
        Type::named(modifiers.remove(at))
    }

    /// The next modifier, whatever it is.
    pub fn next(&self) -> Option<&'a str> {
        let mut modifiers = self.modifiers.borrow_mut();
        (!modifiers.is_empty()).then(|| modifiers.remove(0))
    }

    /// Modifiers that nobody took.
    pub fn rest(&self) -> Option<String> {
        let modifiers = self.modifiers.borrow();
        (!modifiers.is_empty()).then(|| modifiers.iter().map(|name| format!(".{name}")).collect())
    }
}
