//! From the postings of a sub-tile to their codes.

use super::bm25::{CodeTable, LENGTHS};
use super::codec::{LONG_TF, SUB_TILE};
#[cfg(target_arch = "x86_64")]
use super::loops::Avx512;
use super::loops::{Loops, Plain};

/// The codes of the postings that a sub-tile can have, 0 for a frequency that they do not hold.
///
/// The arrays have an element more than they need, since processors look things up in pairs.
#[derive(Clone, Copy)]
pub(super) enum Codes<'a> {
    /// At the place of each posting.
    ByPosting(&'a [u16; POSTINGS + 1]),
    /// By frequency and by the class of the document's length.
    ByClass {
        /// For each document.
        classes: &'a [u16; SUB_TILE + 1],
        /// `(LONG_TF, CLASSES)`
        codes: &'a [u16; LONG_TF as usize * CLASSES + 1],
    },
}

impl Codes<'_> {
    /// That of a posting.
    #[inline(always)]
    pub(super) fn of(self, posting: u16) -> u16 {
        let posting = usize::from(posting);
        match self {
            Codes::ByPosting(codes) => codes[posting],
            Codes::ByClass { classes, codes } => {
                let class = usize::from(classes[posting % SUB_TILE]) % CLASSES;
                codes[posting / SUB_TILE * CLASSES + class]
            }
        }
    }
}

/// Postings that can be: they have 16 bits.
pub(super) const POSTINGS: usize = LONG_TF as usize * SUB_TILE;

/// Classes that the documents of a sub-tile can have: a power of two, so that a mask makes a number one of a class.
pub(super) const CLASSES: usize = (LENGTHS as usize + SUB_TILE).next_power_of_two();

/// From so many postings on it pays to have a code at the place of each that can be.
const MANY: usize = 16 * SUB_TILE;

/// Makes codes and finds them.
pub(super) struct Coder {
    many: bool,
    by_posting: Box<[u16; POSTINGS + 1]>,
    /// The length below [`LENGTHS`], a number of its own above.
    classes: Box<[u16; SUB_TILE + 1]>,
    by_class: Box<[u16; LONG_TF as usize * CLASSES + 1]>,
    #[cfg(target_arch = "x86_64")]
    avx512: Option<Avx512>,
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
            #[cfg(target_arch = "x86_64")]
            avx512: Avx512::detect(),
        }
    }
}

impl Coder {
    /// Makes this that of documents of these lengths, to code so many postings.
    pub(super) fn fill(&mut self, lengths: &[[u8; 4]], table: &CodeTable, postings: usize) {
        self.many = postings >= MANY;
        match self.many {
            true => self.fill_by_posting(lengths, table),
            false => self.fill_by_class(lengths, table),
        }
    }

    fn fill_by_posting(&mut self, lengths: &[[u8; 4]], table: &CodeTable) {
        let of_tf = self.by_posting.as_chunks_mut::<SUB_TILE>().0.iter_mut();
        for ((tf, at_hand), codes) in (1..LONG_TF).zip(table.at_hand()).zip(of_tf) {
            let (codes, absent) = codes.split_at_mut(lengths.len());
            // Of documents that are not there no list knows, unless it is damaged.
            absent.fill(0);
            for (code, &length) in codes.iter_mut().zip(lengths) {
                let length = u32::from_le_bytes(length);
                *code = match at_hand.get(length as usize) {
                    Some(&code) => code,
                    None => table.code(tf, length),
                };
            }
        }
    }

    fn fill_by_class(&mut self, lengths: &[[u8; 4]], table: &CodeTable) {
        let codes = self.by_class.as_chunks_mut::<CLASSES>().0;
        for (codes, at_hand) in codes.iter_mut().zip(table.at_hand()) {
            codes[..at_hand.len()].copy_from_slice(at_hand);
        }
        self.classes.fill(0);
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

    /// The document of a posting and its code, 0 for a frequency that the posting does not hold.
    #[inline(always)]
    pub(super) fn code(&self, posting: u16) -> (usize, u16) {
        (usize::from(posting) % SUB_TILE, self.codes().of(posting))
    }

    /// Codes a list of postings as code << 16 | document.
    pub(super) fn code_all(&self, list: &[[u8; 2]], coded: &mut [u32]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = self.avx512 {
            return avx512.code(self.codes(), list, coded);
        }
        Plain.code(self.codes(), list, coded);
    }

    /// The codes themselves.
    #[inline(always)]
    pub(super) fn codes(&self) -> Codes<'_> {
        match self.many {
            true => Codes::ByPosting(&self.by_posting),
            false => Codes::ByClass {
                classes: &self.classes,
                codes: &self.by_class,
            },
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
        let length_of = |document: u32| match document % 7 {
            0 => 1023 + document % 3,
            1 => 70_000 + document,
            _ => document % 600,
        };
        for documents in [1, 4000, SUB_TILE as u32] {
            let lengths: Vec<[u8; 4]> = (0..documents)
                .map(|document| length_of(document).to_le_bytes())
                .collect();
            for postings in [0, MANY - 1, MANY, usize::MAX] {
                let mut coder = Coder::default();
                // What the sub-tile before has left behind is of no effect.
                coder.fill(
                    &[[9, 0, 0, 0]; SUB_TILE],
                    &CodeTable::new(Bm25::default(), 5.0),
                    postings,
                );
                coder.fill(&lengths, &table, postings);
                assert_eq!(matches!(coder.codes(), Codes::ByPosting(_)), postings >= MANY);
                for tf in 1..=LONG_TF {
                    let (list, expected): (Vec<[u8; 2]>, Vec<u32>) = (0..documents)
                        .map(|document| {
                            let code = match tf {
                                LONG_TF => 0,
                                _ => table.code(tf, length_of(document)),
                            };
                            let posting = (tf - 1) << 12 | document;
                            ((posting as u16).to_le_bytes(), u32::from(code) << 16 | document)
                        })
                        .unzip();
                    let mut coded = vec![0; list.len()];
                    coder.code_all(&list, &mut coded);
                    assert!(coded == expected, "tf {tf}, {documents} documents, {postings} postings");
                }
            }
        }
    }
}
