//! Races in device memory.
//!
//! For each word of four bytes that a launch touches, the last write and two reads are remembered: the last one, and the
//! last one by somebody whom the first does not stand for (another block, or another thread that nothing orders). An
//! access is a race with a remembered one if they touch the same bytes, one writes, not both are atomic, and they are by
//! different blocks, or by different threads of a block without a barrier between them.
//!
//! A record is one word, so that blocks on different threads of the host can share the table:
//!
//! ```text
//! 23 bits block + 1 | 10 thread | 13 site | 13 clock | 4 bytes | 1 atomic
//! ```
//!
//! Numbers that do not fit stand at their largest value, where nothing is concluded from them: the table may miss a race
//! of a very large or very long launch, and of parts of words, but what it reports is one.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::memory::View;

const BLOCK_LIMIT: u64 = (1 << 23) - 2;
const SITE_LIMIT: u64 = (1 << 13) - 1;
const CLOCK_LIMIT: u64 = (1 << 13) - 1;

/// Words of a page of the table.
const PAGE: usize = 1024;
const ENTRIES: usize = 3;

/// An access to a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record(u64);

impl Record {
    /// By a thread of a block, at its warp's clock; `bytes` is a bit per byte of the word.
    pub fn new(block: u64, thread: u32, site: u16, clock: u32, bytes: u8, atomic: bool) -> Record {
        let block = block.min(BLOCK_LIMIT) + 1;
        let site = u64::from(site).min(SITE_LIMIT);
        let clock = u64::from(clock).min(CLOCK_LIMIT);
        Record(
            block << 41 | u64::from(thread) << 31 | site << 18 | clock << 5 | u64::from(bytes) << 1 | u64::from(atomic),
        )
    }

    fn block(self) -> u64 {
        (self.0 >> 41).wrapping_sub(1)
    }

    /// Block, if it is known.
    pub fn known_block(self) -> Option<u64> {
        (self.block() != BLOCK_LIMIT).then(|| self.block())
    }

    /// Thread within the block.
    pub fn thread(self) -> u32 {
        (self.0 >> 31) as u32 & 1023
    }

    /// Number of the memory instruction, if it is known.
    pub fn site(self) -> Option<usize> {
        let site = self.0 >> 18 & SITE_LIMIT;
        (site != SITE_LIMIT).then_some(site as usize)
    }

    fn clock(self) -> u64 {
        self.0 >> 5 & CLOCK_LIMIT
    }

    fn bytes(self) -> u64 {
        self.0 >> 1 & 15
    }

    fn atomic(self) -> bool {
        self.0 & 1 == 1
    }
}

/// What orders the accesses of a block's threads.
pub trait Order {
    /// Whether what a thread did at a clock of its warp comes before what another does now.
    fn ordered(&self, earlier: u32, clock: u32, now: u32) -> bool;
}

/// Accesses of a launch, by region of memory.
pub struct GlobalShadow {
    /// By region: its pages, both made when they are first touched.
    regions: Vec<OnceLock<Vec<Page>>>,
}

/// Entries of [`PAGE`] words.
type Page = OnceLock<Box<[AtomicU64]>>;

impl GlobalShadow {
    /// An empty table.
    pub fn new(view: &View) -> GlobalShadow {
        GlobalShadow {
            regions: view.regions.iter().map(|_| OnceLock::new()).collect(),
        }
    }

    /// Notes an access to a word of a region; the record that it races with.
    pub fn access(
        &self,
        region: usize,
        words: usize,
        word: usize,
        me: Record,
        writes: bool,
        order: &impl Order,
    ) -> Option<(Record, bool)> {
        let pages = self.regions[region].get_or_init(|| {
            let pages = words.div_ceil(PAGE);
            std::iter::repeat_with(OnceLock::new).take(pages).collect()
        });
        let page = pages[word / PAGE].get_or_init(|| {
            std::iter::repeat_with(|| AtomicU64::new(0))
                .take(PAGE * ENTRIES)
                .collect()
        });
        let at = word % PAGE * ENTRIES;
        let [written, read, other_read] = [&page[at], &page[at + 1], &page[at + 2]];
        let conflict = |entry: u64| {
            let old = Record(entry);
            (entry != 0 && conflicts(old, me, order)).then_some(old)
        };
        // The exchanges make one of two simultaneous accesses see the other.
        if writes {
            let old = written.swap(me.0, Ordering::SeqCst);
            if let Some(old) = conflict(old) {
                return Some((old, true));
            }
            let reads = [read, other_read].map(|entry| entry.load(Ordering::SeqCst));
            return reads.into_iter().find_map(conflict).map(|old| (old, false));
        }
        let first = Record(read.load(Ordering::SeqCst));
        if first != me {
            let replaces = first.0 == 0
                || first.block() == me.block()
                    && (first.thread() == me.thread()
                        || order.ordered(first.thread(), first.clock() as u32, me.thread()));
            let entry = if replaces { read } else { other_read };
            entry.swap(me.0, Ordering::SeqCst);
        }
        conflict(written.load(Ordering::SeqCst)).map(|old| (old, true))
    }
}

/// Whether two accesses, one of which writes, are a race.
fn conflicts(old: Record, me: Record, order: &impl Order) -> bool {
    if old.bytes() & me.bytes() == 0 || (old.atomic() && me.atomic()) {
        return false;
    }
    if old.block() != me.block() {
        return true;
    }
    if old.block() == BLOCK_LIMIT || old.thread() == me.thread() || old.clock() == CLOCK_LIMIT {
        return false;
    }
    !order.ordered(old.thread(), old.clock() as u32, me.thread())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Never;
    impl Order for Never {
        fn ordered(&self, _: u32, _: u32, _: u32) -> bool {
            false
        }
    }

    #[test]
    fn reads_by_several_blocks_are_remembered_against_a_write_by_one_of_them() {
        let shadow = GlobalShadow {
            regions: vec![OnceLock::new()],
        };
        let record = |block, thread| Record::new(block, thread, 5, 1, 15, false);
        assert_eq!(shadow.access(0, 4, 0, record(1, 3), false, &Never), None);
        assert_eq!(shadow.access(0, 4, 0, record(2, 3), false, &Never), None);
        let (other, wrote) = shadow.access(0, 4, 0, record(1, 3), true, &Never).unwrap();
        assert_eq!((other.known_block(), other.site(), wrote), (Some(2), Some(5), false));
        // Different bytes of a word are no race.
        let half = |block, bytes| Record::new(block, 0, 5, 1, bytes, false);
        assert_eq!(shadow.access(0, 4, 1, half(1, 3), true, &Never), None);
        assert_eq!(shadow.access(0, 4, 1, half(2, 12), true, &Never), None);
    }
}
