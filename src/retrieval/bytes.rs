//! The bytes of a file of the index: mapped into memory or held in it. The two differ in nothing else.
//!
//! A mapped file is read by the operating system page by page when it is looked at, and its pages can be taken away
//! again at any time; the index on disk may therefore be larger than memory. [`Bytes::release`] gives pages back at
//! once, so that one pass over a large index does not fill memory.
//!
//! ```text
//! MAGIC  sections ...  footer (JSON)  footer length u32  CRC-32 of the footer u32  MAGIC
//! ```
//!
//! Every section is named in the footer with its place and CRC-32, and is checked when it is taken. Files are never
//! changed after they are written; someone who cuts a mapped file short ends the process that reads it.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use flate2::Crc;
use memmap2::Mmap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::RetrievalError;

/// The first and the last bytes of every file of an index.
const MAGIC: [u8; 8] = *b"tlmindex";

/// Footer length, checksum, magic.
const TAIL: usize = 4 + 4 + MAGIC.len();

/// A run of bytes in a file and its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Section {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) crc: u32,
}

impl Section {
    /// Where its bytes lie in the file.
    pub(super) fn span(self) -> Range<u64> {
        self.start..self.start.saturating_add(self.len)
    }

    pub(super) fn range(self) -> Option<Range<usize>> {
        let start = usize::try_from(self.start).ok()?;
        Some(start..start.checked_add(usize::try_from(self.len).ok()?)?)
    }
}

/// The bytes of one file.
#[derive(Debug)]
pub(super) struct Bytes {
    path: PathBuf,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Held(Vec<u8>),
    Mapped(Mmap),
}

impl Bytes {
    /// Bytes in memory, under a name for messages.
    pub(super) fn held(bytes: Vec<u8>) -> Bytes {
        Bytes {
            path: PathBuf::from("index in memory"),
            data: Data::Held(bytes),
        }
    }

    /// A file, mapped.
    pub(super) fn map(path: &Path) -> Result<Bytes, RetrievalError> {
        let file = File::open(path).map_err(RetrievalError::read(path))?;
        // SAFETY: the mapping is read only, and the program never changes or shortens a file of an index once it has
        // its name. That others do not either is the one thing a mapping has to rely on; a change is noticed by the
        // checksums, a cut ends the process, neither breaks memory that Rust owns.
        let map = unsafe { Mmap::map(&file) }.map_err(RetrievalError::read(path))?;
        Ok(Bytes {
            path: path.to_owned(),
            data: Data::Mapped(map),
        })
    }

    pub(super) fn all(&self) -> &[u8] {
        match &self.data {
            Data::Held(bytes) => bytes,
            Data::Mapped(map) => map,
        }
    }

    /// The error of a file that is not as it was written.
    pub(super) fn damaged(&self, reason: impl Into<String>) -> RetrievalError {
        RetrievalError::damaged(&self.path, reason)
    }

    /// A section, if it lies in the file.
    pub(super) fn part(&self, section: Section) -> Option<&[u8]> {
        self.all().get(section.range()?)
    }

    /// A section whose checksum is right.
    pub(super) fn section(&self, section: Section, what: &str) -> Result<&[u8], RetrievalError> {
        let bytes = self
            .part(section)
            .ok_or_else(|| self.damaged(format!("{what} lies outside the file")))?;
        let crc = checksum(bytes);
        if crc != section.crc {
            return Err(self.damaged(format!(
                "{what}, bytes {}..{}, has checksum {crc:08x} instead of {:08x}",
                section.start,
                section.start + section.len,
                section.crc
            )));
        }
        Ok(bytes)
    }

    /// Gives the memory of a part of the file back; it is read anew when it is next looked at. Windows takes memory back
    /// by itself.
    #[cfg(not(unix))]
    pub(super) fn release(&self, _: Range<u64>) {}

    /// Gives the memory of a part of the file back; it is read anew when it is next looked at.
    #[cfg(unix)]
    pub(super) fn release(&self, part: Range<u64>) {
        if let Data::Mapped(map) = &self.data {
            // All pages that the part touches: what others have in the same is read anew as well.
            const PAGE: usize = 1 << 16;
            let within = |at: u64| usize::try_from(at).map_or(map.len(), |at| at.min(map.len()));
            let (start, end) = (
                within(part.start) / PAGE * PAGE,
                within(part.end).next_multiple_of(PAGE).min(map.len()),
            );
            if start < end {
                // SAFETY: the pages of a shared, read-only mapping of a file are dropped; the next look reads the same
                // bytes from the file. Failure changes nothing but the memory in use.
                let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
            }
        }
    }

