//! Search on a GPU: the op [`bm25`], whose lists are those of the loop on this machine.
//!
//! ```text
//! images of sub-tiles --side by side--> shards of up to 32 sub-tiles, within the memory: postings and columns go up once
//! for each chunk of queries:            spans, weights, thresholds up; scores, selection; the K best of the shard down
//! ```
//!
//! So an index may be larger than the device's memory. The best of a query so far stay on this machine; the K-th of them is
//! the threshold for its next shard. Buffers grow with the largest shard that was seen.

use super::RetrievalError;
use super::best::{Best, key};
use super::bm25::WeightedQuery;
use super::codec::SUB_TILE;
use super::image::{Place, STRIPS, SubTileImage};
use super::lists::SubTileLists;
use super::pass::Pass;
use crate::device::choice::DeviceChoice;
use crate::device::open::Target;
use crate::device::{Device, Program, Sizes};
use crate::kernel::{DType, Extent, StepParams};
use crate::ops::bm25::{self, COLUMN, NONE, Shard};
use crate::plan::{ParamTable, Plan, Recorder, Space};

/// Sub-tiles of a shard: with [`QUERIES`] its scores are 32 MB.
const SUB_TILES: usize = 32;
/// Queries that a launch serves.
const QUERIES: usize = 64;
/// Terms of the queries of a launch together; a query with more of them has a launch of its own.
const TERMS: usize = 1 << 14;

const _: () = assert!(SUB_TILE == bm25::SUB_TILE, "images are cut as the op's sums are");

/// A device that scores.
pub(super) struct DeviceSearch {
    target: Target,
    k: usize,
    loaded: Option<Loaded>,
}

/// Rows of the plan's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Capacity {
    sub_tiles: usize,
    postings: usize,
    column_rows: usize,
    terms: usize,
    queries: usize,
}

struct Loaded {
    device: Box<dyn Device>,
    plan: Plan,
    program: Program,
    capacity: Capacity,
}

/// Images side by side, as the op's tensors hold them.
struct Flat<'a> {
    sub_tiles: &'a [SubTileLists<'a>],
    postings: Vec<u32>,
    columns: Vec<u32>,
    terms: usize,
    /// `(sub_tiles, terms)`, as the op has them.
    spans: Vec<[u32; 2]>,
}

impl DeviceSearch {
    /// Searches for `k` documents on the device of a choice; none where that is the processor, which has its own loop.
    pub(super) fn new(choice: DeviceChoice, k: usize) -> Result<Option<DeviceSearch>, RetrievalError> {
        // Looking for the processor would load the drivers of GPUs for nothing.
        if choice == DeviceChoice::Cpu {
            return Ok(None);
        }
        let target = Target::of(choice)?;
        Ok((!target.is_cpu()).then_some(DeviceSearch {
            target,
            k,
            loaded: None,
        }))
    }

    /// Takes the queries of a pass through the sub-tiles.
    pub(super) fn search(&mut self, pass: &Pass, sub_tiles: &[SubTileLists]) -> Result<(), RetrievalError> {
        let mut rest = sub_tiles;
        while !rest.is_empty() {
            let (shard, tail) = rest.split_at(shard_len(rest, pass.memory));
            rest = tail;
            let flat = Flat::of(shard, pass);
            let mut fresh = true;
            let (mut queries, mut best) = (pass.queries, pass.best);
            while !queries.is_empty() {
                let mut terms = 0;
                let fits = |query: &&WeightedQuery| {
                    terms += query.terms.len();
                    terms <= TERMS
                };
                let len = queries.iter().take(QUERIES).take_while(fits).count().max(1);
                let (chunk, tail) = queries.split_at(len);
                let (of_chunk, of_tail) = best.split_at(len);
                (queries, best) = (tail, of_tail);
                self.launch(&flat, fresh, chunk, of_chunk)?;
                fresh = false;
                (pass.report)(chunk.len() * flat.sub_tiles.len());
            }
        }
        Ok(())
    }

