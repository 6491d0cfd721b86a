//! Segments: up to 2^22 documents as one immutable file.
//!
//! ```text
//! bodies of the tiles, as they are made | directories of the tiles | vocabulary | footer with the place of everything
//! ```
//!
//! A tile is written when it is complete. What waits in memory until the segment ends is the vocabulary and, for every
//! list, a provisional number of its term; a segment is therefore also ended when these grow beyond a bound.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::RetrievalError;
use super::bm25::CodeTable;
use super::bytes::{Bytes, Section, SectionWriter};
use super::codec::{PostingList, sub_tiles};
use super::term_cache::TermNumbers;
use super::tile::{Directory, DirectoryWriter, ListPlace, MAX_DOCUMENTS, TileDraft, sorted_order_in_parallel};
use super::vocabulary::{Vocabulary, VocabularyWriter};

/// What the footer says of a segment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Footer {
    pub(super) documents: u32,
    pub(super) total_length: u64,
    pub(super) postings: u64,
    pub(super) terms: u32,
    vocabulary: Option<Section>,
    pub(super) tiles: Vec<TileFooter>,
}

/// What the footer says of a tile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TileFooter {
    pub(super) documents: u32,
    pub(super) postings: u64,
    pub(super) total_length: u64,
    entries: u32,
    body: Section,
    directory: Section,
}

/// Writes a segment, tile by tile.
pub(super) struct SegmentWriter<W: Write> {
    out: SectionWriter<W>,
    terms: TermNumbers,
    /// (df, cf) by provisional number.
    frequencies: Vec<(u32, u64)>,
    tiles: Vec<(TileFooter, Vec<PendingList>)>,
    footer: Footer,
}

/// A list whose term has no final number yet.
struct PendingList {
    /// Provisional: by first occurrence in the segment.
    term: u32,
    postings: u32,
    bytes: u32,
}

impl<W: Write> SegmentWriter<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        Ok(SegmentWriter {
            out: SectionWriter::new(out)?,
            terms: TermNumbers::default(),
            frequencies: Vec::new(),
            tiles: Vec::new(),
            footer: Footer::default(),
        })
    }

    /// Appends a tile.
    pub(super) fn append(&mut self, tile: &TileDraft) -> io::Result<()> {
        let body = self.out.section(&[&tile.lengths, &tile.lists])?;
        let pending = tile
            .terms
            .iter()
            .zip(&tile.entries)
            .map(|(term, &(postings, bytes, cf))| {
                let number = self.terms.number(term);
                if number as usize == self.frequencies.len() {
                    self.frequencies.push((0, 0));
                }
                let frequency = &mut self.frequencies[number as usize];
                *frequency = (frequency.0 + postings, frequency.1 + cf);
                PendingList {
                    term: number,
                    postings,
                    bytes,
                }
            });
        let pending: Vec<PendingList> = pending.collect();
        let footer = TileFooter {
            documents: tile.documents,
            postings: tile.postings,
            total_length: tile.total_length,
            entries: pending.len() as u32,
            body,
            directory: body,
        };
        self.footer.documents += tile.documents;
        self.footer.postings += tile.postings;
        self.footer.total_length += tile.total_length;
        self.tiles.push((footer, pending));
        Ok(())
    }

    /// How many documents the segment has.
    pub(super) fn documents(&self) -> u32 {
        self.footer.documents
    }

    /// About how many bytes of memory wait for the end, with what the end itself takes.
    pub(super) fn memory(&self) -> usize {
        // Hash table, sorting and coding take some 50 bytes a term beside the text.
        let lists: usize = self.tiles.iter().map(|(_, pending)| pending.capacity()).sum();
        self.terms.terms.memory() + 70 * self.frequencies.len() + lists * size_of::<PendingList>()
    }

    /// Ends the segment. Returns what was written to, the length of the file and its footer.
    pub(super) fn finish(mut self) -> io::Result<(W, u64, Footer)> {
        // The other threads wait for this, or have nothing more to do.
        let order = sorted_order_in_parallel(&self.terms.terms);
        let mut numbers = vec![0_u32; order.len()];
        for (number, &provisional) in (0..).zip(&order) {
            numbers[provisional as usize] = number;
        }
        let tiles = std::mem::take(&mut self.tiles);
        for tiles in tiles.chunks(rayon::current_num_threads()) {
            let directory = |(tile, pending): &(TileFooter, Vec<PendingList>)| {
                let mut directory = DirectoryWriter::new(sub_tiles(tile.documents));
                for list in pending {
                    directory.push(numbers[list.term as usize], list.postings, list.bytes);
                }
                directory
            };
            let directories: Vec<DirectoryWriter> = tiles.par_iter().map(directory).collect();
            for ((tile, _), directory) in tiles.iter().zip(directories) {
                self.footer.tiles.push(TileFooter {
                    directory: self.out.section(&directory.parts())?,
                    ..tile.clone()
                });
            }
        }
        drop(tiles);
        let mut vocabulary = VocabularyWriter::default();
        for &provisional in &order {
            let (df, cf) = self.frequencies[provisional as usize];
            vocabulary.push(self.terms.terms.get(provisional as usize), df, cf);
        }
        self.footer.terms = vocabulary.terms();
        self.footer.vocabulary = Some(self.out.section(&vocabulary.parts())?);
        let (out, len) = self.out.finish(&self.footer)?;
        Ok((out, len, self.footer))
    }
}

