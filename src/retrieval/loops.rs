//! The innermost loops of a search, for any processor and for those with AVX-512.
//!
//! Three of them read memory, and one writes it too, wherever postings or lengths point to. Compilers leave such loops scalar,
//! but for the products. AVX-512 reads and writes sixteen places with one instruction; a list names no document twice, so that
//! sixteen additions never meet. (Of a damaged list that does, an addition is lost.) The fourth multiplies 16 bits by 16, which
//! compilers do with 256 bits at a time and not with 512.

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
        if let Some(avx512) = Avx512::detect() {
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
            // All that they add is reckoned in vectors; then each costs no more than two loads and an addition in memory.
            for (product_of, &posting) in products.iter_mut().zip(coded) {
                *product_of = product.of(posting >> 16);
            }
            let mut add = |posting: u32, product: u32| scores[posting as usize % SUB_TILE] += product;
            let (fours, rest) = coded.as_chunks::<4>();
            let (products, last_products) = products.split_at(4 * fours.len());
            for (&[a, b, c, d], &[x, y, z, w]) in fours.iter().zip(products.as_chunks::<4>().0) {
                add(a, x);
                add(b, y);
                add(c, z);
                add(d, w);
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

#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m128i, __m512i, __mmask16, _mm_cvtsi32_si128, _mm256_mask_storeu_epi16, _mm256_maskz_loadu_epi16,
        _mm512_add_epi16, _mm512_add_epi32, _mm512_and_si512, _mm512_cvtepi32_epi16, _mm512_cvtepu16_epi32,
        _mm512_i32gather_epi32, _mm512_loadu_si512, _mm512_mask_i32gather_epi32, _mm512_mask_i32scatter_epi32,
        _mm512_mask_storeu_epi32, _mm512_maskz_loadu_epi32, _mm512_min_epu32, _mm512_mulhi_epu16, _mm512_mullo_epi32,
        _mm512_or_si512, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_slli_epi32,
        _mm512_srl_epi32, _mm512_srli_epi32, _mm512_storeu_si512,
    };

    use super::{AtHand, CLASSES, Codes, Column, LANES, LENGTHS, LONG_TF, Loops, PART, POSTINGS, Product, SUB_TILE};

    /// For processors with AVX-512: whoever has one of these runs on such.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512(());

    impl Avx512 {
        /// Of this processor, if it has F, BW and VL.
        pub(in super::super) fn detect() -> Option<Self> {
            let found = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl");
            found.then_some(Avx512(()))
        }
    }

    // SAFETY of the calls: the processor has the features, or there were no `self`.
    impl Loops for Avx512 {
        #[inline(always)]
        fn look_up(self, at_hand: &AtHand, lengths: &[[u8; 4]], codes: &mut [u16]) {
            unsafe { look_up(at_hand, lengths, codes) }
        }

        #[inline(always)]
        fn code(self, codes: Codes, list: &[[u8; 2]], coded: &mut [u32]) {
            unsafe { code(codes, list, coded) }
        }

        #[inline(always)]
        fn add(self, coded: &[u32], product: Product, scores: &mut [u32; SUB_TILE]) {
            unsafe { add(coded, product, scores) }
        }

        #[inline(always)]
        fn bounds<'c>(self, columns: impl Iterator<Item = Column<'c>>) -> [u16; PART] {
            unsafe { bounds(columns) }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn look_up(at_hand: &AtHand, lengths: &[[u8; 4]], codes: &mut [u16]) {
        let largest = _mm512_set1_epi32(LENGTHS as i32 - 1);
        for (lengths, codes) in lengths.chunks(LANES).zip(codes.chunks_mut(LANES)) {
            let (read, written) = (lanes(lengths.len()), lanes(codes.len()));
            // SAFETY: as many lanes are read and written as there are; two codes lie at each length below LENGTHS.
            unsafe {
                let lengths = _mm512_maskz_loadu_epi32(read, lengths.as_ptr().cast());
                let lengths = _mm512_min_epu32(lengths, largest);
                let pairs = _mm512_i32gather_epi32::<2>(lengths, at_hand.as_ptr().cast());
                _mm256_mask_storeu_epi16(codes.as_mut_ptr().cast(), written, _mm512_cvtepi32_epi16(pairs));
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn code(codes: Codes, list: &[[u8; 2]], coded: &mut [u32]) {
        let each = list.chunks(LANES).zip(coded.chunks_mut(LANES));
        match codes {
            Codes::ByPosting(codes) => {
                for (list, coded) in each {
                    let postings = load(list);
                    store(postings, by_posting(codes, postings), coded);
                }
            }
            Codes::ByClass { classes, codes } => {
                for (list, coded) in each {
                    let postings = load(list);
                    store(postings, by_class(classes, codes, postings), coded);
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn add(coded: &[u32], product: Product, scores: &mut [u32; SUB_TILE]) {
        let products = Products::new(product);
        // Of two registers' postings all scores are read before any is written, so that neither waits for the other.
        let (pairs, rest) = coded.as_chunks::<{ 2 * LANES }>();
        for pair in pairs {
            let (first, second) = pair.split_at(LANES);
            let (first, second) = (products.sums(first, scores), products.sums(second, scores));
            first.write(scores);
            second.write(scores);
        }
        for coded in rest.chunks(LANES) {
            products.sums(coded, scores).write(scores);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn bounds<'c>(columns: impl Iterator<Item = Column<'c>>) -> [u16; PART] {
        /// 16-bit numbers that a register holds.
        const WORDS: usize = 32;
        const { assert!(PART.is_multiple_of(WORDS)) };
        let mut sums = [_mm512_setzero_si512(); PART / WORDS];
        for (codes, weights) in columns {
            let weight = _mm512_set1_epi16(weights[0].cast_signed());
            for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<WORDS>().0) {
                // SAFETY: there are as many codes as the register holds.
                let codes = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
                *sum = _mm512_add_epi16(*sum, _mm512_mulhi_epu16(codes, weight));
            }
        }
        let mut bounds = [0; PART];
        for (bounds, sum) in bounds.as_chunks_mut::<WORDS>().0.iter_mut().zip(sums) {
            // SAFETY: there is room for as many as the register holds.
            unsafe { _mm512_storeu_si512(bounds.as_mut_ptr().cast(), sum) };
        }
        bounds
    }

    /// [`Product`] in all lanes.
    struct Products {
        weight: __m512i,
        half: __m512i,
        shift: __m128i,
    }

    impl Products {
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn new(product: Product) -> Products {
            Products {
                weight: _mm512_set1_epi32(product.weight.cast_signed()),
                half: _mm512_set1_epi32(product.half.cast_signed()),
                shift: _mm_cvtsi32_si128(product.shift.cast_signed()),
            }
        }

        /// The scores of coded postings, at most sixteen, with what is to be added.
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn sums(&self, coded: &[u32], scores: &[u32; SUB_TILE]) -> Sums {
            let mask = lanes(coded.len());
            // SAFETY: as many lanes are read as there are postings.
            let coded = unsafe { _mm512_maskz_loadu_epi32(mask, coded.as_ptr().cast()) };
            let exact = _mm512_mullo_epi32(_mm512_srli_epi32::<16>(coded), self.weight);
            let products = _mm512_srl_epi32(_mm512_add_epi32(exact, self.half), self.shift);
            let documents = documents(coded);
            // SAFETY: documents are below SUB_TILE.
            let before = unsafe {
                _mm512_mask_i32gather_epi32::<4>(_mm512_setzero_si512(), mask, documents, scores.as_ptr().cast())
            };
            let sums = _mm512_add_epi32(before, products);
            Sums { mask, documents, sums }
        }
    }

    /// New scores of the documents in some lanes.
    struct Sums {
        mask: __mmask16,
        documents: __m512i,
        sums: __m512i,
    }

    impl Sums {
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn write(self, scores: &mut [u32; SUB_TILE]) {
            // SAFETY: documents are below SUB_TILE.
            unsafe {
                _mm512_mask_i32scatter_epi32::<4>(scores.as_mut_ptr().cast(), self.mask, self.documents, self.sums)
            }
        }
    }

    /// Up to sixteen postings, one in each lane, and then zeros.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn load(list: &[[u8; 2]]) -> __m512i {
        // SAFETY: as many lanes are read as there are postings.
        _mm512_cvtepu16_epi32(unsafe { _mm256_maskz_loadu_epi16(lanes(list.len()), list.as_ptr().cast()) })
    }

    /// Writes postings with their codes, of which the lower halves of the lanes are those.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(postings: __m512i, codes: __m512i, coded: &mut [u32]) {
        let result = _mm512_or_si512(_mm512_slli_epi32::<16>(codes), documents(postings));
        // SAFETY: as many lanes are written as there is room for.
        unsafe { _mm512_mask_storeu_epi32(coded.as_mut_ptr().cast(), lanes(coded.len()), result) };
    }

    /// The codes at the places of postings, each with its neighbour above it.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn by_posting(codes: &[u16; POSTINGS + 1], postings: __m512i) -> __m512i {
        // SAFETY: a posting has 16 bits; two codes lie at its place.
        unsafe { _mm512_i32gather_epi32::<2>(postings, codes.as_ptr().cast()) }
    }

    /// The codes by frequency and class, each with its neighbour above it.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn by_class(
        classes: &[u16; SUB_TILE + 1],
        codes: &[u16; LONG_TF as usize * CLASSES + 1],
        postings: __m512i,
    ) -> __m512i {
        // SAFETY: documents are below SUB_TILE; two classes lie at their places.
        let classes = unsafe { _mm512_i32gather_epi32::<2>(documents(postings), classes.as_ptr().cast()) };
        let classes = _mm512_and_si512(classes, _mm512_set1_epi32(CLASSES as i32 - 1));
        let of_tf = _mm512_slli_epi32::<{ CLASSES.ilog2() }>(_mm512_srli_epi32::<{ SUB_TILE.ilog2() }>(postings));
        // SAFETY: the frequencies have four bits and the classes their mask; two codes lie at the place of each pair.
        unsafe { _mm512_i32gather_epi32::<2>(_mm512_or_si512(of_tf, classes), codes.as_ptr().cast()) }
    }

    /// The first `len` of sixteen lanes.
    #[inline(always)]
    fn lanes(len: usize) -> __mmask16 {
        (u32::from(u16::MAX) >> (LANES - len)) as u16
    }

    /// The lower bits of postings.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn documents(postings: __m512i) -> __m512i {
        _mm512_and_si512(postings, _mm512_set1_epi32(SUB_TILE as i32 - 1))
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