    /// One launch; `fresh`: the shard's postings and columns are not on the device.
    fn launch(
        &mut self,
        flat: &Flat,
        fresh: bool,
        queries: &[WeightedQuery],
        best: &[Best],
    ) -> Result<(), RetrievalError> {
        let terms = queries.iter().map(|query| query.terms.len()).sum::<usize>();
        let needed = Capacity {
            sub_tiles: flat.sub_tiles.len(),
            postings: flat.postings.len().max(1),
            column_rows: flat.columns.len().max(1),
            terms: terms.max(1),
            queries: queries.len(),
        };
        let reopened = self.make_room(needed)?;
        let Some(loaded) = &mut self.loaded else {
            unreachable!("room has been made")
        };
        if fresh || reopened {
            loaded.write("postings", &flat.postings)?;
            loaded.write("columns", &flat.columns)?;
        }
        let capacity = loaded.capacity;
        let mut spans = Vec::with_capacity(2 * terms * capacity.sub_tiles);
        let (mut weights, mut rows) = (Vec::with_capacity(terms), Vec::with_capacity(4 * queries.len()));
        for (query, best) in queries.iter().zip(best) {
            rows.extend([
                weights.len() as u32,
                query.terms.len() as u32,
                query.shift,
                best.threshold(),
            ]);
            for &(term, weight) in &query.terms {
                weights.push(weight);
                let of_term = flat.spans.iter().skip(term as usize).step_by(flat.terms);
                spans.extend(of_term.flatten());
                spans.resize(2 * weights.len() * capacity.sub_tiles, 0);
            }
        }
        // Queries beyond these have no terms.
        rows.resize(4 * capacity.queries, 0);
        loaded.write("spans", &spans)?;
        loaded.write("weights", &weights)?;
        loaded.write("queries", &rows)?;
        let found = loaded.run()?;
        let width = found.len() / capacity.queries;
        let scored = flat.sub_tiles.iter().map(|lists| lists.lengths.len()).sum();
        for (best, found) in best.iter().zip(found.chunks_exact(width)) {
            let found = found.chunks_exact(2).take_while(|place| place[0] != NONE);
            let keys = found.map(|place| {
                let first = flat.sub_tiles[place[0] as usize / SUB_TILE].first_document;
                key(first + place[0] % SUB_TILE as u32, place[1])
            });
            best.take(&keys.collect::<Vec<u64>>(), scored);
            best.raise();
        }
        Ok(())
    }

    /// Opens the device anew if a tensor is too small. Returns whether it did.
    fn make_room(&mut self, needed: Capacity) -> Result<bool, RetrievalError> {
        let has = self.loaded.as_ref().map(|loaded| loaded.capacity);
        let larger = has.map_or(needed, |has| Capacity {
            sub_tiles: needed.sub_tiles.max(has.sub_tiles),
            postings: needed.postings.max(has.postings),
            column_rows: needed.column_rows.max(has.column_rows),
            terms: needed.terms.max(has.terms),
            queries: needed.queries.max(has.queries),
        });
        if has == Some(larger) {
            return Ok(false);
        }
        self.loaded = None; // frees its memory first
        self.loaded = Some(Loaded::new(&self.target, larger, self.k)?);
        Ok(true)
    }
}

/// How many sub-tiles the next shard has: [`SUB_TILES`], or as many as leave half of the memory to columns, but one at least.
fn shard_len(sub_tiles: &[SubTileLists], memory: u64) -> usize {
    let mut bytes = 0;
    let fits = |lists: &&SubTileLists| {
        bytes += SubTileImage::bytes_without_columns(lists);
        bytes <= memory / 2
    };
    let fitting = sub_tiles.iter().take(SUB_TILES).take_while(fits).count();
    fitting.max(1)
}

impl<'a> Flat<'a> {
    /// The images of some sub-tiles, within the pass' memory if that is at all possible.
    fn of(sub_tiles: &'a [SubTileLists<'a>], pass: &Pass) -> Flat<'a> {
        let &Pass {
            uses, codes, memory, ..
        } = pass;
        let without_columns: u64 = sub_tiles.iter().map(SubTileImage::bytes_without_columns).sum();
        let for_columns = memory.saturating_sub(without_columns) / sub_tiles.len() as u64;
        let mut flat = Flat {
            sub_tiles,
            postings: Vec::with_capacity(sub_tiles.iter().map(SubTileLists::postings).sum()),
            columns: Vec::new(),
            terms: uses.len(),
            spans: Vec::with_capacity(sub_tiles.len() * uses.len()),
        };
        let mut image = SubTileImage::default();
        for lists in sub_tiles {
            image.fill(lists, uses, for_columns, codes);
            let (postings, columns) = (flat.postings.len(), flat.columns.len());
            flat.postings.extend_from_slice(image.all_postings());
            for term in 0..uses.len() as u32 {
                let span = match image.place(term) {
                    Place::List(list) => [(postings + list.start) as u32, list.len() as u32],
                    Place::Column(column) => [(columns + column * SUB_TILE / 2) as u32, COLUMN],
                };
                flat.spans.push(span);
            }
            // The op has a column's codes one after another.
            for column in 0..image.column_count() {
                for strip in 0..STRIPS {
                    let pairs = image.codes(strip, column).as_chunks::<2>().0;
                    let words = pairs.iter().map(|&[low, high]| u32::from(low) | u32::from(high) << 16);
                    flat.columns.extend(words);
                }
            }
        }
        flat
    }
}

