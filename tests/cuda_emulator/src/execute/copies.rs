//! `cp.async`: copies from device memory to shared memory that a thread must wait for.
//!
//! Until then the bytes count as being copied, and hold 0xFF; a copy's data arrives when it is waited for or, with a
//! seed, sometimes at once. A thread's copies belong to the group that its next commit closes.

use super::access::{read_global, spans};
use super::check::Context;
use super::shared::{SharedRecord, State};
use super::warp::Warp;
use crate::finding::Checked;
use crate::ptx::{Op, PredicateOperand};
use crate::rows::{LANES, lanes};

/// A copy by some lanes.
struct Copy {
    lanes: u32,
    to: [usize; LANES],
    from: [u64; LANES],
    source_bytes: [u32; LANES],
    bytes: u32,
    /// By lane: commits before it.
    group: [u32; LANES],
    site: u16,
    /// Whether the data is there already.
    early: bool,
}

/// A warp's copies.
#[derive(Default)]
pub struct Copies {
    pending: Vec<Copy>,
    /// Commits by lane.
    committed: [u32; LANES],
}

impl Copies {
    /// As at the start of a block.
    pub fn clear(&mut self) {
        self.pending.clear();
        self.committed = [0; LANES];
    }

    /// Closes a group.
    pub fn commit(&mut self, active: u32) {
        for lane in lanes(active) {
            self.committed[lane] += 1;
        }
    }
}

impl Warp {
    /// Starts a copy.
    pub fn start_copy(&mut self, op: &Op, active: u32, context: &mut Context<'_>) -> Checked<()> {
        let Op::CopyAsync {
            to,
            from,
            bytes,
            source_bytes,
            ignore,
            site,
        } = op
        else {
            return Ok(());
        };
        let row = |warp: &Warp, address: crate::ptx::Address| {
            warp.registers[address.base as usize].map(|base| base.wrapping_add_signed(address.offset))
        };
        let (to, from) = (row(self, *to), row(self, *from));
        let read = self.source_bytes(*bytes, *source_bytes, *ignore);
        let mut reads = 0;
        for lane in lanes(active) {
            reads |= u32::from(read[lane] > 0) << lane;
        }
        self.check_shared(context, &to, *bytes, *bytes, active, *site, true)?;
        self.check_global_access(
            context,
            &from,
            (*bytes, &read),
            reads,
            *site,
            super::access::Access::READ,
            None,
        )?;
        context
            .counts
            .global(*site, &from, *bytes, reads, context.run.settings.counters);
        context
            .counts
            .shared(*site, &to, *bytes, active, context.run.settings.counters);
        let early = context.run.settings.seed != 0 && context.random(4) == 0;
        let copy = Copy {
            lanes: active,
            to: to.map(|address| address as u32 as usize),
            from,
            source_bytes: read,
            bytes: *bytes,
            group: self.copies.committed,
            site: *site,
            early,
        };
        for lane in lanes(active) {
            let (start, count) = (copy.to[lane], *bytes as usize);
            self.note(context, &copy, lane)?;
            context.shared.bytes[start..start + count].fill(0xff);
            context.shared.mark(start, count, State::Copying);
            if early {
                copy_data(context, &copy, lane);
            }
        }
        self.copies.pending.push(copy);
        Ok(())
    }

    fn source_bytes(
        &self,
        bytes: u32,
        source_bytes: Option<crate::ptx::Register>,
        ignore: Option<PredicateOperand>,
    ) -> [u32; LANES] {
        let ignored = ignore.map_or(0, |predicate| self.guarded(predicate));
        std::array::from_fn(|lane| {
            let given = source_bytes.map_or(bytes, |register| self.registers[register as usize][lane] as u32);
            if ignored >> lane & 1 == 1 { 0 } else { given.min(bytes) }
        })
    }

    /// Notes that a lane's part of a copy writes shared memory.
    fn note(&self, context: &mut Context<'_>, copy: &Copy, lane: usize) -> Checked<()> {
        let (thread, clock) = (self.thread(lane), context.clocks.of(self.index));
        let record = SharedRecord::new(thread, false, copy.site, clock, false);
        let (start, count) = (copy.to[lane], copy.bytes as usize);
        match context.shared.access(start, count, record, true, &context.clocks) {
            Some(other) => context.shared_race(thread, copy.site, true, start, other),
            None => Ok(()),
        }
    }

    /// Waits until at most this many groups are under way; none waits for everything.
    pub fn wait_for_copies(&mut self, groups: Option<u32>, active: u32, context: &mut Context<'_>) -> Checked<()> {
        let mut pending = std::mem::take(&mut self.copies.pending);
        for copy in &mut pending {
            for lane in lanes(copy.lanes & active) {
                let after = self.copies.committed[lane] - copy.group[lane];
                if groups.is_none_or(|groups| after > groups) {
                    copy.lanes &= !(1 << lane);
                    if !copy.early {
                        copy_data(context, copy, lane);
                    }
                    context.shared.mark(copy.to[lane], copy.bytes as usize, State::Written);
                    self.note(context, copy, lane)?;
                }
            }
        }
        pending.retain(|copy| copy.lanes != 0);
        self.copies.pending = pending;
        Ok(())
    }
}

/// Moves the bytes of a lane; what is not read is zero.
fn copy_data(context: &mut Context<'_>, copy: &Copy, lane: usize) {
    let (start, count) = (copy.to[lane], copy.source_bytes[lane] as usize);
    let target = &mut context.shared.bytes[start..start + copy.bytes as usize];
    target[count..].fill(0);
    for (offset, bytes) in spans(count) {
        let value = read_global(copy.from[lane] + offset as u64, bytes);
        target[offset..offset + bytes as usize].copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
    }
}
