//! The parameter table: one flat buffer, every tensor with its name, range, decay flag and initialiser.
//!
//! Order in the buffer, each group in the order given:
//!
//! ```text
//! encoder tensors with weight decay | head with decay | head without | encoder without decay (biases, LayerNorm)
//! ```
//!
//! so that AdamW needs one launch and one number (where decay ends), and one that leaves the task head alone needs two.

use super::{ALIGN, aligned};

/// How a tensor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal distribution with this standard deviation.
    Normal(f32),
    /// Normal distribution, first row zero: the padding token's embedding.
    NormalZeroFirstRow(f32),
    /// U(-1/sqrt(n), 1/sqrt(n)) for n inputs.
    Uniform {
        /// Inputs of the linear layer, the weight's columns.
        inputs: u32,
    },
    /// Zero.
    Zeros,
    /// One.
    Ones,
}

/// A parameter tensor as the model declares it.
#[derive(Clone, Debug)]
pub struct ParamSpec {
    /// Hugging Face name.
    pub name: String,
    /// Rows.
    pub rows: u32,
    /// Elements per row; a vector is one row.
    pub width: u32,
    /// Whether AdamW decays it.
    pub decay: bool,
    /// Whether it belongs to the task head.
    pub head: bool,
    /// Initialiser.
    pub init: Init,
    /// Whether the file format stores it with one dimension.
    pub vector: bool,
}

impl ParamSpec {
    /// Elements.
    pub fn len(&self) -> usize {
        self.rows as usize * self.width as usize
    }

    /// The shape that files store: `[width]` of a vector, `[rows, width]` of a matrix.
    pub fn shape(&self) -> Vec<usize> {
        match self.vector {
            true => vec![self.width as usize],
            false => vec![self.rows as usize, self.width as usize],
        }
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All parameters of a model with their places in the flat buffer.
#[derive(Clone, Debug)]
pub struct ParamTable {
    entries: Vec<(ParamSpec, usize)>,
    groups: [usize; 4],
}

impl ParamTable {
    /// Lays the tensors out. Vectors begin at a multiple of [`ALIGN`] words, matrices at twice that, so that
    /// their copies in half the bytes are aligned as well; the words between stay zero.
    pub fn new(specs: Vec<ParamSpec>) -> ParamTable {
        let mut groups: [Vec<ParamSpec>; 4] = Default::default();
        for spec in specs {
            let group = match (spec.head, spec.decay) {
                (false, true) => 0,
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
            };
            groups[group].push(spec);
        }
        let mut entries = Vec::new();
        let mut ends = [0; 4];
        let mut offset = 0usize;
        for ((end, group), decayed) in ends.iter_mut().zip(groups).zip([true, true, false, false]) {
            for spec in group {
                let unit = if spec.vector { ALIGN } else { 2 * ALIGN };
                offset = offset.next_multiple_of(unit);
                let next = offset + aligned(spec.len());
                entries.push((spec, offset));
                offset = next;
            }
            // The head's range begins like a matrix, even if it has none.
            if decayed {
                offset = offset.next_multiple_of(2 * ALIGN);
            }
            *end = offset;
        }
        ParamTable { entries, groups: ends }
    }

    /// Words of the flat buffer.
    pub fn words(&self) -> usize {
        self.groups[3]
    }

    /// Words at the beginning that AdamW decays.
    pub fn decay_words(&self) -> usize {
        self.groups[1]
    }

    /// Range of the task head's tensors.
    pub fn head(&self) -> std::ops::Range<usize> {
        self.groups[0]..self.groups[2]
    }

    /// Number of parameters, padding not counted.
    pub fn parameters(&self) -> usize {
        self.entries.iter().map(|(spec, _)| spec.len()).sum()
    }

    /// Tensors with their offsets in words, in buffer order.
    pub fn iter(&self) -> impl Iterator<Item = (&ParamSpec, usize)> {
        self.entries.iter().map(|(spec, offset)| (spec, *offset))
    }

    /// A tensor by name.
    pub fn find(&self, name: &str) -> Option<(&ParamSpec, usize)> {
        self.iter().find(|(spec, _)| spec.name == name)
    }

    /// The tensor that holds a word of the buffer and the element's index in it, for messages.
    pub fn at(&self, word: usize) -> Option<(&ParamSpec, usize)> {
        let (spec, offset) = self.iter().take_while(|(_, offset)| *offset <= word).last()?;
        (word - offset < spec.len()).then_some((spec, word - offset))
    }

    pub(super) fn nearest(&self, name: &str) -> String {
        let distance = |(spec, _): &(&ParamSpec, usize)| strsim::levenshtein(&spec.name, name);
        self.iter()
            .min_by_key(distance)
            .map_or_else(String::new, |(spec, _)| spec.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, rows: u32, width: u32, decay: bool, head: bool) -> ParamSpec {
        ParamSpec {
            name: name.into(),
            rows,
            width,
            decay,
            head,
            init: Init::Zeros,
            vector: rows == 1,
        }
    }

    #[test]
    fn decayed_tensors_come_first_and_the_head_is_one_range() {
        let table = ParamTable::new(vec![
            spec("bias", 1, 5, false, false),
            spec("weight", 3, 32, true, false),
            spec("head.bias", 1, 3, false, true),
            spec("head.weight", 3, 5, true, true),
        ]);
        let order: Vec<(&str, usize)> = table
            .iter()
            .map(|(spec, offset)| (spec.name.as_str(), offset))
            .collect();
        assert_eq!(
            order,
            [("weight", 0), ("head.weight", 128), ("head.bias", 256), ("bias", 320)]
        );
        assert_eq!((table.decay_words(), table.head(), table.words()), (256, 128..320, 384));
        assert_eq!(table.parameters(), 5 + 96 + 3 + 15);
        assert_eq!(
            table.at(129).map(|(spec, index)| (spec.name.as_str(), index)),
            Some(("head.weight", 1))
        );
        assert_eq!(
            table.at(191).map(|(spec, _)| spec.name.as_str()),
            None,
            "alignment padding is nobody's"
        );
    }
}
