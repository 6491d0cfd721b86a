//! Batched BM25: the best documents of a shard of an index for each of many queries, in integers.
//!
//! ```text
//! scores [queries, documents]   sum over a query's terms of (weight code + half) >> shift,  half = 2^(shift - 1) or 0
//! found  [queries, 2 k]         (document, score) of the k best above the query's threshold, by number of document;
//!                               then (none, 0)
//! ```
//!
//! A better document has a higher score, or the same and a lower number: no two are alike, so that every backend finds the same.
//! Sums are exact in any order: a query's shift is such that none passes 2^32.
//!
//! | tensor | row |
//! |---|---|
//! | `postings` | code << 16 \| number of the document, of which the last 12 bits count in a [sub-tile](SUB_TILE) |
//! | `columns` | codes of two neighbouring documents, the first one in the low half |
//! | `spans` | first row and number of postings of a term in a sub-tile, or first row of its column and [`COLUMN`]; for term i of all queries' terms and sub-tile s it is row i S + s |
//! | `weights` | weight of a query's term |
//! | `queries` | first term, number of terms, shift, threshold: scores up to it do not come in |
//!
//! On a GPU a workgroup has a query and a sub-tile, whose sums lie in its own memory: columns first, each thread some documents,
//! then lists, 32 threads one list, with integer atomics. Workgroups that follow each other share the sub-tile.
//! Selection gives each query a workgroup: it finds the k-th score byte by byte, then takes what passes in order.

mod cpu;
mod reference;

use crate::kernel::{Arg, Cost, DType, Extent, File, Kernel, Source, workgroups};
use crate::plan::{PlanError, Recorder, Value};

pub use reference::cases;

/// Documents whose sums lie in a workgroup's memory together.
pub const SUB_TILE: usize = 4096;

/// In place of a number of postings: the term is a column.
pub const COLUMN: u32 = u32::MAX;

/// In place of a document's number: there is none.
pub const NONE: u32 = u32::MAX;

const WGSL: File = File {
    name: "shaders/bm25.wgsl",
    text: include_str!("../../../shaders/bm25.wgsl"),
};

const CUDA: File = File {
    name: "kernels/bm25.cu",
    text: include_str!("../../../kernels/bm25.cu"),
};

/// `scores` of all documents for all queries.
pub static SCORE: Kernel = Kernel {
    name: "bm25.score",
    args: &[
        Arg::index("postings", ["postings", "1"]),
        Arg::index("columns", ["column_rows", "1"]),
        Arg::index("spans", ["spans", "2"]),
        Arg::index("weights", ["terms", "1"]),
        Arg::index("queries", ["rows", "4"]),
        Arg::output("scores", ["rows", "documents"]).u32(),
    ],
    constants: &["rows", "documents"],
    cuda: Some(Source::new(CUDA, &["bm25_score"])),
    wgsl: Some(Source::new(WGSL, &["bm25_score"])),
    cpu: cpu::score,
    reserve: None,
    grid: |dims, _| workgroups(dims.size("rows") * dims.size("documents") / SUB_TILE),
    cost: |sizes| Cost {
        flops: 0,
        read: 4 * (sizes.get("postings") + sizes.get("column_rows") + 2 * sizes.get("spans"))
            + 4 * (sizes.get("terms") + 4 * sizes.get("rows")),
        written: 4 * sizes.get("rows") * sizes.get("documents"),
    },
};

/// The best documents of each row of scores.
pub static SELECT: Kernel = Kernel {
    name: "bm25.select",
    args: &[
        Arg::index("scores", ["rows", "documents"]),
        Arg::index("queries", ["rows", "4"]),
        Arg::output("found", ["rows", "width"]).u32(),
    ],
    constants: &["rows", "documents", "width"],
    cuda: Some(Source::new(CUDA, &["bm25_select"])),
    wgsl: Some(Source::new(WGSL, &["bm25_select"])),
    cpu: cpu::select,
    reserve: None,
    grid: |dims, _| workgroups(dims.size("rows")),
    cost: |sizes| Cost {
        flops: 0,
        read: 4 * sizes.get("rows") * (sizes.get("documents") + 4),
        written: 4 * sizes.get("rows") * sizes.get("width"),
    },
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&SCORE, &SELECT];

/// A shard of an index and the queries, as the module's table says.
#[derive(Clone, Copy, Debug)]
pub struct Shard {
    /// `[postings, 1]`
    pub postings: Value,
    /// `[column rows, 1]`
    pub columns: Value,
    /// `[terms x sub-tiles, 2]`
    pub spans: Value,
    /// `[terms, 1]`
    pub weights: Value,
    /// `[queries, 4]`
    pub queries: Value,
}

/// The `k` best of a shard's documents, a multiple of [`SUB_TILE`], for each query: the plan's output `found`
/// `[queries, 2 k]`, u32.
///
/// # Errors
/// Shape and type mismatches, with the scope.
///
/// # Panics
/// For documents that are no whole sub-tiles, and k = 0: mistakes of the caller.
pub fn bm25(r: &mut Recorder, shard: &Shard, documents: u32, k: u32) -> Result<Value, PlanError> {
    assert!(
        documents.is_multiple_of(SUB_TILE as u32) && k > 0,
        "whole sub-tiles, k above 0"
    );
    let queries: Extent = r.info(shard.queries).rows;
    let scores = r.integers("scores", queries, documents);
    let found = r.output_of("found", queries, 2 * k, DType::U32);
    let Shard {
        postings,
        columns,
        spans,
        weights,
        queries,
    } = *shard;
    r.launch(&SCORE, &[postings, columns, spans, weights, queries, scores], &[])?;
    r.launch(&SELECT, &[scores, queries, found], &[])?;
    Ok(found)
}
