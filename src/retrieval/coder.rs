//! From the postings of a sub-tile to their codes.

use super::bm25::{CodeTable, LENGTHS};
use super::codec::{LONG_TF, SUB_TILE, posting};

/// The codes of the documents of a sub-tile.
pub(super) struct Coder {
    /// For each document the class of its length: the length below [`LENGTHS`], a number of its own above.
    class_of: Box<[u16; SUB_TILE]>,
    /// For each frequency from 1 to [`LONG_TF`], for which it is 0, the code in each class. A sub-tile has few classes and
    /// mostly small frequencies, so what is used of it is small.
    codes: Box<[[u16; CLASSES]; LONG_TF as usize]>,
}

/// Classes that the documents of a sub-tile can have: a power of two, so that a mask makes a number one of a class.
const CLASSES: usize = (LENGTHS as usize + SUB_TILE).next_power_of_two();

impl Default for Coder {
    fn default() -> Self {
        let codes = vec![[0; CLASSES]; LONG_TF as usize].into_boxed_slice();
        Coder {
            class_of: Box::new([0; SUB_TILE]),
            codes: codes.try_into().expect("as many as there are frequencies"),
        }
    }
}

impl Coder {
    /// Makes this that of documents of these lengths.
    pub(super) fn fill(&mut self, lengths: &[u32], table: &CodeTable) {
        for (codes, at_hand) in self.codes.iter_mut().zip(table.at_hand()) {
            codes[..at_hand.len()].copy_from_slice(at_hand);
        }
        // Of documents that are not there no list knows, unless it is damaged.
        self.class_of.fill(0);
        let mut own = LENGTHS as u16;
        for (class, &length) in self.class_of.iter_mut().zip(lengths) {
            if length < LENGTHS {
                *class = length as u16;
            } else {
                for (codes, tf) in self.codes.iter_mut().zip(1..LONG_TF) {
                    codes[usize::from(own)] = table.code(tf, length);
                }
                *class = own;
                own += 1;
            }
        }
    }

    /// The document of a posting and its code, 0 for a frequency that the posting does not hold.
    #[inline(always)]
    pub(super) fn code(&self, posting: u16) -> (usize, u16) {
        let document = usize::from(posting) % SUB_TILE;
        let class = usize::from(self.class_of[document]) % CLASSES;
        (document, self.codes[usize::from(posting) / SUB_TILE][class])
    }

    /// Codes a list of postings as code << 16 | document.
    #[inline(always)]
    pub(super) fn code_all(&self, list: &[[u8; 2]], coded: &mut [u32]) {
        let code = |coded: &mut u32, bytes| {
            let (document, code) = self.code(posting(bytes));
            *coded = u32::from(code) << 16 | document as u32;
        };
        let (fours, rest) = list.as_chunks::<4>();
        let (coded_fours, coded_rest) = coded.as_chunks_mut::<4>();
        for ([a, b, c, d], &[x, y, z, w]) in coded_fours.iter_mut().zip(fours) {
            code(a, x);
            code(b, y);
            code(c, z);
            code(d, w);
        }
        for (coded, &bytes) in coded_rest.iter_mut().zip(rest) {
            code(coded, bytes);
        }
    }
}
