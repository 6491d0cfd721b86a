//! The passages of a corpus as they were given, for writing out those that a search or a selection names.
//!
//! ```text
//! frames   of about 128 KB of texts; names and texts are compressed each on its own (Zstandard)
//! names    id, source of each passage        texts    the text of each
//!          a string is a varint of its bytes and the bytes
//! footer   places, checksums and first document of every frame
//! ```

use std::io::{self, Write};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use zstd::bulk::{Compressor, Decompressor};

use super::RetrievalError;
use super::bytes::{Bytes, Section, SectionWriter};
use super::codec::{read_varint, write_varint};
use super::workers::map_with_worker;

/// One passage of a corpus.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Passage {
    /// Identifier, e.g. `source/document#passage`.
    pub id: String,
    /// The collection it comes from.
    pub source: String,
    /// The text; never only white space.
    pub text: String,
}

/// Bytes of texts in a frame, about.
const FRAME_BYTES: usize = 128 << 10;

/// Frames that are read before their memory is given back.
const FRAMES_TOGETHER: usize = 64;

/// Zstandard's fast end: a build waits for it.
const LEVEL: i32 = 1;

/// Passages compressed together.
pub(super) struct Frame {
    names: Vec<u8>,
    texts: Vec<u8>,
    documents: u32,
    text_bytes: u64,
}

/// Compresses passages; made once by each thread, since its tables are larger than a frame.
pub(super) struct Packer {
    compressor: Compressor<'static>,
    names: Vec<u8>,
    texts: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> io::Result<Packer> {
        Ok(Packer {
            compressor: Compressor::new(LEVEL)?,
            names: Vec::new(),
            texts: Vec::new(),
        })
    }

    /// The passages as frames, in order.
    ///
    /// # Errors
    /// What the compressor says; a string of 4 GB.
    pub(super) fn pack(&mut self, passages: &[Passage]) -> io::Result<Vec<Frame>> {
        let Packer {
            compressor,
            names,
            texts,
        } = self;
        let mut frames = Vec::new();
        let (mut documents, mut text_bytes) = (0, 0);
        for (i, passage) in passages.iter().enumerate() {
            write_string(names, &passage.id)?;
            write_string(names, &passage.source)?;
            write_string(texts, &passage.text)?;
            documents += 1;
            text_bytes += passage.text.len() as u64;
            if texts.len() >= FRAME_BYTES || i + 1 == passages.len() {
                frames.push(Frame {
                    names: compressor.compress(names)?,
                    texts: compressor.compress(texts)?,
                    documents,
                    text_bytes,
                });
                names.clear();
                texts.clear();
                (documents, text_bytes) = (0, 0);
            }
        }
        Ok(frames)
    }
}

/// Unpacks frames; made once by each thread that reads some.
#[derive(Default)]
struct Unpacker {
    decompressor: Decompressor<'static>,
    names: Vec<u8>,
    texts: Vec<u8>,
}

/// Decompresses a part of a frame into `unpacked`.
fn unpack(decompressor: &mut Decompressor, packed: &[u8], unpacked: &mut Vec<u8>) -> io::Result<()> {
    unpacked.clear();
    let size = zstd::decompressed_size(packed).ok_or_else(|| io::Error::other("its size is not given"))?;
    unpacked.try_reserve_exact(usize::try_from(size).map_err(io::Error::other)?)?;
    decompressor.decompress_to_buffer(packed, unpacked)?;
    Ok(())
}

fn write_string(out: &mut Vec<u8>, text: &str) -> io::Result<()> {
    write_varint(out, u32::try_from(text.len()).map_err(io::Error::other)?);
    out.extend(text.as_bytes());
    Ok(())
}

/// What the footer says.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Footer {
    documents: u32,
    text_bytes: u64,
    frames: Vec<FrameFooter>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct FrameFooter {
    first_document: u32,
    documents: u32,
    names: Section,
    texts: Section,
}

/// Writes a file of passages.
pub(super) struct PassageWriter<W: Write> {
    out: SectionWriter<W>,
    footer: Footer,
}

impl<W: Write> PassageWriter<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        Ok(PassageWriter {
            out: SectionWriter::new(out)?,
            footer: Footer::default(),
        })
    }

    pub(super) fn append(&mut self, frame: &Frame) -> io::Result<()> {
        self.footer.frames.push(FrameFooter {
            first_document: self.footer.documents,
            documents: frame.documents,
            names: self.out.section(&[&frame.names])?,
            texts: self.out.section(&[&frame.texts])?,
        });
        self.footer.documents += frame.documents;
        self.footer.text_bytes += frame.text_bytes;
        Ok(())
    }

    /// Ends the file. Returns what was written to, the length of the file, and the number of documents and of bytes of
    /// their texts.
    pub(super) fn finish(self) -> io::Result<(W, u64, u32, u64)> {
        let (out, len) = self.out.finish(&self.footer)?;
        Ok((out, len, self.footer.documents, self.footer.text_bytes))
    }
}

/// A file of passages to read.
#[derive(Debug)]
pub(super) struct PassageFile {
    bytes: Bytes,
    footer: Footer,
}

