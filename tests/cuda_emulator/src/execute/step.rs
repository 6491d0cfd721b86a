//! Instructions that are neither computations nor jumps: comparisons, selections, special registers and the like; memory
//! and exchanges are passed on.

use super::check::Context;
use super::warp::{Flow, Warp};
use crate::finding::{Checked, Kind};
use crate::ptx::{Class, Instruction, Op, Special};
use crate::rows::{LANES, Row};

impl Warp {
    /// An instruction that is neither a computation nor a jump.
    pub(super) fn execute(
        &mut self,
        instruction: &Instruction,
        active: u32,
        context: &mut Context<'_>,
    ) -> Checked<Flow> {
        match &instruction.op {
            Op::Carry {
                function,
                reads,
                writes,
                to,
                from,
            } => {
                let [a, b, c] = from.map(|register| self.registers[register as usize]);
                let (mut out, mut carries) = ([0; LANES], 0);
                for lane in 0..LANES {
                    let carry = *reads && self.carry >> lane & 1 == 1;
                    let (value, carried) = function(a[lane], b[lane], c[lane], carry);
                    out[lane] = value;
                    carries |= u32::from(carried) << lane;
                }
                self.write(*to, &out, active);
                if *writes {
                    self.carry = (self.carry & !active) | (carries & active);
                }
            }
            Op::Special { special, to } => {
                let row = self.special(*special, context);
                self.write(*to, &row, active);
            }
            Op::Compare {
                function,
                to,
                opposite,
                from,
                combine,
            } => {
                let [a, b] = from.map(|register| &self.registers[register as usize]);
                let found = function(a, b);
                let combined = |value: u32| match combine {
                    Some((logic, with)) => logic.apply(value, self.guarded(*with)),
                    None => value,
                };
                let (yes, no) = (combined(found), combined(!found));
                if let Some(to) = to {
                    self.write_predicate(*to, yes, active);
                }
                if let Some(to) = opposite {
                    self.write_predicate(*to, no, active);
                }
            }
            Op::Select { to, from, predicate } => {
                let [yes, no] = from.map(|register| &self.registers[register as usize]);
                let mask = self.guarded(*predicate);
                let mut out = [0; LANES];
                for lane in 0..LANES {
                    out[lane] = if mask >> lane & 1 == 1 { yes[lane] } else { no[lane] };
                }
                self.write(*to, &out, active);
            }
            Op::Predicate {
                logic,
                negated,
                to,
                from,
            } => {
                let value = logic.apply(self.guarded(from[0]), self.guarded(from[1]));
                self.write_predicate(*to, if *negated { !value } else { value }, active);
            }
            Op::Pack { to, parts, bits } => {
                let mut out = [0; LANES];
                for (at, part) in (0..).zip(parts) {
                    let mask = u64::MAX >> (64 - bits);
                    for (out, value) in out.iter_mut().zip(&self.registers[*part as usize]) {
                        *out |= (value & mask) << (at * bits);
                    }
                }
                self.write(*to, &out, active);
            }
            Op::Unpack { parts, bits, from } => {
                let row = self.registers[*from as usize];
                for (at, part) in (0..).zip(parts) {
                    if let Some(to) = part {
                        let out = row.map(|value| (value >> (at * bits)) & (u64::MAX >> (64 - bits)));
                        self.write(*to, &out, active);
                    }
                }
            }
            Op::Parameter {
                to,
                offset,
                bytes,
                sign_bits,
            } => {
                let value = super::access::read_bytes(&context.run.launch.parameters, *offset as usize, *bytes);
                let value = super::access::sign_extended(value, *bytes, *sign_bits);
                self.write(*to, &[value; LANES], active);
            }
            Op::Trap => {
                let thread = self.thread(active.trailing_zeros() as usize);
                return context.finding(Kind::Trap, thread, context.place(instruction.place));
            }
            _ => match instruction.class {
                Class::Warp | Class::Matrix => return self.exchange(instruction, active, context),
                _ => return self.access(instruction, active, context),
            },
        }
        Ok(Flow::Next)
    }

    fn special(&self, special: Special, context: &Context<'_>) -> Row {
        let run = context.run;
        let launch = run.launch;
        let every = |value: u32| [u64::from(value); LANES];
        let by_lane = |f: &dyn Fn(u32) -> u32| std::array::from_fn(|lane| u64::from(f(lane as u32)));
        match special {
            Special::Thread(at) => by_lane(&|lane| run.thread_index(self.thread(lane as usize))[at]),
            Special::BlockSize(at) => every(launch.block[at]),
            Special::Block(at) => every(context.index[at]),
            Special::GridSize(at) => every(launch.grid[at]),
            Special::Lane => by_lane(&|lane| lane),
            Special::Warp => every(self.index as u32),
            Special::Warps => every(run.threads.div_ceil(LANES as u32)),
            Special::LaneMask(f) => by_lane(&f),
            Special::Clock => [context.now; LANES],
            Special::Multiprocessor => every(context.linear % crate::driver::MULTIPROCESSORS),
            Special::Multiprocessors => every(crate::driver::MULTIPROCESSORS),
            Special::DynamicShared => every(launch.dynamic_shared),
            Special::TotalShared => every(run.shared_bytes),
        }
    }
}
