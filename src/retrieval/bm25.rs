//! BM25 in its common variants, and its integer form.
//!
//! With N documents, term frequency tf, document frequency df, document length dl, B = 1 - b + b dl / avgdl:
//!
//! | variant | idf | S(t, d) / idf | limit |
//! |---|---|---|---|
//! | `lucene` | ln(1 + (N - df + 0.5) / (df + 0.5)) | tf / (tf + k1 B) | 1 |
//! | `robertson` | ln(max(1, (N - df + 0.5) / (df + 0.5))) | tf / (tf + k1 B) | 1 |
//! | `atire` | ln(N / df) | (k1 + 1) tf / (tf + k1 B) | k1 + 1 |
//! | `bm25l` | ln((N + 1) / (df + 0.5)) | (k1 + 1)(tf / B + 0.5) / (k1 + tf / B + 0.5) | (k1 + 1) k1 / (k1 + 0.5) |
//! | `bm25+` | ln((N + 1) / df) | (k1 + 1) tf / (tf + k1 B) + 0.5 | k1 + 1 |
//!
//! The score of a document is the sum of S over the query's tokens. BM25L and BM25+ also give a constant to absent
//! terms; it is the same for all documents, so the ranking needs only the difference from it (Lu, "BM25S", arXiv
//! 2407.03618). That difference has one form for all variants:
//!
//! ```text
//! S(t, d) - S(t, absent) = idf * limit * tf / (tf + k B)        k = k1; k1 + 0.5 for bm25l
//! ```
//!
//! The last factor does not depend on the term and lies in (0, 1): its 16-bit code serves all terms and variants.
//!
//! Sources: Kamphuis et al., "Which BM25 do you mean?", ECIR 2020; Lucene's `BM25Similarity`.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use super::RetrievalError;
use super::codec::LONG_TF;

/// Which BM25.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Variant {
    /// Lucene 8 and later, Elasticsearch, OpenSearch: the idf is never negative.
    #[default]
    Lucene,
    /// Robertson and Spärck Jones' idf, cut at 0: terms of more than half of the documents do not count.
    Robertson,
    /// ATIRE (Trotman et al. 2012).
    Atire,
    /// BM25L (Lv and Zhai, SIGIR 2011), delta 0.5: kinder to long documents.
    Bm25L,
    /// BM25+ (Lv and Zhai, CIKM 2011): ranks as ATIRE does, with an idf of its own.
    Bm25Plus,
}

impl Variant {
    /// All variants, in the order in which they are offered.
    pub const ALL: [Variant; 5] = [
        Variant::Lucene,
        Variant::Robertson,
        Variant::Atire,
        Variant::Bm25L,
        Variant::Bm25Plus,
    ];

    /// The name in configurations and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Variant::Lucene => "lucene",
            Variant::Robertson => "robertson",
            Variant::Atire => "atire",
            Variant::Bm25L => "bm25l",
            Variant::Bm25Plus => "bm25+",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Variant {
    type Err = RetrievalError;

    fn from_str(name: &str) -> Result<Self, RetrievalError> {
        Variant::ALL
            .into_iter()
            .find(|variant| variant.name() == name)
            .ok_or_else(|| RetrievalError::UnknownName {
                setting: "variant",
                found: name.to_owned(),
                expected: "lucene, robertson, atire, bm25l, bm25+",
            })
    }
}

/// What counts as the length of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DocumentLength {
    /// The number of its terms.
    #[default]
    Exact,
    /// That number rounded down to one that Lucene can keep in a byte ([`lucene_length`]).
    Lucene,
}

impl DocumentLength {
    /// Both kinds, in the order in which they are offered.
    pub const ALL: [DocumentLength; 2] = [DocumentLength::Exact, DocumentLength::Lucene];

    /// The name in configurations and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DocumentLength::Exact => "exact",
            DocumentLength::Lucene => "lucene",
        }
    }
}

impl fmt::Display for DocumentLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DocumentLength {
    type Err = RetrievalError;

    fn from_str(name: &str) -> Result<Self, RetrievalError> {
        DocumentLength::ALL
            .into_iter()
            .find(|length| length.name() == name)
            .ok_or_else(|| RetrievalError::UnknownName {
                setting: "length",
                found: name.to_owned(),
                expected: "exact, lucene",
            })
    }
}