impl PassageFile {
    pub(super) fn open(bytes: Bytes) -> Result<PassageFile, RetrievalError> {
        let (footer, end): (Footer, Section) = bytes.footer()?;
        let file = PassageFile { bytes, footer };
        let frames = &file.footer.frames;
        let sections = frames.iter().flat_map(|frame| [frame.names, frame.texts]);
        file.bytes.check_cover(sections, end)?;
        let mut documents = 0_u32;
        for frame in frames {
            if frame.first_document != documents || frame.documents == 0 {
                return Err(file.bytes.damaged("its frames are out of order"));
            }
            documents = documents.saturating_add(frame.documents);
        }
        if documents != file.footer.documents {
            return Err(file.bytes.damaged("frames are missing"));
        }
        Ok(file)
    }

    pub(super) fn documents(&self) -> u32 {
        self.footer.documents
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.bytes.all().len() as u64
    }

    /// The passages with these numbers, which are ascending and below [`PassageFile::documents`]; without their texts if
    /// those are not wanted.
    pub(super) fn get(&self, documents: &[u32], with_texts: bool) -> Result<Vec<Passage>, RetrievalError> {
        let frames = &self.footer.frames;
        let frame_of = |document: u32| frames.partition_point(|frame| frame.first_document <= document) - 1;
        let runs: Vec<&[u32]> = documents.chunk_by(|&a, &b| frame_of(a) == frame_of(b)).collect();
        let taken_of = |unpacker: &mut Unpacker, run: &&[u32]| {
            let number = frame_of(run[0]);
            let first = frames[number].first_document;
            let mut wanted = run.iter().map(|&document| document - first).peekable();
            let mut taken = Vec::with_capacity(run.len());
            self.frame(number, unpacker, with_texts, |place, strings| {
                if wanted.next_if_eq(&place).is_some() {
                    let [id, source, text] = strings.map(|bytes| Some(str::from_utf8(bytes).ok()?.to_owned()));
                    let (id, source, text) = (id?, source?, text?);
                    taken.push(Passage { id, source, text });
                }
                Some(())
            })?;
            Ok::<_, RetrievalError>(taken)
        };
        let mut found = Vec::with_capacity(documents.len());
        for runs in runs.chunks(FRAMES_TOGETHER) {
            for taken in map_with_worker(runs, Unpacker::default, taken_of) {
                found.extend(taken?);
            }
            self.release(frame_of(runs[0][0])..=frame_of(runs[runs.len() - 1][0]));
        }
        Ok(found)
    }

    /// Reads every passage.
    pub(super) fn verify(&self) -> Result<(), RetrievalError> {
        let (mut unpacker, mut text_bytes) = (Unpacker::default(), 0);
        for number in 0..self.footer.frames.len() {
            self.frame(number, &mut unpacker, true, |_, strings| {
                text_bytes += strings[2].len() as u64;
                strings.iter().all(|bytes| str::from_utf8(bytes).is_ok()).then_some(())
            })?;
            self.release(number..=number);
        }
        match text_bytes == self.footer.text_bytes {
            true => Ok(()),
            false => Err(self
                .bytes
                .damaged("its texts are longer or shorter than its footer says")),
        }
    }

    /// Gives the memory of frames back, and what the system has mapped around them: for names alone that is nearly all.
    fn release(&self, frames: RangeInclusive<usize>) {
        const AROUND: u64 = 1 << 16;
        let [first, last] = [*frames.start(), *frames.end()].map(|number| &self.footer.frames[number]);
        let start = first.names.start.saturating_sub(AROUND);
        self.bytes.release(start..last.texts.span().end.saturating_add(AROUND));
    }

    /// Calls `visit` with the place of every passage of a frame and the bytes of its id, its source and its text; it says
    /// whether they are strings.
    fn frame(
        &self,
        number: usize,
        unpacker: &mut Unpacker,
        with_texts: bool,
        mut visit: impl FnMut(u32, [&[u8]; 3]) -> Option<()>,
    ) -> Result<(), RetrievalError> {
        let frame = &self.footer.frames[number];
        let what = || format!("frame {number} of the passages");
        let Unpacker {
            decompressor,
            names,
            texts,
        } = unpacker;
        let mut unpacked = |section, unpacked: &mut Vec<u8>| {
            let bytes = self.bytes.section(section, &what())?;
            let done = unpack(decompressor, bytes, unpacked);
            done.map_err(|error| self.bytes.damaged(format!("{}: {error}", what())))
        };
        texts.clear();
        unpacked(frame.names, names)?;
        if with_texts {
            unpacked(frame.texts, texts)?;
        }
        let (mut name, mut text) = (0, 0);
        let mut visit_all = || {
            for place in 0..frame.documents {
                let [id, source] = [read_string(names, &mut name)?, read_string(names, &mut name)?];
                let text = match with_texts {
                    true => read_string(texts, &mut text)?,
                    false => &[],
                };
                visit(place, [id, source, text])?;
            }
            Some(())
        };
        match visit_all() {
            Some(()) if (name, text) == (names.len(), texts.len()) => Ok(()),
            _ => Err(self
                .bytes
                .damaged(format!("{} does not hold what its footer says", what()))),
        }
    }
}

fn read_string<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let len = read_varint(bytes, at)? as usize;
    let string = bytes.get(*at..at.checked_add(len)?)?;
    *at += len;
    Some(string)
}
