//! Shared memory of a block: its bytes, which of them are written, and who touched them last.
//!
//! Races are found as in device memory ([`super::races`]): for each word of four bytes the last write and two reads are
//! remembered, here by different warps. A record is one word:
//!
//! ```text
//! 1 bit exists | 1 several lanes | 10 thread | 16 site | 31 clock | 4 bytes | 1 atomic
//! ```

use super::races::Order;
use crate::rows::LANES;

/// What is known of a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Nobody wrote it.
    Unwritten = 0,
    /// Written.
    Written = 1,
    /// A copy to it is under way.
    Copying = 2,
}

const EXISTS: u64 = 1 << 63;
const SEVERAL: u64 = 1 << 62;

/// An access to a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedRecord(u64);

impl SharedRecord {
    /// By a thread at its warp's clock, perhaps with others of the warp; the bytes are still to be said.
    pub fn new(thread: u32, several: bool, site: u16, clock: u32, atomic: bool) -> SharedRecord {
        SharedRecord(
            EXISTS
                | u64::from(several) << 62
                | u64::from(thread) << 52
                | u64::from(site) << 36
                | (u64::from(clock) & 0x7fff_ffff) << 5
                | u64::from(atomic),
        )
    }

    /// A bit per byte of the word.
    fn with_bytes(self, bytes: u32) -> SharedRecord {
        SharedRecord(self.0 | u64::from(bytes) << 1)
    }

    /// Thread.
    pub fn thread(self) -> u32 {
        (self.0 >> 52) as u32 & 1023
    }

    /// Number of the memory instruction.
    pub fn site(self) -> usize {
        (self.0 >> 36) as usize & 0xffff
    }

    fn clock(self) -> u32 {
        (self.0 >> 5) as u32 & 0x7fff_ffff
    }

    fn warp(self) -> usize {
        self.thread() as usize / LANES
    }

    fn ordered(self, me: SharedRecord, order: &impl Order) -> bool {
        order.ordered(self.thread(), self.clock(), me.thread())
    }

    /// Whether two accesses, one of which writes, are a race.
    fn conflicts(self, me: SharedRecord, order: &impl Order) -> bool {
        let same_thread = self.thread() == me.thread() && (self.0 | me.0) & SEVERAL == 0;
        self.0 != 0
            && !same_thread
            && self.0 & me.0 & 0b1_1110 != 0
            && self.0 & me.0 & 1 == 0
            && !self.ordered(me, order)
    }
}

/// Who touched a word last.
#[derive(Clone, Copy, Default)]
struct Word {
    written: SharedRecord,
    read: SharedRecord,
    other_read: SharedRecord,
}

impl Word {
    /// The record that a read races with; the read is noted.
    fn note_read(&mut self, me: SharedRecord, order: &impl Order) -> Option<SharedRecord> {
        let first = self.read;
        if first.0 == 0 || first.ordered(me, order) {
            self.read = me;
        } else if first.warp() == me.warp() {
            // What is not ordered before is of the same clock: one record for all its lanes.
            let several = if first.thread() == me.thread() { 0 } else { SEVERAL };
            self.read = SharedRecord(me.0 | (first.0 & (SEVERAL | 0b1_1110)) | several);
        } else {
            self.other_read = me;
        }
        self.written.conflicts(me, order).then_some(self.written)
    }

    /// The record that a write races with, and whether that one wrote; the write is noted.
    fn note_write(&mut self, me: SharedRecord, order: &impl Order) -> Option<(SharedRecord, bool)> {
        let records = [(self.written, true), (self.read, false), (self.other_read, false)];
        self.written = me;
        records.into_iter().find(|(record, _)| record.conflicts(me, order))
    }
}

/// See the module.
pub struct Shared {
    /// Contents.
    pub bytes: Vec<u8>,
    states: Vec<u8>,
    words: Vec<Word>,
    checked: bool,
}

impl Shared {
    /// Memory of this many bytes.
    pub fn new(bytes: u32, checked: bool) -> Shared {
        let bytes = bytes as usize;
        let tracked = if checked { bytes } else { 0 };
        Shared {
            bytes: vec![0xff; bytes],
            states: vec![0; tracked],
            words: vec![Word::default(); tracked.div_ceil(4)],
            checked,
        }
    }

    /// As a new block finds it.
    pub fn reset(&mut self) {
        self.bytes.fill(0xff);
        self.states.fill(State::Unwritten as u8);
        self.words.fill(Word::default());
    }

    /// The first byte of a range that is not written, and why.
    pub fn unreadable(&self, start: usize, count: usize) -> Option<(usize, State)> {
        if !self.checked {
            return None;
        }
        let states = &self.states[start..start + count];
        let written = match *states {
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]) == 0x0101_0101,
            _ => states
                .iter()
                .fold(true, |all, state| all & (*state == State::Written as u8)),
        };
        if written {
            return None;
        }
        let at = states.iter().position(|state| *state != State::Written as u8)?;
        let state = if states[at] == State::Copying as u8 {
            State::Copying
        } else {
            State::Unwritten
        };
        Some((start + at, state))
    }

    /// Sets what is known of a range.
    pub fn mark(&mut self, start: usize, count: usize, state: State) {
        if self.checked {
            self.states[start..start + count].fill(state as u8);
        }
    }

    /// Notes an access to a range, in each word that it touches; the record that it races with, and whether that one
    /// wrote.
    pub fn access(
        &mut self,
        start: usize,
        count: usize,
        me: SharedRecord,
        writes: bool,
        order: &impl Order,
    ) -> Option<(SharedRecord, bool)> {
        if !self.checked {
            return None;
        }
        let mut found = None;
        for at in start / 4..(start + count).div_ceil(4) {
            let (low, high) = (start.max(4 * at) - 4 * at, (start + count).min(4 * at + 4) - 4 * at);
            let me = me.with_bytes((1 << high) - (1 << low));
            let word = &mut self.words[at];
            let conflict = if writes {
                word.note_write(me, order)
            } else {
                word.note_read(me, order).map(|other| (other, true))
            };
            found = found.or(conflict);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Warps of which nothing is ordered from clock 1 on.
    struct Clock;
    impl Order for Clock {
        fn ordered(&self, _: u32, clock: u32, _: u32) -> bool {
            clock < 1
        }
    }

    #[test]
    fn reads_of_several_lanes_are_remembered_against_a_write_by_one_of_them() {
        let mut shared = Shared::new(8, true);
        let record = |thread, several, clock| SharedRecord::new(thread, several, 0, clock, false);
        assert_eq!(shared.access(0, 4, record(3, true, 1), false, &Clock), None);
        assert!(shared.access(0, 4, record(3, false, 1), true, &Clock).is_some());
        // Alone it may.
        assert_eq!(shared.access(4, 4, record(3, false, 1), false, &Clock), None);
        assert_eq!(shared.access(4, 4, record(3, false, 1), true, &Clock), None);
        // Halves of a word are apart.
        let mut shared = Shared::new(8, true);
        assert_eq!(shared.access(0, 2, record(3, false, 1), true, &Clock), None);
        assert_eq!(shared.access(2, 2, record(4, false, 1), true, &Clock), None);
        assert!(shared.access(0, 8, record(70, false, 1), false, &Clock).is_some());
    }
}
