//! The loops of a search with AVX-512.

use std::arch::x86_64::{
    __cpuid, __m128i, __m512i, __mmask16, _mm_cvtsi32_si128, _mm256_mask_storeu_epi16, _mm256_maskz_loadu_epi16,
    _mm512_add_epi16, _mm512_add_epi32, _mm512_and_si512, _mm512_cvtepi32_epi16, _mm512_cvtepu16_epi32,
    _mm512_i32gather_epi32, _mm512_loadu_si512, _mm512_mask_i32gather_epi32, _mm512_mask_i32scatter_epi32,
    _mm512_mask_storeu_epi32, _mm512_maskz_loadu_epi32, _mm512_min_epu32, _mm512_mulhi_epu16, _mm512_mullo_epi32,
    _mm512_or_si512, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srl_epi32,
    _mm512_srli_epi32, _mm512_storeu_si512,
};
use std::sync::LazyLock;

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

    /// Of this processor, if these loops are faster there than those for any: on Intel's. AMD's gather and scatter by
    /// microcode, one place after another; adding takes 1.6 times as long with them on a Zen 4.
    pub(in super::super) fn detect_fast() -> Option<Self> {
        static INTEL: LazyLock<bool> = LazyLock::new(|| {
            let leaf = __cpuid(0);
            [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
        });
        INTEL.then(Avx512::detect).flatten()
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
        unsafe { _mm512_mask_i32scatter_epi32::<4>(scores.as_mut_ptr().cast(), self.mask, self.documents, self.sums) }
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