/// The largest length up to `length` that Lucene's one-byte norm can express: exact below 40, then three bits after
/// the leading one (`SmallFloat.intToByte4` and back).
#[must_use]
pub fn lucene_length(length: u32) -> u32 {
    // Of the 256 codes 24 are free, since lengths need no sign: the scale begins at 24.
    const FREE: u32 = 24;
    if length < FREE {
        return length;
    }
    let above = length - FREE;
    let dropped_bits = (u32::BITS - above.leading_zeros()).saturating_sub(4);
    FREE + (above >> dropped_bits << dropped_bits)
}

/// The ranking function. All of it is chosen at query time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bm25 {
    /// Which formula.
    pub variant: Variant,
    /// How slowly a repeated term saturates: 0 or more (above 0 for BM25L, whose scores are all equal at 0).
    pub k1: f64,
    /// How much the document's length counts: 0 to 1.
    pub b: f64,
    /// Exact lengths or Lucene's.
    pub length: DocumentLength,
}

impl Default for Bm25 {
    /// Elasticsearch's parameters, the paper's: Lucene's formula with k1 = 1.2 and b = 0.75; exact lengths.
    fn default() -> Self {
        Bm25 {
            variant: Variant::Lucene,
            k1: 1.2,
            b: 0.75,
            length: DocumentLength::Exact,
        }
    }
}

/// The additive constant of BM25L.
const BM25L_DELTA: f64 = 0.5;

/// The largest code and the largest weight.
const MAX_CODE: f64 = 65535.0;