/// A segment that can be read.
#[derive(Debug)]
pub(super) struct Segment {
    bytes: Bytes,
    footer: Footer,
    end: Section,
    /// The tiles whose checksums have been found right.
    checked: Vec<AtomicBool>,
}

impl Segment {
    /// The segment in a file. The footer and the vocabulary are checked now, a tile when it is read.
    pub(super) fn open(bytes: Bytes) -> Result<Segment, RetrievalError> {
        let (footer, end): (Footer, Section) = bytes.footer()?;
        let checked = footer.tiles.iter().map(|_| AtomicBool::new(false)).collect();
        let segment = Segment {
            bytes,
            footer,
            end,
            checked,
        };
        segment.check_sums()?;
        segment.vocabulary_checked()?;
        Ok(segment)
    }

    pub(super) fn footer(&self) -> &Footer {
        &self.footer
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    fn check_sums(&self) -> Result<(), RetrievalError> {
        let Footer { tiles, .. } = &self.footer;
        let documents: u64 = tiles.iter().map(|tile| u64::from(tile.documents)).sum();
        let total_length: u64 = tiles.iter().map(|tile| tile.total_length).sum();
        let postings: u64 = tiles.iter().map(|tile| tile.postings).sum();
        let sizes_fit = tiles.iter().all(|tile| {
            (1..=MAX_DOCUMENTS).contains(&tile.documents) && tile.body.len >= 4 * u64::from(tile.documents)
        });
        let (found, expected) = (
            (documents, total_length, postings),
            (
                u64::from(self.footer.documents),
                self.footer.total_length,
                self.footer.postings,
            ),
        );
        if found != expected || !sizes_fit {
            return Err(self.bytes.damaged(format!(
                "the tiles have {found:?} documents, terms and postings instead of {expected:?}"
            )));
        }
        let sections = tiles.iter().map(|tile| tile.body);
        let sections = sections.chain(tiles.iter().map(|tile| tile.directory));
        self.bytes.check_cover(sections.chain(self.footer.vocabulary), self.end)
    }

    fn vocabulary_checked(&self) -> Result<Vocabulary<'_>, RetrievalError> {
        let missing = || self.bytes.damaged("the vocabulary is not complete");
        let section = self.footer.vocabulary.ok_or_else(missing)?;
        let bytes = self.bytes.section(section, "the vocabulary")?;
        Vocabulary::new(bytes, self.footer.terms).ok_or_else(missing)
    }

