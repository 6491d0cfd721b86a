//! The innermost loops of a search, for any processor and for those with AVX-512.
//!
//! Two of them follow postings: they read memory, and one writes it too, wherever the postings point to. Compilers leave such
//! loops scalar, but for the products. AVX-512 reads and writes sixteen places with one instruction; a list names no document
//! twice, so that sixteen additions never meet. The third multiplies 16 bits by 16, of which compilers make AVX2 but not
//! AVX-512.

use super::codec::{SUB_TILE, posting};
use super::coder::Codes;

/// What a term adds to the score of a document, by the document's code: (weight * code + half) >> shift.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) weight: u32,
    /// Half a unit before the shift: what rounds it.
    pub(super) half: u32,
    pub(super) shift: u32,
}

impl Product {
    /// For the document's code.
    #[inline(always)]
    pub(super) fn of(self, code: u32) -> u32 {
        (self.weight * code + self.half) >> self.shift
    }
}

/// The loops for a kind of processor.
pub(super) trait Loops: Copy {
    /// Writes for each posting of a list its code << 16 | its document.
    fn code(self, codes: Codes, list: &[[u8; 2]], coded: &mut [u32]);

    /// Adds to the scores of a list's documents, none of which it has twice. `coded` is what [`Loops::code`] writes.
    fn add(self, coded: &[u32], product: Product, scores: &mut [u32; SUB_TILE]);

    /// Adds up weight * code >> 16 for each document: (codes, weight) of some columns. The sums have 16 bits.
    fn bounds<'c>(self, columns: impl Iterator<Item = (&'c [u16; PART], &'c [u16; LANES])>) -> [u16; PART];
}

/// Documents whose bounds are added up together, in registers.
pub(super) const PART: usize = 128;

/// So often a weight stands in a row: read as a vector, it makes the compiler multiply 16 bits by 16.
pub(super) const LANES: usize = 16;

