//! A pass of queries over the sub-tiles: what every device is given.

use super::best::Best;
use super::bm25::{CodeTable, WeightedQuery};

/// Some of the queries of a search, and where their hits go.
pub(super) struct Pass<'p> {
    pub(super) queries: &'p [WeightedQuery],
    /// The best of each query.
    pub(super) best: &'p [Best],
    /// How many of the queries use each term.
    pub(super) uses: &'p [u32],
    pub(super) codes: &'p CodeTable,
    /// About the bytes that the images of sub-tiles have together.
    pub(super) memory: u64,
    /// Is told of scored pairs of query and sub-tile.
    pub(super) report: &'p (dyn Fn(usize) + Sync),
}
