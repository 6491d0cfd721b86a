//! Loads, stores and atomic operations, with their checks.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::check::Context;
use super::races::Record;
use super::shared::{SharedRecord, State};
use super::warp::{Flow, Warp};
use super::window;
use crate::finding::{Checked, Kind};
use crate::ptx::{Address, AtomicKind, Instruction, Op, Register, Space};
use crate::rows::{LANES, Row, lanes};

/// What an access does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// It writes.
    pub writes: bool,
    /// It is atomic.
    pub atomic: bool,
}

impl Access {
    /// A load.
    pub const READ: Access = Access {
        writes: false,
        atomic: false,
    };
    /// A store.
    pub const WRITE: Access = Access {
        writes: true,
        atomic: false,
    };
    /// An atomic operation.
    pub const ATOMIC: Access = Access {
        writes: true,
        atomic: true,
    };
}

/// Reads device memory that was found to be there. Blocks may touch it at the same time, hence the atomic types.
pub fn read_global(address: u64, bytes: u32) -> u64 {
    // SAFETY: the caller has checked that the address is aligned and lies in a live allocation.
    unsafe {
        match bytes {
            1 => u64::from(AtomicU8::from_ptr(address as *mut u8).load(Ordering::Relaxed)),
            2 => u64::from(AtomicU16::from_ptr(address as *mut u16).load(Ordering::Relaxed)),
            4 => u64::from(AtomicU32::from_ptr(address as *mut u32).load(Ordering::Relaxed)),
            _ => AtomicU64::from_ptr(address as *mut u64).load(Ordering::Relaxed),
        }
    }
}

fn write_global(address: u64, bytes: u32, value: u64) {
    // SAFETY: as for reading.
    unsafe {
        match bytes {
            1 => AtomicU8::from_ptr(address as *mut u8).store(value as u8, Ordering::Relaxed),
            2 => AtomicU16::from_ptr(address as *mut u16).store(value as u16, Ordering::Relaxed),
            4 => AtomicU32::from_ptr(address as *mut u32).store(value as u32, Ordering::Relaxed),
            _ => AtomicU64::from_ptr(address as *mut u64).store(value, Ordering::Relaxed),
        }
    }
}

/// A number of bytes cut into pieces of 8, 4, 2 and 1, as long as they are aligned.
pub fn spans(count: usize) -> impl Iterator<Item = (usize, u32)> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        let bytes = [8usize, 4, 2, 1].into_iter().find(|bytes| offset + bytes <= count)?;
        let start = offset;
        offset += bytes;
        Some((start, bytes as u32))
    })
}

/// Little-endian bytes as a value.
pub fn read_bytes(memory: &[u8], start: usize, bytes: u32) -> u64 {
    let source = &memory[start..start + bytes as usize];
    match *source {
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        _ => source.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)),
    }
}

/// A value of some bytes with its sign, if it is extended to more bits.
pub fn sign_extended(value: u64, bytes: u32, bits: u32) -> u64 {
    if bits == 0 {
        return value;
    }
    let shift = 64 - 8 * bytes;
    (((value << shift) as i64) >> shift) as u64 & (u64::MAX >> (64 - bits))
}

/// The lanes of a mask. Of lanes that follow each other and read from the same address only the first, and whether there
/// are more of them.
fn runs(addresses: &Row, active: u32, access: Access) -> impl Iterator<Item = (usize, bool)> {
    let mut rest = lanes(active).peekable();
    std::iter::from_fn(move || {
        let lane = rest.next()?;
        let mut several = false;
        while !access.writes && rest.next_if(|next| addresses[*next] == addresses[lane]).is_some() {
            several = true;
        }
        Some((lane, several))
    })
}

impl Warp {
    /// Addresses of the lanes.
    fn addresses(&self, address: Address) -> Row {
        let mut row = self.registers[address.base as usize];
        if address.offset != 0 {
            for value in &mut row {
                *value = value.wrapping_add_signed(address.offset);
            }
        }
        row
    }

    /// Runs a memory instruction.
    pub fn access(&mut self, instruction: &Instruction, active: u32, context: &mut Context<'_>) -> Checked<Flow> {
        match &instruction.op {
            Op::Load { space, address, .. } | Op::Store { space, address, .. } | Op::Atomic { space, address, .. } => {
                let addresses = self.addresses(*address);
                if *space != Space::Generic {
                    self.access_in(*space, &addresses, &instruction.op, active, context)?;
                    return Ok(Flow::Next);
                }
                for space in [Space::Global, Space::Shared, Space::Local] {
                    let start = window(space);
                    let inside = |lane: &usize| addresses[*lane] >> 60 == start >> 60;
                    let mask = lanes(active).filter(inside).fold(0, |mask, lane| mask | 1 << lane);
                    if mask != 0 {
                        let inner = addresses.map(|address| address.wrapping_sub(start));
                        self.access_in(space, &inner, &instruction.op, mask, context)?;
                    }
                }
            }
            Op::CopyAsync { .. } => self.start_copy(&instruction.op, active, context)?,
            Op::CopyCommit => self.copies.commit(active),
            Op::CopyWait { groups } => self.wait_for_copies(*groups, active, context)?,
            Op::LoadMatrix { .. } => return self.load_matrix(instruction, active, context),
            _ => {} // fences and hints
        }
        Ok(Flow::Next)
    }

