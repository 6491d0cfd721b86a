//! Loads, stores and atomic operations, with their checks.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::check::Context;
use super::warp::{Flow, Warp};
use super::window;
use crate::finding::Checked;
use crate::ptx::{Address, AtomicKind, Instruction, Op, Space};
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
                self.check_global_access(
                    context,
                    addresses,
                    (bytes, &[bytes; LANES]),
                    active,
                    site,
                    access,
                    Some(op),
                )?;
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
        context
            .counts
            .matrix(*site, &addresses, to.len(), context.run.settings.counters);
        for (matrix, to) in to.iter().enumerate() {
            let element = |row: usize, column: usize| {
                let start = addresses[8 * matrix + row] as usize + 2 * column;
                read_bytes(&context.shared.bytes, start, 2)
            };
            let out = std::array::from_fn(|lane| {
                let (line, first) = (lane / 4, 2 * (lane % 4));
                let at = |offset: usize| {
                    if *transposed {
                        element(first + offset, line)
                    } else {
                        element(line, first + offset)
                    }
                };
                at(0) | at(1) << 16
            });
            self.write(*to, &out, active);
        }
        Ok(Flow::Next)
    }
}
