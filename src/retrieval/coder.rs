//! From the postings of a sub-tile to their codes.

use super::bm25::{CodeTable, LENGTHS};
use super::codec::{LONG_TF, SUB_TILE};
use super::loops::{CLASSES, Codes, POSTINGS, Processor};

/// From so many postings on it pays to have a code at the place of each that can be. Found by trying.
pub(super) const MANY: usize = 16 * SUB_TILE;

/// Makes codes and finds them.
pub(super) struct Coder {
    many: bool,
    by_posting: Box<[u16; POSTINGS + 1]>,
    /// The length below [`LENGTHS`], a number of its own above.
    classes: Box<[u16; SUB_TILE + 1]>,
    by_class: Box<[u16; LONG_TF as usize * CLASSES + 1]>,
    processor: Processor,
}

impl Default for Coder {
    fn default() -> Self {
        fn zeros<const N: usize>() -> Box<[u16; N]> {
            let zeros = vec![0; N].into_boxed_slice();
            zeros.try_into().expect("they are so many")
        }
        Coder {
            many: false,
            by_posting: zeros(),
            classes: zeros(),
            by_class: zeros(),
            processor: Processor::detect(),
        }
    }
}

impl Coder {
    /// Makes this that of documents of these lengths, to code so many postings.
    pub(super) fn fill(&mut self, lengths: &[[u8; 4]], table: &CodeTable, postings: usize) {
        self.many = postings >= MANY;
        if self.many {
            self.fill_by_posting(lengths, table);
        } else {
            self.fill_by_class(lengths, table);
        }
    }

    fn fill_by_posting(&mut self, lengths: &[[u8; 4]], table: &CodeTable) {
        let long = lengths.iter().map(|&length| u32::from_le_bytes(length)).enumerate();
        let long: Vec<(usize, u32)> = long.filter(|&(_, length)| length >= LENGTHS).collect();
        let of_tf = self.by_posting.as_chunks_mut::<SUB_TILE>().0.iter_mut();
        for ((tf, at_hand), codes) in (1..LONG_TF).zip(table.at_hand()).zip(of_tf) {
            let (codes, absent) = codes.split_at_mut(lengths.len());
            absent.fill(0);
            self.processor.look_up(at_hand, lengths, codes);
            for &(document, length) in &long {
                codes[document] = table.code(tf, length);
            }
        }
    }

    fn fill_by_class(&mut self, lengths: &[[u8; 4]], table: &CodeTable) {
        let codes = self.by_class.as_chunks_mut::<CLASSES>().0;
        for (codes, at_hand) in codes.iter_mut().zip(table.at_hand()) {
            codes[..at_hand.len()].copy_from_slice(at_hand);
        }
        // No document has the last class, whose codes are 0: it is that of documents that are not there.
        self.classes.fill(CLASSES as u16 - 1);
        let mut own = LENGTHS as u16;
        for (class, &length) in self.classes.iter_mut().zip(lengths) {
            let length = u32::from_le_bytes(length);
            if length < LENGTHS {
                *class = length as u16;
            } else {
                for (codes, tf) in codes.iter_mut().zip(1..LONG_TF) {
                    codes[usize::from(own)] = table.code(tf, length);
                }
                *class = own;
                own += 1;
            }
        }
    }

    /// Codes a list of postings as code << 16 | document.
    pub(super) fn code_all(&self, list: &[[u8; 2]], coded: &mut [u32]) {
        self.processor.code(self.codes(), list, coded);
    }

    /// The codes themselves.
    #[inline(always)]
    pub(super) fn codes(&self) -> Codes<'_> {
        if self.many {
            Codes::ByPosting(&self.by_posting)
        } else {
            Codes::ByClass {
                classes: &self.classes,
                codes: &self.by_class,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::bm25::{Bm25, DocumentLength};

    #[test]
    fn every_posting_has_the_code_of_its_frequency_and_length_however_it_is_found() {
        let bm25 = Bm25 {
            length: DocumentLength::Lucene,
            ..Bm25::default()
        };
        let table = CodeTable::new(bm25, 300.0);
        let other_table = CodeTable::new(Bm25::default(), 5.0);
        let mixed: fn(u32) -> u32 = |document| match document % 7 {
            0 => 1023 + document % 3,
            1 => 70_000 + document,
            _ => document % 600,
        };
        // As many classes of their own as there can be.
        let long: fn(u32) -> u32 = |document| 2000 + document;
        let mut coder = Coder::default();
        for documents in [1, 4000, SUB_TILE as u32] {
            for length_of in [mixed, long] {
                let lengths: Vec<[u8; 4]> = (0..documents)
                    .map(|document| length_of(document).to_le_bytes())
                    .collect();
                for postings in [0, MANY, MANY - 1, usize::MAX] {
                    // What sub-tiles before have left behind is of no effect.
                    coder.fill(&[[9, 0, 0, 0]; SUB_TILE], &other_table, postings);
                    coder.fill(&lengths, &table, postings);
                    assert_eq!(matches!(coder.codes(), Codes::ByPosting(_)), postings >= MANY);
                    for tf in 1..=LONG_TF {
                        let code = |document| match tf {
                            LONG_TF => 0,
                            _ if document >= documents => 0,
                            _ => table.code(tf, length_of(document)),
                        };
                        let all = 0..SUB_TILE as u32;
                        let list: Vec<[u8; 2]> = all
                            .clone()
                            .map(|document| (((tf - 1) << 12 | document) as u16).to_le_bytes())
                            .collect();
                        let mut coded = vec![0; list.len()];
                        coder.code_all(&list, &mut coded);
                        let expected = all.map(|document| u32::from(code(document)) << 16 | document);
                        assert!(
                            coded.into_iter().eq(expected),
                            "tf {tf} of {documents}, {postings} postings"
                        );
                    }
                }
            }
        }
    }
}