    fn access_in(
        &mut self,
        space: Space,
        addresses: &Row,
        op: &Op,
        active: u32,
        context: &mut Context<'_>,
    ) -> Checked<()> {
        let (element, count, site, access) = match op {
            Op::Load { bytes, to, site, .. } => (*bytes, to.len() as u32, *site, Access::READ),
            Op::Store { bytes, from, site, .. } => (*bytes, from.len() as u32, *site, Access::WRITE),
            Op::Atomic { bytes, site, .. } => (*bytes, 1, *site, Access::ATOMIC),
            _ => return Ok(()),
        };
        let bytes = element * count;
        let counting = context.run.settings.counters;
        match space {
            Space::Shared => {
                self.check_shared(context, addresses, bytes, bytes, active, site, access.writes)?;
                self.note_shared(context, addresses, bytes, active, site, access, op)?;
                context.counts.shared(site, addresses, bytes, active, counting);
            }
            Space::Local => self.check_local(context, addresses, bytes, active, site)?,
            _ => {
                self.check_global_access(context, addresses, (bytes, &[bytes; LANES]), active, site, access, Some(op))?;
                context.counts.global(site, addresses, bytes, active, counting);
            }
        }
        self.transfer_data(space, addresses, op, active, context);
        Ok(())
    }

    /// Moves the data of a checked access.
    fn transfer_data(&mut self, space: Space, addresses: &Row, op: &Op, active: u32, context: &mut Context<'_>) {
        match op {
            Op::Load {
                bytes, sign_bits, to, ..
            } => {
                for (at, to) in (0..).zip(to) {
                    let Some(to) = to else { continue };
                    let mut out = [0; LANES];
                    for lane in lanes(active) {
                        let value = self.read(space, addresses[lane] + at * u64::from(*bytes), *bytes, lane, context);
                        out[lane] = sign_extended(value, *bytes, *sign_bits);
                    }
                    self.write(*to, &out, active);
                }
            }
            Op::Store { bytes, from, .. } => {
                for (at, from) in (0..).zip(from) {
                    let row = self.registers[*from as usize];
                    for lane in lanes(active) {
                        let address = addresses[lane] + at * u64::from(*bytes);
                        self.store(space, address, *bytes, row[lane], lane, context);
                    }
                }
            }
            Op::Atomic {
                bytes, kind, to, from, ..
            } => {
                let [operand, replacement] = from.map(|register| self.registers[register as usize]);
                let mut out = [0; LANES];
                for lane in lanes(active) {
                    let old = self.read(space, addresses[lane], *bytes, lane, context);
                    let mask = u64::MAX >> (64 - 8 * *bytes);
                    let new = match kind {
                        AtomicKind::Update(function) => function(old, operand[lane] & mask) & mask,
                        AtomicKind::CompareAndSwap if old == operand[lane] & mask => replacement[lane] & mask,
                        AtomicKind::CompareAndSwap => old,
                    };
                    out[lane] = old;
                    self.store(space, addresses[lane], *bytes, new, lane, context);
                }
                if let Some(to) = to {
                    self.write(*to, &out, active);
                }
            }
            _ => {}
        }
    }

    fn local_start(&self, lane: usize, address: u64) -> usize {
        lane * (self.local.len() / LANES) + address as usize
    }

    fn read(&self, space: Space, address: u64, bytes: u32, lane: usize, context: &Context<'_>) -> u64 {
        match space {
            Space::Shared => read_bytes(&context.shared.bytes, address as u32 as usize, bytes),
            Space::Local => read_bytes(&self.local, self.local_start(lane, address), bytes),
            _ => read_global(address, bytes),
        }
    }

    fn store(&mut self, space: Space, address: u64, bytes: u32, value: u64, lane: usize, context: &mut Context<'_>) {
        let (memory, start) = match space {
            Space::Shared => (&mut context.shared.bytes, address as u32 as usize),
            Space::Local => {
                let start = self.local_start(lane, address);
                (&mut self.local, start)
            }
            _ => return write_global(address, bytes, value),
        };
        let count = bytes as usize;
        memory[start..start + count].copy_from_slice(&value.to_le_bytes()[..count]);
    }

