//! What a block knows besides its warps, and how a finding is worded.

use super::Run;
use super::races::{Order, Record};
use super::shared::{Shared, SharedRecord};
use crate::counters::Counts;
use crate::finding::{Checked, Finding, Kind};
use crate::rows::LANES;

/// What orders the threads of a block: each warp counts its synchronisations and knows up to which count it comes after
/// each other warp.
pub struct Clocks {
    own: Vec<u32>,
    known: Vec<Vec<u32>>,
}

impl Clocks {
    /// For a number of warps.
    pub fn new(warps: usize) -> Clocks {
        Clocks {
            own: vec![1; warps],
            known: vec![vec![0; warps]; warps],
        }
    }

    /// As at the start of a block.
    pub fn reset(&mut self) {
        self.own.fill(1);
        for known in &mut self.known {
            known.fill(0);
        }
    }

    /// A warp's clock.
    pub fn of(&self, warp: usize) -> u32 {
        self.own[warp]
    }

    /// The lanes of a warp come after each other.
    pub fn synchronize_warp(&mut self, warp: usize) {
        self.own[warp] += 1;
    }

    /// The warps of a barrier come after each other; those that only `arrive` do not wait.
    pub fn synchronize(&mut self, arrived: &[usize], waited: &[usize]) {
        let mut joined = vec![0; self.own.len()];
        for &warp in arrived {
            for (joined, known) in joined.iter_mut().zip(&self.known[warp]) {
                *joined = (*joined).max(*known);
            }
            self.own[warp] += 1;
            joined[warp] = self.own[warp];
        }
        for &warp in waited {
            self.known[warp].copy_from_slice(&joined);
        }
    }
}

impl Order for Clocks {
    fn ordered(&self, earlier: u32, clock: u32, now: u32) -> bool {
        let (earlier, now) = (earlier as usize / LANES, now as usize / LANES);
        let known = if earlier == now {
            self.own[now]
        } else {
            self.known[now][earlier]
        };
        clock < known
    }
}

/// What a block's warps share.
pub struct Context<'a> {
    /// The launch.
    pub run: &'a Run<'a>,
    /// The block's number.
    pub linear: u32,
    /// Its position in the grid.
    pub index: [u32; 3],
    /// Shared memory.
    pub shared: Shared,
    /// What orders the threads.
    pub clocks: Clocks,
    /// What was counted.
    pub counts: Counts,
    /// By memory instruction: the region that it went to last.
    pub hints: Vec<u32>,
    /// Instructions that the block's warps have run.
    pub steps: u64,
    /// The same, up to the instruction that runs.
    pub now: u64,
    /// State of the random order.
    pub random: u64,
}

impl Context<'_> {
    /// A random number below a bound.
    pub fn random(&mut self, bound: usize) -> usize {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }

    /// A place in the sources.
    pub fn place(&self, place: u32) -> String {
        self.run.kernel.locations[place as usize].to_string()
    }

    /// The place of a memory instruction.
    pub fn site(&self, site: usize) -> String {
        match self.run.kernel.sites.get(site) {
            Some(place) => self.place(*place),
            None => "an unknown line".to_string(),
        }
    }

    /// Who ran into it.
    pub fn who(&self, thread: u32) -> String {
        let [x, y, z] = self.index;
        let [tx, ty, tz] = self.run.thread_index(thread);
        let name = &self.run.kernel.name;
        format!("kernel {name}, block ({x}, {y}, {z}), thread ({tx}, {ty}, {tz})")
    }

    /// A finding of a thread.
    pub fn finding<T>(&self, kind: Kind, thread: u32, what: impl std::fmt::Display) -> Checked<T> {
        let text = format!("{what}; {}", self.who(thread));
        Err(Box::new(Finding { kind, text }))
    }

    /// What a byte of shared memory belongs to.
    pub fn describe_shared(&self, offset: usize) -> String {
        let variables = &self.run.kernel.shared;
        let inside = |variable: &&crate::ptx::SharedVariable| {
            (variable.offset as usize..(variable.offset + variable.bytes) as usize).contains(&offset)
        };
        if let Some(variable) = variables.iter().find(inside) {
            return format!("byte {} of {}", offset - variable.offset as usize, variable.name);
        }
        match offset.checked_sub(self.run.dynamic_start as usize) {
            Some(at) if offset < self.run.shared_bytes as usize => format!("byte {at} of dynamic shared memory"),
            _ => format!("byte {offset} of {} bytes of shared memory", self.run.shared_bytes),
        }
    }

    /// A race in shared memory.
    pub fn shared_race<T>(
        &self,
        thread: u32,
        site: u16,
        writes: bool,
        offset: usize,
        (old, wrote): (SharedRecord, bool),
    ) -> Checked<T> {
        let verb = |writes: bool| if writes { "writes" } else { "reads" };
        let what = format!(
            "in shared memory: {} (thread {}) {}, {} (thread {thread}) {} {}",
            self.site(old.site()),
            old.thread(),
            verb(wrote),
            self.site(site as usize),
            verb(writes),
            self.describe_shared(offset),
        );
        self.finding(Kind::Race, thread, what)
    }

    /// A race in device memory.
    pub fn global_race<T>(
        &self,
        thread: u32,
        site: u16,
        writes: bool,
        address: u64,
        (old, wrote): (Record, bool),
    ) -> Checked<T> {
        let verb = |writes: bool| if writes { "writes" } else { "reads" };
        let block = old
            .known_block()
            .map_or("of another block".to_string(), |block| format!("block {block}"));
        let place = old.site().map_or("an unknown line".to_string(), |site| self.site(site));
        let what = format!(
            "in global memory: {place} ({block}, thread {}) {}, {} (block {}, thread {thread}) {} {}",
            old.thread(),
            verb(wrote),
            self.site(site as usize),
            self.linear,
            verb(writes),
            self.run.view.describe(address),
        );
        self.finding(Kind::Race, thread, what)
    }
}