impl Bm25 {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RetrievalError::OutOfRange`] names the parameter, its value and the range.
    pub fn validate(&self) -> Result<(), RetrievalError> {
        let out_of_range = |setting, found: f64, expected| {
            Err(RetrievalError::OutOfRange {
                setting,
                found: found.to_string(),
                expected,
            })
        };
        if !(self.k1.is_finite() && self.k1 >= 0.0) {
            return out_of_range("k1", self.k1, "a finite number, 0 or more");
        }
        if self.variant == Variant::Bm25L && self.k1 == 0.0 {
            return out_of_range("k1", self.k1, "above 0 for bm25l");
        }
        if !(0.0..=1.0).contains(&self.b) {
            return out_of_range("b", self.b, "from 0 to 1");
        }
        Ok(())
    }

    /// The inverse document frequency, 0 or more.
    #[must_use]
    pub fn idf(&self, documents: u64, df: u64) -> f64 {
        let (n, df) = (documents as f64, df as f64);
        // libm, since the logarithms of the platforms' C libraries differ in the last bit.
        match self.variant {
            Variant::Lucene => libm::log(1.0 + (n - df + 0.5) / (df + 0.5)),
            Variant::Robertson => libm::log(((n - df + 0.5) / (df + 0.5)).max(1.0)),
            Variant::Atire => libm::log(n / df),
            Variant::Bm25L => libm::log((n + 1.0) / (df + 0.5)),
            Variant::Bm25Plus => libm::log((n + 1.0) / df),
        }
    }

    /// tf / (tf + k B): how much of its limit a term gets from a document. `length` is the counted one, `average` the
    /// mean of the exact ones.
    #[must_use]
    pub fn saturation(&self, tf: u32, length: u32, average: f64) -> f64 {
        let k = match self.variant {
            Variant::Bm25L => self.k1 + BM25L_DELTA,
            _ => self.k1,
        };
        let norm = 1.0 - self.b + self.b * f64::from(length) / average;
        f64::from(tf) / (f64::from(tf) + k * norm)
    }

    /// What the idf is multiplied by as tf grows without bound: what the code 65535 stands for.
    #[must_use]
    pub fn limit(&self) -> f64 {
        match self.variant {
            Variant::Lucene | Variant::Robertson => 1.0,
            Variant::Atire | Variant::Bm25Plus => self.k1 + 1.0,
            Variant::Bm25L => (self.k1 + 1.0) * self.k1 / (self.k1 + BM25L_DELTA),
        }
    }

    /// The length as it counts.
    #[must_use]
    pub fn counted_length(&self, length: u32) -> u32 {
        match self.length {
            DocumentLength::Exact => length,
            DocumentLength::Lucene => lucene_length(length),
        }
    }
}

/// The codes of postings: 65535 times the saturation, rounded, at least 1.
#[derive(Debug, Clone)]
pub(super) struct CodeTable {
    bm25: Bm25,
    average: f64,
    /// For each frequency below [`LONG_TF`], from 1 on, the codes of each length below [`LENGTHS`]; nearly every posting
    /// has one of them.
    at_hand: Vec<AtHand>,
}

/// Lengths whose codes are at hand.
pub(super) const LENGTHS: u32 = 1023;

/// The codes of each length below [`LENGTHS`], and one more, since AVX-512 reads 32 bits at a time.
pub(super) type AtHand = [u16; LENGTHS as usize + 1];

impl CodeTable {
    /// The codes under `bm25` for a corpus with this mean length.
    pub(super) fn new(bm25: Bm25, average: f64) -> Self {
        let mut codes = CodeTable {
            bm25,
            average,
            at_hand: Vec::new(),
        };
        let of_tf = |tf| std::array::from_fn(|length| codes.code(tf, length as u32));
        codes.at_hand = (1..LONG_TF).map(of_tf).collect();
        codes
    }

    /// The code of a term that occurs `tf` > 0 times in a document of `length` terms.
    #[inline]
    pub(super) fn code(&self, tf: u32, length: u32) -> u16 {
        (MAX_CODE * self.bm25.saturation(tf, self.bm25.counted_length(length), self.average))
            .round()
            .max(1.0) as u16
    }

    /// The ranking function.
    pub(super) fn bm25(&self) -> &Bm25 {
        &self.bm25
    }

    /// For each frequency below [`LONG_TF`], from 1 on, the codes of each length below [`LENGTHS`].
    pub(super) fn at_hand(&self) -> &[AtHand] {
        &self.at_hand
    }
}

/// Up to so many terms the shift is at most 17, and weight * code + 2^16 fits 32 bits.
pub(super) const MAX_QUERY_TERMS: usize = 1 << 17;

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

/// A query in the integers of the search.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct WeightedQuery {
    /// (term, weight), the heaviest first; weights in 1..=65535, at most 131,072 terms. Terms that cannot add to a score are left out.
    pub(super) terms: Vec<(u32, u32)>,
    /// By how many bits a product weight * code is shifted down, with rounding.
    pub(super) shift: u32,
    /// One unit of the integer score in BM25.
    pub(super) unit: f64,
}

impl WeightedQuery {
    /// The query number `query` of its list, from (term, x) with x = qtf * idf above 0, each term once.
    ///
    /// # Errors
    /// [`RetrievalError::TooManyTerms`] above 131,072 terms.
    pub(super) fn new(query: usize, weighted: &[(u32, f64)], bm25: &Bm25) -> Result<Self, RetrievalError> {
        if weighted.len() > MAX_QUERY_TERMS {
            return Err(RetrievalError::TooManyTerms {
                query,
                terms: weighted.len(),
                limit: MAX_QUERY_TERMS,
            });
        }
        let largest = weighted.iter().map(|&(_, weight)| weight).fold(0.0, f64::max);
        let mut terms: Vec<(u32, u32)> = weighted
            .iter()
            .map(|&(term, weight)| (term, (MAX_CODE * weight / largest).round().max(1.0) as u32))
            .collect();
        terms.sort_unstable_by_key(|&(term, weight)| (Reverse(weight), term));
        let shift = smallest_shift(&terms);
        Ok(WeightedQuery {
            terms,
            shift,
            unit: libm::ldexp(largest * bm25.limit() / (MAX_CODE * MAX_CODE), shift as i32),
        })
    }

    /// What a term of this weight adds to a score.
    #[inline(always)]
    pub(super) fn product(&self, weight: u32) -> Product {
        Product {
            weight,
            half: (1 << self.shift) >> 1,
            shift: self.shift,
        }
    }
}

/// The smallest shift under which the largest possible sum stays below 2^32.
fn smallest_shift(terms: &[(u32, u32)]) -> u32 {
    let largest_sum = |shift: u32| -> u64 {
        let half = (1_u64 << shift) >> 1;
        terms
            .iter()
            .map(|&(_, weight)| (u64::from(weight) * 65535 + half) >> shift)
            .sum()
    };
    (0..=17)
        .find(|&shift| largest_sum(shift) <= u64::from(u32::MAX))
        .expect("at a shift of 17 a term adds less than 2^15, and there are at most 2^17 terms")
}
