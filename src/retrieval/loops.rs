//! The innermost loops of a search, for any processor and for those with a fast AVX-512.
//!
//! Three of them read memory, and one writes it too, wherever postings or lengths point to. Compilers leave such loops scalar,
//! but for the products. AVX-512 reads and writes sixteen places with one instruction; a list names no document twice, so that
//! sixteen additions never meet. (Of a damaged list that does, an addition is lost.) The fourth multiplies 16 bits by 16, which
//! compilers do with 256 bits at a time and not with 512.

#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;

use super::bm25::{AtHand, LENGTHS, Product};
use super::codec::{LONG_TF, SUB_TILE, posting};

/// The codes of the postings that a sub-tile can have, 0 for a frequency that they do not hold and for documents that are not
/// there. The arrays have an element more than they need, since AVX-512 reads 32 bits at a time.
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

/// The loops for a kind of processor.
pub(super) trait Loops: Copy {
    /// Writes for each document its code by its length, where that is below [`LENGTHS`]; `codes` is as long as `lengths`.
    fn look_up(self, at_hand: &AtHand, lengths: &[[u8; 4]], codes: &mut [u16]);

    /// Writes for each posting of a list its code << 16 | its document; `coded` is as long as the list.
    fn code(self, codes: Codes, list: &[[u8; 2]], coded: &mut [u32]);

    /// Adds to the scores of a list's documents, none of which it has twice. `coded` is what [`Loops::code`] writes; of the
    /// document's half only the lower bits count.
    fn add(self, coded: &[u32], product: Product, scores: &mut [u32; SUB_TILE]);

    /// Adds up weight * code >> 16 for each document: (codes, weight) of some columns, whose sums have 16 bits.
    fn bounds<'c>(self, columns: impl Iterator<Item = Column<'c>>) -> [u16; PART];
}

/// The codes of some documents, and a weight, [`LANES`] times.
pub(super) type Column<'c> = (&'c [u16; PART], &'c [u16; LANES]);

/// Documents whose bounds are added up together, in registers.
pub(super) const PART: usize = 128;

/// So often a weight stands in a row: read as a vector, it makes the compiler multiply 16 bits by 16.
pub(super) const LANES: usize = 16;

/// The loops for the processor at hand.
#[derive(Clone, Copy)]
pub(super) enum Processor {
    Any,
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Processor {
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = Avx512::detect_fast() {
            return Processor::Avx512(avx512);
        }
        Processor::Any
    }

    /// [`Loops::look_up`]
    pub(super) fn look_up(self, at_hand: &AtHand, lengths: &[[u8; 4]], codes: &mut [u16]) {
        match self {
            Processor::Any => Plain.look_up(at_hand, lengths, codes),
            #[cfg(target_arch = "x86_64")]
            Processor::Avx512(avx512) => avx512.look_up(at_hand, lengths, codes),
        }
    }

    /// [`Loops::code`]
    pub(super) fn code(self, codes: Codes, list: &[[u8; 2]], coded: &mut [u32]) {
        match self {
            Processor::Any => Plain.code(codes, list, coded),
            #[cfg(target_arch = "x86_64")]
            Processor::Avx512(avx512) => avx512.code(codes, list, coded),
        }
    }
}