    /// The distinct terms. [`Segment::open`] has checked them.
    pub(super) fn vocabulary(&self) -> Vocabulary<'_> {
        let bytes = self.footer.vocabulary.and_then(|section| self.bytes.part(section));
        Vocabulary::new(bytes.unwrap_or_default(), self.footer.terms).expect("open() has made this vocabulary before")
    }

    /// A tile. Its checksums are looked at when it is read for the first time.
    pub(super) fn tile(&self, number: usize) -> Result<TileData<'_>, RetrievalError> {
        if !self.checked[number].load(Ordering::Relaxed) {
            self.check(number)?;
        }
        let footer = &self.footer.tiles[number];
        let [body, directory] =
            [footer.body, footer.directory].map(|section| self.bytes.part(section).unwrap_or_default());
        let (lengths, lists) = body.split_at(footer.documents as usize * size_of::<u32>());
        let directory = Directory::new(directory, footer.entries, sub_tiles(footer.documents)).ok_or_else(|| {
            self.bytes
                .damaged(format!("the directory of tile {number} is not complete"))
        })?;
        Ok(TileData {
            segment: self,
            number,
            documents: footer.documents,
            lengths: lengths.as_chunks().0,
            lists,
            directory,
        })
    }

    /// The bytes of a tile's lists.
    pub(super) fn list_bytes(&self, number: usize) -> u64 {
        let tile = &self.footer.tiles[number];
        // Not less: `open` has compared them.
        tile.body.len - u64::from(tile.documents) * size_of::<u32>() as u64
    }

    /// Compares a tile with its checksums.
    fn check(&self, number: usize) -> Result<(), RetrievalError> {
        let TileFooter { body, directory, .. } = self.footer.tiles[number];
        self.bytes.section(body, &format!("tile {number}"))?;
        let what = format!("the directory of tile {number}");
        self.bytes.section(directory, &what)?;
        self.checked[number].store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the memory of a tile back.
    pub(super) fn release(&self, number: usize) {
        let tile = &self.footer.tiles[number];
        self.bytes.release(tile.body.span());
        self.bytes.release(tile.directory.span());
    }

    /// Reads everything and compares counts with each other: what the checksums cannot tell.
    pub(super) fn verify(&self) -> Result<(), RetrievalError> {
        let vocabulary = self.vocabulary_checked()?;
        let (mut entries, mut terms) = (Vec::new(), Vec::new());
        let mut cursor = vocabulary.cursor();
        while let Some(entry) = cursor.advance() {
            let entry = entry.ok_or_else(|| self.bytes.damaged("the vocabulary is no vocabulary"))?;
            if entry.number > 0 && cursor.term() <= terms.as_slice() {
                return Err(self.bytes.damaged(format!("term {} is out of order", entry.number)));
            }
            cursor.term().clone_into(&mut terms);
            entries.push((entry.df, entry.cf));
        }
        if !cursor.is_at_end() {
            return Err(self.bytes.damaged("the vocabulary has bytes behind its last term"));
        }
        for number in 0..self.footer.tiles.len() {
            self.check(number)?;
            self.tile(number)?.verify(&mut entries)?;
            self.release(number);
        }
        if entries.iter().any(|&left| left != (0, 0)) {
            return Err(self
                .bytes
                .damaged("the frequencies of terms differ from their postings"));
        }
        Ok(())
    }
}

/// A tile to read.
pub(super) struct TileData<'a> {
    segment: &'a Segment,
    number: usize,
    pub(super) documents: u32,
    pub(super) lengths: &'a [[u8; 4]],
    pub(super) lists: &'a [u8],
    pub(super) directory: Directory<'a>,
}

impl<'a> TileData<'a> {
    /// The number of terms of each document.
    pub(super) fn lengths(&self) -> impl Iterator<Item = u32> {
        self.lengths.iter().map(|&length| u32::from_le_bytes(length))
    }

    /// The code of a term that occurs `tf` > 0 times in a document; 0 if the document is not there.
    pub(super) fn code(&self, table: &CodeTable, id: u16, tf: u32) -> u32 {
        let length = self.lengths.get(usize::from(id));
        length.map_or(0, |&length| table.code(tf, u32::from_le_bytes(length)).into())
    }

    /// The list at a place of the directory.
    pub(super) fn list(&self, place: &ListPlace) -> Option<PostingList<'a>> {
        let bytes = self.lists.get(place.start as usize..)?.get(..place.bytes as usize)?;
        PostingList::new(bytes, place.postings, sub_tiles(self.documents))
    }

    /// The error of a tile whose checksums are right and whose contents are not.
    pub(super) fn damaged(&self) -> RetrievalError {
        self.segment
            .bytes
            .damaged(format!("tile {} does not hold what its footer says", self.number))
    }

    /// Takes the tile's postings off `left`, the (df, cf) of every term.
    fn verify(&self, left: &mut [(u32, u64)]) -> Result<(), RetrievalError> {
        let footer = &self.segment.footer.tiles[self.number];
        let mut document_lengths = vec![0_u64; self.documents as usize];
        let (mut postings, mut end, mut good) = (0, 0, true);
        let complete = self.directory.for_each(|list| {
            good &= list.start as usize == end;
            end = (list.start + list.bytes) as usize;
            let mut cf = 0;
            let read = self.list(&list).and_then(|list| {
                list.for_each(self.documents, |id, tf| {
                    document_lengths[id as usize] += u64::from(tf);
                    cf += u64::from(tf);
                })
            });
            let term = left.get_mut(list.term as usize);
            let taken = term.and_then(|term| {
                *term = (term.0.checked_sub(list.postings)?, term.1.checked_sub(cf)?);
                Some(())
            });
            good &= read.is_some() && taken.is_some();
            postings += u64::from(list.postings);
        });
        let lengths_fit = self.lengths().map(u64::from).eq(document_lengths.iter().copied());
        let total: u64 = document_lengths.iter().sum();
        let sums_fit = (postings, total, end) == (footer.postings, footer.total_length, self.lists.len());
        if complete.is_none() || !good || !lengths_fit || !sums_fit {
            return Err(self.damaged());
        }
        Ok(())
    }
}