impl Loaded {
    fn new(target: &Target, capacity: Capacity, k: usize) -> Result<Loaded, RetrievalError> {
        let params = ParamTable::new(Vec::new());
        let mut r = Recorder::new("search", &params).within(target.limits());
        let documents = capacity.sub_tiles * SUB_TILE;
        let mut input = |name, rows: usize, width| r.input(name, Extent::fixed(rows as u32), width, DType::U32);
        let shard = Shard {
            postings: input("postings", capacity.postings, 1),
            columns: input("columns", capacity.column_rows, 1),
            spans: input("spans", capacity.terms * capacity.sub_tiles, 2),
            weights: input("weights", capacity.terms, 1),
            queries: input("queries", capacity.queries, 4),
        };
        bm25::bm25(&mut r, &shard, documents as u32, k.min(documents) as u32)?;
        let plan = r.finish();
        let mut device = target.open(Sizes::of(0, false, &[&plan]))?.device;
        let program = device.load(&plan)?;
        device.write(Space::Inputs, 0, StepParams::default().words())?;
        Ok(Loaded {
            device,
            plan,
            program,
            capacity,
        })
    }

    /// The beginning of an input.
    fn write(&mut self, name: &str, words: &[u32]) -> Result<(), RetrievalError> {
        let port = self.plan.input(name).expect("the plan has been recorded with it");
        Ok(self.device.write(Space::Inputs, port.offset, words)?)
    }

    fn run(&mut self) -> Result<Vec<u32>, RetrievalError> {
        self.device.run(self.program)?;
        let port = self.plan.output("found").expect("the op's output");
        let mut found = vec![0; port.words];
        self.device.read(Space::Readback, port.offset, &mut found)?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::bm25::{Bm25, CodeTable};
    use crate::retrieval::lists::TileLists;
    use crate::retrieval::query::Prepared;
    use crate::retrieval::{Analyzer, IndexBuilder, Query};

    #[test]
    fn a_shard_stays_within_the_memory_and_has_one_sub_tile_at_least() {
        const DOCUMENTS: usize = 20_000;
        let passage = |number: usize| format!("a{} b{} c{} d", number % 2, number % 5, number % 700);
        let passages: Vec<String> = (0..DOCUMENTS).map(passage).collect();
        let mut builder = IndexBuilder::new(Analyzer::Standard, DOCUMENTS as u32).unwrap();
        builder.add(&passages, &|_, _| ()).unwrap();
        let index = builder.finish().unwrap();
        let bm25 = Bm25::default();
        let codes = CodeTable::new(bm25, index.average_length());
        let prepared = Prepared::new(&index, &passages[..1000], Query::Text, &[], &bm25).unwrap();
        let tile = index.tile(index.tiles()[0]).unwrap();
        let mut lists = TileLists::default();
        lists
            .fill(&tile, 0, &prepared.of_segment[0], prepared.terms, &codes, None)
            .unwrap();
        let sub_tiles: Vec<SubTileLists> = (0..lists.sub_tiles()).map(|number| lists.sub_tile(number)).collect();
        let uses = vec![1000; prepared.terms];
        let mut seen = Vec::new();
        for memory in [1, 400_000, 1 << 20, u64::MAX] {
            let pass = Pass {
                queries: &prepared.queries,
                best: &[],
                uses: &uses,
                codes: &codes,
                memory,
                report: &|_| (),
            };
            let len = shard_len(&sub_tiles, memory);
            let flat = Flat::of(&sub_tiles[..len], &pass);
            let bytes = size_of_val(&flat.postings[..]) + size_of_val(&flat.columns[..]) + size_of_val(&flat.spans[..]);
            assert!(memory == 1 || bytes as u64 <= memory, "{bytes} bytes of {memory}");
            seen.push((len, flat.columns.is_empty()));
        }
        assert_eq!(seen, [(1, true), (2, false), (5, false), (5, false)]);
    }
}