    /// The footer.
    pub(super) fn footer<T: DeserializeOwned>(&self) -> Result<(T, Section), RetrievalError> {
        let bytes = self.all();
        let cut = || self.damaged(format!("{} bytes, which do not end in a footer", bytes.len()));
        if !bytes.starts_with(&MAGIC) || !bytes.ends_with(&MAGIC) || bytes.len() < MAGIC.len() + TAIL {
            return Err(cut());
        }
        let tail = bytes.len() - TAIL;
        let [len, crc] = [tail, tail + 4].map(|at| read_u32(bytes, at).unwrap_or(0));
        let start = tail.checked_sub(len as usize).ok_or_else(cut)?;
        let section = Section {
            start: start as u64,
            len: u64::from(len),
            crc,
        };
        let json = self.section(section, "the footer")?;
        let footer = serde_json::from_slice(json).map_err(|error| self.damaged(format!("the footer: {error}")))?;
        Ok((footer, section))
    }

    /// That the sections and the footer follow each other without a gap: then the checksums cover every byte.
    pub(super) fn check_cover(
        &self,
        sections: impl IntoIterator<Item = Section>,
        footer: Section,
    ) -> Result<(), RetrievalError> {
        let mut end = MAGIC.len() as u64;
        for section in sections.into_iter().chain([footer]) {
            if section.start != end {
                return Err(self.damaged(format!("nothing accounts for the bytes {end}..{}", section.start)));
            }
            end += section.len;
        }
        Ok(())
    }
}

/// The CRC-32 of bytes.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A little-endian u32.
pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&four| u32::from_le_bytes(four))
}

/// Writes a file of sections.
pub(super) struct SectionWriter<W: Write> {
    out: W,
    len: u64,
}

impl<W: Write> SectionWriter<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        Ok(SectionWriter {
            out,
            len: MAGIC.len() as u64,
        })
    }

    /// Writes the parts one after another as one section.
    pub(super) fn section(&mut self, parts: &[&[u8]]) -> io::Result<Section> {
        let mut crc = Crc::new();
        let start = self.len;
        for part in parts {
            crc.update(part);
            self.out.write_all(part)?;
            self.len += part.len() as u64;
        }
        Ok(Section {
            start,
            len: self.len - start,
            crc: crc.sum(),
        })
    }

    /// Ends the file. Returns what was written to, and the length of the file.
    pub(super) fn finish(mut self, footer: &impl Serialize) -> io::Result<(W, u64)> {
        let json = serde_json::to_vec(footer)?;
        let len = u32::try_from(json.len()).map_err(io::Error::other)?;
        let Section { crc, .. } = self.section(&[&json])?;
        for part in [&len.to_le_bytes()[..], &crc.to_le_bytes(), &MAGIC] {
            self.out.write_all(part)?;
            self.len += part.len() as u64;
        }
        self.out.flush()?;
        Ok((self.out, self.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut writer = SectionWriter::new(Vec::new()).unwrap();
        let first = writer.section(&[b"abc", b"def"]).unwrap();
        let second = writer.section(&[b"ghi"]).unwrap();
        let (bytes, len) = writer.finish(&[first, second]).unwrap();
        assert_eq!(bytes.len() as u64, len);
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<Vec<u8>, RetrievalError> {
        let bytes = Bytes::held(bytes);
        let (sections, footer): (Vec<Section>, Section) = bytes.footer()?;
        bytes.check_cover(sections.iter().copied(), footer)?;
        let mut all = Vec::new();
        for section in sections {
            all.extend(bytes.section(section, "a section")?);
        }
        Ok(all)
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = file();
        assert_eq!(read(good.clone()).unwrap(), b"abcdefghi");
        for bit in 0..8 * good.len() {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read(bad), Err(RetrievalError::Damaged { .. })), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(read(good[..len].to_vec()).is_err(), "{len} bytes");
        }
    }
}
