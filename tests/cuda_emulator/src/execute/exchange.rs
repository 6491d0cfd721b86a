//! What the lanes of a warp do together: shuffles, votes, matches, reductions and matrix products.
//!
//! Such an instruction runs when all lanes that its mask names stand at it. A mask that names a lane that has exited, or
//! not the lane that gives it, is a mistake.

use super::check::Context;
use super::warp::{Flow, Warp};
use crate::finding::{Checked, Kind};
use crate::ptx::{Instruction, Op, Register, ShuffleKind, VoteKind};
use crate::rows::{LANES, Row, lanes};

impl Warp {
    /// Runs an instruction of the classes warp and matrix.
    pub fn exchange(&mut self, instruction: &Instruction, active: u32, context: &mut Context<'_>) -> Checked<Flow> {
        let members = match &instruction.op {
            Op::WarpSync { members }
            | Op::Shuffle { members, .. }
            | Op::Vote { members, .. }
            | Op::Match { members, .. }
            | Op::Reduce { members, .. } => Some(*members),
            Op::ActiveMask { to } => {
                self.write(*to, &[u64::from(active); LANES], active);
                return Ok(Flow::Next);
            }
            _ => None, // .aligned: all lanes
        };
        if let Some(flow) = self.gather(instruction, members, active, context)? {
            return Ok(flow);
        }
        context.clocks.synchronize_warp(self.index);
        match &instruction.op {
            Op::Shuffle {
                kind, to, found, from, ..
            } => self.shuffle(*kind, *to, *found, *from, active, instruction, context)?,
            Op::Vote { kind, to, from, .. } => {
                let (votes, all) = (self.guarded(*from) & active, active);
                let result = match kind {
                    VoteKind::Ballot => {
                        self.write(*to, &[u64::from(votes); LANES], active);
                        return Ok(Flow::Next);
                    }
                    VoteKind::All => votes == all,
                    VoteKind::Any => votes != 0,
                    VoteKind::Uniform => votes == 0 || votes == all,
                };
                self.write_predicate(*to, if result { u32::MAX } else { 0 }, active);
            }
            Op::Match {
                all, to, same, from, ..
            } => {
                let row = self.registers[*from as usize];
                let equal = |lane: usize| {
                    let others = lanes(active).filter(|other| row[*other] == row[lane]);
                    others.fold(0u32, |mask, other| mask | 1 << other)
                };
                let mut masks: Row = std::array::from_fn(|lane| u64::from(equal(lane)));
                if *all {
                    let agreed = lanes(active).all(|lane| masks[lane] as u32 == active);
                    masks = [if agreed { u64::from(active) } else { 0 }; LANES];
                    if let Some(same) = same {
                        self.write_predicate(*same, if agreed { u32::MAX } else { 0 }, active);
                    }
                }
                self.write(*to, &masks, active);
            }
            Op::Reduce { function, to, from, .. } => {
                let row = self.registers[*from as usize];
                let value = lanes(active).map(|lane| row[lane]).reduce(*function).unwrap_or(0);
                self.write(*to, &[value; LANES], active);
            }
            Op::Multiply { kind, d, a, b, c } => super::matrix::multiply(&mut self.registers, *kind, d, a, b, c),
            _ => {} // bar.warp.sync has nothing else to do
        }
        Ok(Flow::Next)
    }

    /// Whether the lanes that must take part all stand here; otherwise what to do about it.
    pub fn gather(
        &self,
        instruction: &Instruction,
        members: Option<Register>,
        active: u32,
        context: &Context<'_>,
    ) -> Checked<Option<Flow>> {
        let row = members.map(|register| &self.registers[register as usize]);
        let mask_of = |lane: usize| row.map_or(u32::MAX, |row| row[lane] as u32) & self.all;
        let first = mask_of(active.trailing_zeros() as usize);
        let mut missing = 0;
        let mut complete = None;
        for lane in lanes(active) {
            let mask = mask_of(lane);
            if mask >> lane & 1 == 0 {
                let place = context.place(instruction.place);
                let what = format!("{place}: the mask {mask:#010x} does not name the lane {lane} that gives it");
                return context.finding(Kind::WarpMask, self.thread(lane), what);
            }
            if mask & self.exited != 0 {
                return self.exited_lanes(context, instruction.place, lane, mask);
            }
            missing |= mask & !active;
            if mask & !active == 0 && (mask != active || complete.is_some()) {
                complete = complete.or(Some(mask));
            }
        }
        let uniform = lanes(active).all(|lane| mask_of(lane) == first);
        match complete {
            _ if uniform && first == active => Ok(None),
            Some(mask) => {
                let named = |lane: &usize| mask_of(*lane) == mask;
                let some = lanes(active).filter(named).fold(0, |some, lane| some | 1 << lane);
                if some == active {
                    Ok(None)
                } else {
                    Ok(Some(Flow::Only(some)))
                }
            }
            None => Ok(Some(Flow::Gather(missing | active))),
        }
    }

    fn exited_lanes<T>(&self, context: &Context<'_>, place: u32, lane: usize, mask: u32) -> Checked<T> {
        let gone = mask & self.exited;
        let place = context.place(place);
        let what = format!("{place}: the mask {mask:#010x} names lanes that have exited ({gone:#010x})");
        context.finding(Kind::WarpMask, self.thread(lane), what)
    }

    /// A group waits for lanes that have exited since.
    pub fn mask_names_exited<T>(&self, context: &Context<'_>, pc: u32, group: u32, members: u32) -> Checked<T> {
        let place = context.run.kernel.code[pc as usize].place;
        self.exited_lanes(context, place, group.trailing_zeros() as usize, members)
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of one instruction")]
    fn shuffle(
        &mut self,
        kind: ShuffleKind,
        to: Register,
        found: Option<Register>,
        from: [Register; 3],
        active: u32,
        instruction: &Instruction,
        context: &Context<'_>,
    ) -> Checked<()> {
        let [values, amounts, bounds] = from.map(|register| self.registers[register as usize]);
        let (mut out, mut in_range) = ([0; LANES], 0u32);
        for lane in lanes(active) {
            let (amount, bound) = (amounts[lane] as usize & 31, bounds[lane] as usize);
            let (clamp, segment) = (bound & 31, (bound >> 8) & 31);
            // The highest lane of the segment, or for up the lowest.
            let limit = (lane & segment) | (clamp & !segment);
            let source = match kind {
                ShuffleKind::Up => lane.checked_sub(amount).filter(|source| *source >= limit),
                ShuffleKind::Down => Some(lane + amount).filter(|source| *source <= limit),
                ShuffleKind::Butterfly => Some(lane ^ amount).filter(|source| *source <= limit),
                ShuffleKind::Index => Some((lane & segment) | (amount & !segment)).filter(|source| *source <= limit),
            };
            in_range |= u32::from(source.is_some()) << lane;
            let source = source.unwrap_or(lane);
            if active >> source & 1 == 0 {
                let place = context.place(instruction.place);
                let what = format!("{place}: lane {lane} takes a value from lane {source}, which does not take part");
                return context.finding(Kind::WarpMask, self.thread(lane), what);
            }
            out[lane] = values[source] & 0xffff_ffff;
        }
        self.write(to, &out, active);
        if let Some(found) = found {
            self.write_predicate(found, in_range, active);
        }
        Ok(())
    }
}