/// For any processor.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Loops for Plain {
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
    fn bounds<'c>(self, columns: impl Iterator<Item = (&'c [u16; PART], &'c [u16; LANES])>) -> [u16; PART] {
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
        __m128i, __m512i, __mmask16, _mm_cvtsi32_si128, _mm256_maskz_loadu_epi16, _mm512_add_epi16, _mm512_add_epi32,
        _mm512_and_si512, _mm512_cvtepu16_epi32, _mm512_i32gather_epi32, _mm512_loadu_si512,
        _mm512_mask_i32gather_epi32, _mm512_mask_i32scatter_epi32, _mm512_mask_storeu_epi32, _mm512_maskz_loadu_epi32,
        _mm512_mulhi_epu16, _mm512_mullo_epi32, _mm512_or_si512, _mm512_set1_epi16, _mm512_set1_epi32,
        _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srl_epi32, _mm512_srli_epi32, _mm512_storeu_si512,
    };

    use super::{Codes, LANES, Loops, PART, Product, SUB_TILE};
    use crate::retrieval::codec::LONG_TF;
    use crate::retrieval::coder::{CLASSES, POSTINGS};

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

    impl Loops for Avx512 {
        #[inline(always)]
        fn code(self, codes: Codes, list: &[[u8; 2]], coded: &mut [u32]) {
            assert_eq!(list.len(), coded.len());
            // SAFETY: the processor has the features, or there were no `self`; the two are equally long.
            unsafe { code(codes, list, coded) }
        }

        #[inline(always)]
        fn add(self, coded: &[u32], product: Product, scores: &mut [u32; SUB_TILE]) {
            // SAFETY: the processor has the features, or there were no `self`.
            unsafe { add(coded, product, scores) }
        }

        #[inline(always)]
        fn bounds<'c>(self, columns: impl Iterator<Item = (&'c [u16; PART], &'c [u16; LANES])>) -> [u16; PART] {
            // SAFETY: the processor has the features, or there were no `self`.
            unsafe {
                let mut sums = [_mm512_setzero_si512(); PART / 32];
                for (codes, weights) in columns {
                    let weight = _mm512_set1_epi16(weights[0].cast_signed());
                    for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<32>().0) {
                        let codes = _mm512_loadu_si512(codes.as_ptr().cast());
                        *sum = _mm512_add_epi16(*sum, _mm512_mulhi_epu16(codes, weight));
                    }
                }
                let mut bounds = [0; PART];
                for (bounds, sum) in bounds.as_chunks_mut::<32>().0.iter_mut().zip(sums) {
                    _mm512_storeu_si512(bounds.as_mut_ptr().cast(), sum);
                }
                bounds
            }
        }
    }

    /// # Safety
    /// Needs AVX-512 F, BW and VL, and `coded` as long as `list`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn code(codes: Codes, list: &[[u8; 2]], coded: &mut [u32]) {
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

    /// # Safety
    /// Needs AVX-512 F, BW and VL.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn add(coded: &[u32], product: Product, scores: &mut [u32; SUB_TILE]) {
        let product = Products::new(product);
        for coded in coded.chunks(LANES) {
            let mask = lanes(coded.len());
            // SAFETY: the processor has the features; as many lanes are read as there are postings.
            unsafe {
                let coded = _mm512_maskz_loadu_epi32(mask, coded.as_ptr().cast());
                product.add(mask, documents(coded), _mm512_srli_epi32::<16>(coded), scores);
            }
        }
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

        /// Adds to the scores of `documents`, all different and below [`SUB_TILE`], by their codes.
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn add(&self, mask: __mmask16, documents: __m512i, codes: __m512i, scores: &mut [u32; SUB_TILE]) {
            let exact = _mm512_mullo_epi32(codes, self.weight);
            let products = _mm512_srl_epi32(_mm512_add_epi32(exact, self.half), self.shift);
            let scores: *mut i32 = scores.as_mut_ptr().cast();
            // SAFETY: the documents are below SUB_TILE.
            unsafe {
                let before = _mm512_mask_i32gather_epi32::<4>(_mm512_setzero_si512(), mask, documents, scores);
                _mm512_mask_i32scatter_epi32::<4>(scores, mask, documents, _mm512_add_epi32(before, products));
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

    /// What the loops make of some lists and columns of random numbers.
    fn outcome(loops: impl Loops, coder: &Coder) -> (Vec<Vec<u32>>, [u32; SUB_TILE], [u16; PART]) {
        let mut stream = Stream::new(1, purpose::SYNTHETIC, 0);
        let mut scores = [7; SUB_TILE];
        let mut coded_lists = Vec::new();
        for len in (0..70).chain([500, SUB_TILE as u32]) {
            let step = SUB_TILE as u32 / len.max(1);
            let of_list = |place| (place * step + stream.below(step)) as u16 | (stream.below(16) as u16) << 12;
            let list: Vec<[u8; 2]> = (0..len).map(of_list).map(u16::to_le_bytes).collect();
            let mut coded = vec![0; list.len()];
            loops.code(coder.codes(), &list, &mut coded);
            let shift = stream.below(18);
            let product = Product {
                weight: 1 + stream.below(65_535),
                half: (1 << shift) >> 1,
                shift,
            };
            loops.add(&coded, product, &mut scores);
            coded_lists.push(coded);
        }
        let columns: Vec<([u16; PART], [u16; LANES])> = (0..9)
            .map(|_| {
                let weight = stream.below(7000) as u16;
                (std::array::from_fn(|_| stream.below(1 << 16) as u16), [weight; LANES])
            })
            .collect();
        let bounds = loops.bounds(columns.iter().map(|(codes, weights)| (codes, weights)));
        (coded_lists, scores, bounds)
    }

    #[test]
    fn the_loops_of_this_processor_make_what_the_plain_ones_make() {
        let bm25 = Bm25::default();
        let table = CodeTable::new(bm25, 100.0);
        let lengths: Vec<[u8; 4]> = (0..SUB_TILE as u32).map(|i| (i * i % 1500).to_le_bytes()).collect();
        for postings in [0, usize::MAX] {
            let mut coder = Coder::default();
            coder.fill(&lengths, &table, postings);
            let plain = outcome(Plain, &coder);
            #[cfg(target_arch = "x86_64")]
            match Avx512::detect() {
                Some(avx512) => assert!(outcome(avx512, &coder) == plain, "{postings} postings"),
                None => eprintln!("SKIPPED: this processor has no AVX-512"),
            }
        }
    }
}