    fn misaligned<T>(&self, context: &Context<'_>, lane: usize, address: u64, bytes: u32, site: u16) -> Checked<T> {
        let place = context.site(site as usize);
        let what = format!("{place}: {bytes} bytes at address {address:#x}, which is no multiple of {bytes}");
        context.finding(Kind::Misaligned, self.thread(lane), what)
    }

    fn check_local(&self, context: &Context<'_>, addresses: &Row, bytes: u32, active: u32, site: u16) -> Checked<()> {
        let size = (self.local.len() / LANES) as u64;
        for lane in lanes(active) {
            let address = addresses[lane];
            if !address.is_multiple_of(u64::from(bytes)) {
                return self.misaligned(context, lane, address, bytes, site);
            }
            if address.saturating_add(u64::from(bytes)) > size {
                let place = context.site(site as usize);
                let what = format!("{place}: {bytes} bytes at byte {} of {size} bytes of local memory", address as i64);
                return context.finding(Kind::OutOfBounds, self.thread(lane), what);
            }
        }
        Ok(())
    }

    /// Bounds, alignment and validity in shared memory.
    #[expect(clippy::too_many_arguments, reason = "the facts of one access")]
    pub fn check_shared(
        &self,
        context: &Context<'_>,
        addresses: &Row,
        bytes: u32,
        align: u32,
        active: u32,
        site: u16,
        writes: bool,
    ) -> Checked<()> {
        let size = context.shared.bytes.len() as u64;
        for (lane, _) in runs(addresses, active, Access::READ) {
            let address = addresses[lane];
            if address & u64::from(align - 1) != 0 {
                return self.misaligned(context, lane, address, align, site);
            }
            if address.saturating_add(u64::from(bytes)) > size {
                let place = context.site(site as usize);
                let verb = if writes { "writes" } else { "reads" };
                let what = format!("{place}: {verb} {bytes} bytes at byte {} of {size} bytes of shared memory", address as i32);
                return context.finding(Kind::OutOfBounds, self.thread(lane), what);
            }
            if !writes && let Some((at, state)) = context.shared.unreadable(address as usize, bytes as usize) {
                let place = context.site(site as usize);
                let what = context.describe_shared(at);
                let thread = self.thread(lane);
                return match state {
                    State::Copying => {
                        let what = format!("{place}: reads {what} while cp.async is still writing it");
                        context.finding(Kind::CopyNotAwaited, thread, what)
                    }
                    _ => context.finding(Kind::Uninitialized, thread, format!("{place}: reads {what}")),
                };
            }
        }
        Ok(())
    }

    /// Races in shared memory, and what is written by this.
    #[expect(clippy::too_many_arguments, reason = "the facts of one access")]
    fn note_shared(
        &self,
        context: &mut Context<'_>,
        addresses: &Row,
        bytes: u32,
        active: u32,
        site: u16,
        access: Access,
        op: &Op,
    ) -> Checked<()> {
        if !context.run.settings.checked {
            return Ok(());
        }
        let clock = context.clocks.of(self.index);
        for (lane, several) in runs(addresses, active, access) {
            let (start, thread) = (addresses[lane] as usize, self.thread(lane));
            let record = SharedRecord::new(thread, several, site, clock, access.atomic);
            let found = context
                .shared
                .access(start, bytes as usize, record, access.writes, &context.clocks);
            if let Some(other) = found
                && !(other.0.site() == site as usize && self.same_value(op, addresses, lane, other.0.thread()))
            {
                return context.shared_race(thread, site, access.writes, start, other);
            }
            if access.writes {
                context.shared.mark(start, bytes as usize, State::Written);
            }
        }
        Ok(())
    }

    /// Whether a lane and another thread of the warp store the same values at the same place in this instruction.
    fn same_value(&self, op: &Op, addresses: &Row, lane: usize, other: u32) -> bool {
        let other_lane = other as usize % LANES;
        let Op::Store { from, .. } = op else { return false };
        let same = |register: &Register| {
            let row = &self.registers[*register as usize];
            row[lane] == row[other_lane]
        };
        other as usize / LANES == self.index && addresses[lane] == addresses[other_lane] && from.iter().all(same)
    }

