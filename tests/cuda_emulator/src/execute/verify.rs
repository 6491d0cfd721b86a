//! What is checked before an access: alignment, bounds, validity and races.

use super::access::Access;
use super::check::Context;
use super::races::Record;
use super::shared::{SharedRecord, State};
use super::warp::Warp;
use crate::finding::{Checked, Kind};
use crate::ptx::{Op, Register};
use crate::rows::{LANES, Row, lanes};

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
    fn misaligned<T>(&self, context: &Context<'_>, lane: usize, address: u64, bytes: u32, site: u16) -> Checked<T> {
        let place = context.site(site as usize);
        let what = format!("{place}: {bytes} bytes at address {address:#x}, which is no multiple of {bytes}");
        context.finding(Kind::Misaligned, self.thread(lane), what)
    }

    pub(super) fn check_local(
        &self,
        context: &Context<'_>,
        addresses: &Row,
        bytes: u32,
        active: u32,
        site: u16,
    ) -> Checked<()> {
        let size = (self.local.len() / LANES) as u64;
        for lane in lanes(active) {
            let address = addresses[lane];
            if !address.is_multiple_of(u64::from(bytes)) {
                return self.misaligned(context, lane, address, bytes, site);
            }
            if address.saturating_add(u64::from(bytes)) > size {
                let place = context.site(site as usize);
                let what = format!(
                    "{place}: {bytes} bytes at byte {} of {size} bytes of local memory",
                    address as i64
                );
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
                let what = format!(
                    "{place}: {verb} {bytes} bytes at byte {} of {size} bytes of shared memory",
                    address as i32
                );
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
    pub(super) fn note_shared(
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
            let (low, high) = (
                start.max(4 * word) - 4 * word,
                (start + count).min(4 * word + 4) - 4 * word,
            );
            let mask = ((1u32 << high) - (1 << low)) as u8;
            let record = Record::new(u64::from(context.linear), thread, site, clock, mask, access.atomic);
            found = found.or(races.access(region, words, word, record, access.writes, &context.clocks));
        }
        found
    }
}
