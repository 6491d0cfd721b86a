//! Shared memory of a block: its bytes, which of them are written, and who touched them last.

use super::races::Order;

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

/// An access to a word: a bit for "there is one", thread, site, clock, bytes, atomic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedRecord(u64);

impl SharedRecord {
    /// By a thread, at its warp's clock; `bytes` is a bit per byte of the word.
    pub fn new(thread: u32, site: u16, clock: u32, bytes: u8, atomic: bool) -> SharedRecord {
        SharedRecord(
            1 << 63
                | u64::from(thread) << 53
                | u64::from(site) << 37
                | u64::from(clock) << 5
                | u64::from(bytes) << 1
                | u64::from(atomic),
        )
    }

    /// Thread.
    pub fn thread(self) -> u32 {
        (self.0 >> 53) as u32 & 1023
    }

    /// Number of the memory instruction.
    pub fn site(self) -> usize {
        (self.0 >> 37) as usize & 0xffff
    }

    fn clock(self) -> u32 {
        (self.0 >> 5) as u32
    }

    fn exists(self) -> bool {
        self.0 != 0
    }

    fn conflicts(self, me: SharedRecord, order: &impl Order) -> bool {
        self.exists()
            && self.thread() != me.thread()
            && (self.0 >> 1) & (me.0 >> 1) & 15 != 0
            && self.0 & me.0 & 1 == 0
            && !order.ordered(self.thread(), self.clock(), me.thread())
    }
}

/// Who touched a word last: a write and two reads, as in device memory.
#[derive(Clone, Copy, Default)]
struct Word {
    written: SharedRecord,
    read: SharedRecord,
    other_read: SharedRecord,
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

    /// Notes an access to a range, which lies in words that it covers in part or whole; the record that it races with,
    /// and whether that one wrote.
    pub fn access(
        &mut self,
        start: usize,
        count: usize,
        me: impl Fn(u8) -> SharedRecord,
        writes: bool,
        order: &impl Order,
    ) -> Option<(SharedRecord, bool)> {
        if !self.checked {
            return None;
        }
        for at in start / 4..(start + count).div_ceil(4) {
            let (low, high) = (start.max(4 * at) - 4 * at, (start + count).min(4 * at + 4) - 4 * at);
            let me = me(((1u32 << high) - (1 << low)) as u8);
            let word = &mut self.words[at];
            if word.written.conflicts(me, order) {
                return Some((word.written, true));
            }
            if writes {
                for read in [word.read, word.other_read] {
                    if read.conflicts(me, order) {
                        return Some((read, false));
                    }
                }
                word.written = me;
            } else {
                let first = word.read;
                let replaces = !first.exists()
                    || first.thread() == me.thread()
                    || order.ordered(first.thread(), first.clock(), me.thread());
                *(if replaces { &mut word.read } else { &mut word.other_read }) = me;
            }
        }
        None
    }
}
