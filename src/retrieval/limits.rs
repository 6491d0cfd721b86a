//! How a build keeps within its memory.
//!
//! With M bytes, L postings of a tile at most, and t threads:
//!
//! ```text
//! open tile, the next one, one being assembled    (14 + 14 + 22) L    M / 2 less the last line, but L is M / 160 at least
//!                                                                     and 4M at most; more tiles as they fit M / 2
//! pieces being analysed                           5 MB each           t + 1, as many as fit M / 8
//! words remembered                                64 bytes each       M / 8 over t threads
//! vocabulary and provisional lists of a segment   M / 6               then the segment ends
//! program, buffers                                24 MB
//! ```
//!
//! L and the end of segments follow from M alone, so that the bytes of an index do not depend on the number of threads.

use super::RetrievalError;
use super::term_cache::{BYTES_PER_CACHED_WORD, MAX_CACHED_WORDS};
use super::tile::MAX_DOCUMENTS;

/// Documents of a tile unless told otherwise: the lists of a tile of passages then are about 8 MB.
pub const DEFAULT_TILE_DOCUMENTS: u32 = 32_768;

/// Documents of a segment.
const SEGMENT_DOCUMENTS: u32 = 1 << 22;

/// Memory of a build unless told otherwise.
pub const DEFAULT_MEMORY: u64 = 1 << 30;

/// The smallest memory a build can keep to.
pub const LEAST_MEMORY: u64 = 64 << 20;

/// Bytes of text that are analysed together, about.
pub const PIECE_BYTES: usize = 1 << 20;

/// Documents that are analysed together.
pub const PIECE_DOCUMENTS: usize = 1 << 13;

/// Bytes that a piece takes on its way, with its texts, counts and compressed form.
const BYTES_PER_PIECE: u64 = 5 << 20;

/// Bytes of a posting in a tile that waits, and in one that is being assembled: its own, and 6 for its piece's terms with
/// their ends and numbers, which take 4 for a posting of English prose and 10 for one of random words.
const BYTES_WAITING: u64 = 8 + 6;
const BYTES_ASSEMBLED: u64 = 16 + 6;

/// Bytes of the program and its buffers.
const BYTES_OF_PROGRAM: u64 = 24 << 20;

/// The bounds that a build keeps to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    /// A tile ends with so many documents or so many postings.
    pub(super) tile_documents: u32,
    pub(super) tile_postings: u64,
    /// A segment ends with so many documents or so many bytes in memory.
    pub(super) segment_documents: u32,
    pub(super) segment_memory: usize,
    /// Tiles that are assembled at a time.
    pub(super) assemblies: usize,
    /// Pieces that have been read and not yet joined to a tile.
    pub(super) pieces: usize,
    /// Words that each thread remembers.
    pub(super) cached_words: usize,
}

impl Limits {
    /// The bounds for `memory` bytes.
    pub(super) fn new(memory: u64, threads: usize) -> Result<Limits, RetrievalError> {
        if memory < LEAST_MEMORY {
            return Err(RetrievalError::OutOfRange {
                setting: "memory",
                found: memory.to_string(),
                expected: "at least 64M",
            });
        }
        let threads = threads.max(1);
        let per_posting = 2 * BYTES_WAITING + BYTES_ASSEMBLED;
        let tile_postings = (memory / 2).saturating_sub(BYTES_OF_PROGRAM) / per_posting;
        let tile_postings = tile_postings.max(memory / 160).min(1 << 22);
        let tiles = per_posting * tile_postings;
        let more_tiles = (memory / 2).saturating_sub(tiles) / ((BYTES_WAITING + BYTES_ASSEMBLED) * tile_postings);
        let words = memory / 8 / threads as u64 / BYTES_PER_CACHED_WORD as u64;
        Ok(Limits {
            tile_documents: DEFAULT_TILE_DOCUMENTS,
            tile_postings,
            segment_documents: SEGMENT_DOCUMENTS,
            segment_memory: usize::try_from(memory / 6).unwrap_or(usize::MAX),
            assemblies: (1 + more_tiles as usize).min(threads),
            pieces: ((memory / 8 / BYTES_PER_PIECE) as usize).clamp(1, threads + 1),
            cached_words: (words as usize).min(MAX_CACHED_WORDS),
        })
    }

    /// The same with tiles of so many documents.
    pub(super) fn with_tile_documents(self, tile_documents: u32) -> Result<Limits, RetrievalError> {
        if !(1..=MAX_DOCUMENTS).contains(&tile_documents) {
            return Err(RetrievalError::OutOfRange {
                setting: "tile_documents",
                found: tile_documents.to_string(),
                expected: "from 1 to 65536",
            });
        }
        Ok(Limits { tile_documents, ..self })
    }
}