    /// Bounds, alignment and races in device memory. The accesses may be shorter than what is aligned.
    #[expect(clippy::too_many_arguments, reason = "the facts of one access")]
    pub fn check_global_access(
        &self,
        context: &mut Context<'_>,
        addresses: &Row,
        (align, bytes): (u32, &[u32; LANES]),
        active: u32,
        site: u16,
        access: Access,
        op: Option<&Op>,
    ) -> Checked<()> {
        let view = context.run.view;
        let mut hint = context.hints[site as usize] as usize;
        for lane in lanes(active) {
            let address = addresses[lane];
            let end = address.saturating_add(u64::from(bytes[lane]));
            if address & u64::from(align - 1) != 0 {
                return self.misaligned(context, lane, address, align, site);
            }
            let fits = |region: &crate::memory::Region| region.start <= address && end <= region.end;
            if !view.regions.get(hint).is_some_and(|region| fits(region) && region.live) {
                hint = self.find_region(context, lane, address, bytes[lane], site, access)?;
                context.hints[site as usize] = hint as u32;
            }
            if context.run.races.is_some() {
                let race = self.note_global(context, hint, address, bytes[lane], lane, site, access);
                let Some(other) = race else { continue };
                let block = Some(u64::from(context.linear));
                let here = other.0.site() == Some(site as usize) && other.0.known_block() == block;
                if !(here && op.is_some_and(|op| self.same_value(op, addresses, lane, other.0.thread()))) {
                    return context.global_race(self.thread(lane), site, access.writes, address, other);
                }
            }
        }
        Ok(())
    }

    fn find_region(
        &self,
        context: &Context<'_>,
        lane: usize,
        address: u64,
        bytes: u32,
        site: u16,
        access: Access,
    ) -> Checked<usize> {
        let view = context.run.view;
        let found = view.find(address);
        let region = found.map(|at| &view.regions[at]);
        match (found, region) {
            (Some(at), Some(region)) if region.live && address + u64::from(bytes) <= region.end => return Ok(at),
            _ => {}
        }
        let place = context.site(site as usize);
        let verb = if access.writes { "writes" } else { "reads" };
        let what = format!("{place}: {verb} {bytes} bytes at {}", view.describe(address));
        let kind = match region {
            Some(region) if !region.live => Kind::UseAfterFree,
            _ => Kind::OutOfBounds,
        };
        context.finding(kind, self.thread(lane), what)
    }

    /// Notes an access to device memory; the record that it races with.
    #[expect(clippy::too_many_arguments, reason = "the facts of one access")]
    fn note_global(
        &self,
        context: &Context<'_>,
        region: usize,
        address: u64,
        bytes: u32,
        lane: usize,
        site: u16,
        access: Access,
    ) -> Option<(Record, bool)> {
        let races = context.run.races.as_ref()?;
        let place = context.run.view.regions.get(region)?;
        let (start, count) = ((address - place.start) as usize, bytes as usize);
        let words = ((place.end - place.start) as usize).div_ceil(4);
        let (thread, clock) = (self.thread(lane), context.clocks.of(self.index));
        let mut found = None;
        for word in start / 4..(start + count).div_ceil(4) {
            let (low, high) = (start.max(4 * word) - 4 * word, (start + count).min(4 * word + 4) - 4 * word);
            let mask = ((1u32 << high) - (1 << low)) as u8;
            let record = Record::new(u64::from(context.linear), thread, site, clock, mask, access.atomic);
            found = found.or(races.access(region, words, word, record, access.writes, &context.clocks));
        }
        found
    }

    /// `ldmatrix`: rows of 16 bytes, their addresses in the lanes 0 to 7 for the first matrix and so on. Lane l receives
    /// elements 2 (l % 4) and the next of row l / 4, or of column l / 4 if transposed.
    fn load_matrix(&mut self, instruction: &Instruction, active: u32, context: &mut Context<'_>) -> Checked<Flow> {
        let Op::LoadMatrix {
            address,
            transposed,
            to,
            site,
        } = &instruction.op
        else {
            return Ok(Flow::Next);
        };
        if let Some(flow) = self.gather(instruction, None, active, context)? {
            return Ok(flow);
        }
        context.clocks.synchronize_warp(self.index);
        let addresses = self.addresses(*address);
        let rows = u32::MAX >> (32 - 8 * to.len() as u32);
        self.check_shared(context, &addresses, 16, 16, rows, *site, false)?;
        self.note_shared(context, &addresses, 16, rows, *site, Access::READ, &instruction.op)?;
        context.clocks.synchronize_warp(self.index);
        context.counts.matrix(*site, &addresses, to.len(), context.run.settings.counters);
        for (matrix, to) in to.iter().enumerate() {
            let element = |row: usize, column: usize| {
                let start = addresses[8 * matrix + row] as usize + 2 * column;
                read_bytes(&context.shared.bytes, start, 2)
            };
            let out = std::array::from_fn(|lane| {
                let (line, first) = (lane / 4, 2 * (lane % 4));
                let at = |offset: usize| {
                    if *transposed { element(first + offset, line) } else { element(line, first + offset) }
                };
                at(0) | at(1) << 16
            });
            self.write(*to, &out, active);
        }
        Ok(Flow::Next)
    }
}