/// For any processor.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Loops for Plain {
    #[inline(always)]
    fn look_up(self, at_hand: &AtHand, lengths: &[[u8; 4]], codes: &mut [u16]) {
        for (code, &length) in codes.iter_mut().zip(lengths) {
            *code = at_hand[u32::from_le_bytes(length).min(LENGTHS - 1) as usize];
        }
    }

    #[inline(always)]
    fn code(self, codes: Codes, list: &[[u8; 2]], coded: &mut [u32]) {
        for (coded, &bytes) in coded.iter_mut().zip(list) {
            let posting = posting(bytes);
            *coded = u32::from(codes.of(posting)) << 16 | u32::from(posting % SUB_TILE as u16);
        }
    }

    #[inline(always)]
    fn add(self, coded: &[u32], product: Product, scores: &mut [u32; SUB_TILE]) {
        let mut products = [0; 64];
        for coded in coded.chunks(products.len()) {
            // All that they add is reckoned in vectors; postings and products are read two at a time.
            for (product_of, &posting) in products.iter_mut().zip(coded) {
                *product_of = product.of(posting >> 16);
            }
            let mut add = |posting: u32, product: u32| scores[posting as usize % SUB_TILE] += product;
            let (fours, rest) = coded.as_chunks::<4>();
            let (products, last_products) = products.split_at(4 * fours.len());
            for (postings, products) in fours.iter().zip(products.as_chunks::<4>().0) {
                let (postings, products): ([u64; 2], [u64; 2]) = (bytemuck::cast(*postings), bytemuck::cast(*products));
                for (postings, products) in postings.into_iter().zip(products) {
                    add(postings as u32, products as u32);
                    add((postings >> 32) as u32, (products >> 32) as u32);
                }
            }
            for (&posting, &product) in rest.iter().zip(last_products) {
                add(posting, product);
            }
        }
    }

    #[inline(always)]
    fn bounds<'c>(self, columns: impl Iterator<Item = Column<'c>>) -> [u16; PART] {
        let mut bounds = [0_u16; PART];
        for (codes, weights) in columns {
            let (bounds, codes) = (bounds.as_chunks_mut::<LANES>().0, codes.as_chunks::<LANES>().0);
            for (bounds, codes) in bounds.iter_mut().zip(codes) {
                for ((bound, &code), &weight) in bounds.iter_mut().zip(codes).zip(weights) {
                    let product = (u32::from(code) * u32::from(weight)) >> 16;
                    *bound = bound.wrapping_add(product as u16);
                }
            }
        }
        bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::bm25::{Bm25, CodeTable};
    use crate::retrieval::coder::Coder;
    use crate::rng::{Stream, purpose};

    /// What loops make of lists one after another and of columns: coded postings, scores, bounds.
    type Outcome = (Vec<u32>, [u32; SUB_TILE], [u16; PART]);

    fn outcome(loops: impl Loops, codes: Codes, lists: &[(Vec<u16>, Product)], columns: &[Column]) -> Outcome {
        let mut scores = [7; SUB_TILE];
        let mut all = Vec::new();
        for (list, product) in lists {
            let list: Vec<[u8; 2]> = list.iter().map(|posting| posting.to_le_bytes()).collect();
            let mut coded = vec![0; list.len()];
            loops.code(codes, &list, &mut coded);
            all.extend_from_slice(&coded);
            for (coded, &bytes) in coded.iter_mut().zip(&list) {
                // The bits between code and document are of no effect.
                *coded |= u32::from(posting(bytes)) / SUB_TILE as u32 * SUB_TILE as u32;
            }
            loops.add(&coded, *product, &mut scores);
        }
        (all, scores, loops.bounds(columns.iter().copied()))
    }

    fn defined(codes: Codes, lists: &[(Vec<u16>, Product)], columns: &[Column]) -> Outcome {
        let mut scores = [7; SUB_TILE];
        let mut all = Vec::new();
        for (list, product) in lists {
            for &posting in list {
                let (document, code) = (posting & 0xfff, u64::from(codes.of(posting)));
                all.push((code << 16) as u32 | u32::from(document));
                let exact = u64::from(product.weight) * code + u64::from(product.half);
                scores[usize::from(document)] += (exact >> product.shift) as u32;
            }
        }
        let bound = |place| {
            let of_column = |(codes, weights): &Column| (u64::from(codes[place]) * u64::from(weights[0])) >> 16;
            columns.iter().map(of_column).sum::<u64>() as u16
        };
        (all, scores, std::array::from_fn(bound))
    }

    #[test]
    fn all_loops_make_what_is_defined() {
        let mut stream = Stream::new(1, purpose::SYNTHETIC, 0);
        let mut list = |len: u32| {
            let step = SUB_TILE as u32 / len.max(1);
            let mut posting = |place| stream.below(16) << 12 | (place * step + stream.below(step));
            let list: Vec<u16> = (0..len).map(|place| posting(place) as u16).collect();
            let shift = 8 + stream.below(10);
            let product = Product {
                weight: 1 + stream.below(65_535),
                half: (1 << shift) >> 1,
                shift,
            };
            (list, product)
        };
        let lists: Vec<(Vec<u16>, Product)> = (0..70).chain([500, SUB_TILE as u32]).map(&mut list).collect();
        let mut column = |weight: u16| {
            let codes: [u16; PART] = std::array::from_fn(|_| stream.below(1 << 16) as u16);
            (codes, [weight; LANES])
        };
        let columns: Vec<_> = [40_000, 20_000, 5000, 500, 3, 1].map(&mut column).into();
        let columns: Vec<Column> = columns.iter().map(|(codes, weights)| (codes, weights)).collect();
        let lengths: Vec<[u8; 4]> = (0..SUB_TILE as u32).map(|i| (i * i % 1500).to_le_bytes()).collect();
        for postings in [0, usize::MAX] {
            let mut coder = Coder::default();
            coder.fill(&lengths, &CodeTable::new(Bm25::default(), 100.0), postings);
            for columns in [&columns[..], &columns[..1], &[]] {
                let expected = defined(coder.codes(), &lists, columns);
                assert!(outcome(Plain, coder.codes(), &lists, columns) == expected);
                #[cfg(target_arch = "x86_64")]
                match Avx512::detect() {
                    Some(avx512) => assert!(outcome(avx512, coder.codes(), &lists, columns) == expected),
                    None => eprintln!("SKIPPED: this processor has no AVX-512"),
                }
            }
        }
    }

    #[test]
    fn all_loops_look_the_same_codes_up() {
        fn looked_up(loops: impl Loops, at_hand: &AtHand, lengths: &[u32]) -> Vec<u16> {
            let lengths: Vec<[u8; 4]> = lengths.iter().map(|length| length.to_le_bytes()).collect();
            let mut codes = vec![0; lengths.len()];
            loops.look_up(at_hand, &lengths, &mut codes);
            codes
        }

        let at_hand: AtHand = std::array::from_fn(|length| length as u16 * 63 + 7);
        for documents in [0, 1, 15, 16, 17, 4095, SUB_TILE as u32] {
            let mut lengths: Vec<u32> = (0..documents).map(|document| document * 7919 % LENGTHS).collect();
            let expected: Vec<u16> = lengths.iter().map(|&length| at_hand[length as usize]).collect();
            assert_eq!(looked_up(Plain, &at_hand, &lengths), expected);
            // A length that is not at hand gives any code, and the others theirs.
            lengths.extend([u32::MAX, LENGTHS]);
            let found = looked_up(Plain, &at_hand, &lengths);
            assert_eq!(found[..expected.len()], expected);
            #[cfg(target_arch = "x86_64")]
            match Avx512::detect() {
                Some(avx512) => assert_eq!(looked_up(avx512, &at_hand, &lengths), found),
                None => eprintln!("SKIPPED: this processor has no AVX-512"),
            }
        }
    }
}
