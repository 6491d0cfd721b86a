//! Types of tensor elements.
//!
//! A plan has one [`Precision`]: how it stores activations, their gradients, and the weights that its products read.
//! Whatever decides about accuracy is f32 in every plan: parameters and their gradients, the optimiser's moments, statistics,
//! losses, and every accumulation inside a kernel. A kernel's table marks what follows the plan as [`Element::Stored`], so
//! that one table, one record function and one source per language serve all precisions.

/// Type of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// Unsigned integer: ids, offsets, row numbers.
    U32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl DType {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F16 | DType::Bf16 => 2,
        }
    }

    /// Words of `elements` elements; the last word may be half used.
    pub const fn words(self, elements: usize) -> usize {
        (elements * self.bytes()).div_ceil(4)
    }
}

/// Element type of a kernel's argument, as its table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// That of the plan's precision.
    Stored,
    /// f32 in every plan.
    F32,
    /// Unsigned integer.
    U32,
}

impl Element {
    /// The type in a plan of this precision.
    pub const fn dtype(self, precision: Precision) -> DType {
        match self {
            Element::Stored => precision.dtype(),
            Element::F32 => DType::F32,
            Element::U32 => DType::U32,
        }
    }
}

/// How a plan stores activations, their gradients and the weights that products read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// 24 bits of mantissa.
    #[default]
    F32,
    /// 11 bits of mantissa; gradients need a loss scale, because the smallest number is 6e-8.
    F16,
    /// 8 bits of mantissa and the range of f32.
    Bf16,
}

impl Precision {
    /// The type of stored elements.
    pub const fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
            Precision::Bf16 => DType::Bf16,
        }
    }

    /// Elements of an access of 16 bytes: what a CUDA thread moves at a time.
    pub const fn vector(self) -> usize {
        16 / self.dtype().bytes()
    }

    /// Name in configurations and messages; in the sources of the GPU backends the name of the type.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
        }
    }

    /// Whether weights that products read are copies of the f32 parameters, kept in [`Space::Shadow`].
    ///
    /// [`Space::Shadow`]: crate::plan::Space::Shadow
    pub const fn has_shadow(self) -> bool {
        !matches!(self, Precision::F32)
    }

    /// The nearest number of this precision to `x`, ties to even.
    pub fn round(self, x: f32) -> f32 {
        match self {
            Precision::F32 => x,
            Precision::F16 => half::f16::from_f32(x).to_f32(),
            Precision::Bf16 => half::bf16::from_f32(x).to_f32(),
        }
    }

    /// Numbers as the words that a device holds: two halves to a word, the first in the lower bits.
    pub fn pack(self, numbers: &[f32]) -> Vec<u32> {
        let halves = |bits: fn(f32) -> u16| {
            let pair = |pair: &[f32]| {
                let high = pair.get(1).map_or(0, |&x| bits(x));
                u32::from(bits(pair[0])) | u32::from(high) << 16
            };
            numbers.chunks(2).map(pair).collect()
        };
        match self {
            Precision::F32 => numbers.iter().map(|x| x.to_bits()).collect(),
            Precision::F16 => halves(|x| half::f16::from_f32(x).to_bits()),
            Precision::Bf16 => halves(|x| half::bf16::from_f32(x).to_bits()),
        }
    }

    /// The numbers in a device's words; of an odd number of halves the last word has one more.
    pub fn unpack(self, words: &[u32]) -> Vec<f32> {
        let halves = |number: fn(u16) -> f32| {
            let pair = |&word: &u32| [number(word as u16), number((word >> 16) as u16)];
            words.iter().flat_map(pair).collect()
        };
        match self {
            Precision::F32 => words.iter().map(|&word| f32::from_bits(word)).collect(),
            Precision::F16 => halves(|bits| half::f16::from_bits(bits).to_f32()),
            Precision::Bf16 => halves(|bits| half::bf16::from_bits(bits).to_f32()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_lie_two_to_a_word_and_come_back_rounded_to_even() {
        let numbers = [1.0, -2.0, 1.0 + 1.0 / 256.0, 65_504.0, 6e-8];
        assert_eq!(Precision::Bf16.pack(&numbers)[0], 0xc000_3f80);
        assert_eq!(Precision::F16.pack(&numbers)[0], 0xc000_3c00);
        assert_eq!(
            Precision::Bf16.unpack(&Precision::Bf16.pack(&numbers))[..3],
            [1.0, -2.0, 1.0]
        );
        assert_eq!(
            Precision::F16.unpack(&Precision::F16.pack(&numbers)),
            [1.0, -2.0, 1.0 + 1.0 / 256.0, 65_504.0, 5.960_464_5e-8, 0.0]
        );
        for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
            let words = precision.pack(&numbers);
            assert_eq!(words.len(), precision.dtype().words(numbers.len()));
            let back = precision.unpack(&words);
            assert!(numbers.iter().zip(&back).all(|(&x, &y)| precision.round(x) == y));
        }
    }
}
