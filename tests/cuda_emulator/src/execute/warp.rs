//! A warp: 32 lanes that run in groups.

use super::Run;
use super::check::Context;
use super::copies::Copies;
use crate::finding::{Checked, Kind};
use crate::ptx::{BarrierKind, Guard, Instruction, Op, PredicateOperand, Register};
use crate::rows::{LANES, Row, lanes};

/// Instructions after which a group lets the others run, so that one that waits for another in a loop gets its way.
const PATIENCE: u32 = 50_000;

/// What a group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can run.
    Ready,
    /// It waits for lanes of its warp that its instruction names.
    Gathering {
        /// The lanes.
        members: u32,
    },
    /// It waits at a barrier.
    AtBarrier {
        /// Number of the barrier.
        number: u32,
        /// Threads that the barrier waits for; none means all.
        threads: Option<u32>,
    },
}

/// Lanes that stand at the same instruction.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Index of the instruction.
    pub pc: u32,
    /// The lanes.
    pub lanes: u32,
    /// What they do.
    pub state: State,
}

/// What comes after an instruction.
pub enum Flow {
    /// The next one.
    Next,
    /// The group waits at this instruction for lanes of the warp.
    Gather(u32),
    /// The group's lanes have different masks: only these, whose mask is complete, run the instruction.
    Only(u32),
}

/// A barrier that counted threads without having them wait.
pub struct Arrival {
    /// Number of the barrier.
    pub number: u32,
    /// The lanes.
    pub lanes: u32,
}

/// See the module.
pub struct Warp {
    /// Number within the block.
    pub index: usize,
    /// Lanes that exist.
    pub all: u32,
    /// Lanes that have exited.
    pub exited: u32,
    /// Registers.
    pub registers: Vec<Row>,
    /// Predicates, a bit per lane.
    pub predicates: Vec<u32>,
    /// Carry bits.
    pub carry: u32,
    /// Local memory, lane by lane.
    pub local: Vec<u8>,
    /// Groups; their lanes are disjoint.
    pub groups: Vec<Group>,
    /// Copies under way.
    pub copies: Copies,
    /// Arrivals at barriers that the block has not counted yet.
    pub arrivals: Vec<Arrival>,
}

impl Warp {
    /// A warp for blocks of a launch.
    pub fn new(run: &Run<'_>, index: usize) -> Warp {
        let kernel = run.kernel;
        let mut registers = vec![[0; LANES]; kernel.registers];
        for (register, value) in &run.constants {
            registers[*register as usize] = [*value; LANES];
        }
        let lanes = (run.threads as usize - index * LANES).min(LANES) as u32;
        Warp {
            index,
            all: u32::MAX >> (32 - lanes),
            exited: 0,
            registers,
            predicates: vec![0; kernel.predicates],
            carry: 0,
            local: vec![0xff; kernel.local_bytes as usize * LANES],
            groups: Vec::new(),
            copies: Copies::default(),
            arrivals: Vec::new(),
        }
    }

    /// As at the start of a block.
    pub fn reset(&mut self, run: &Run<'_>) {
        for row in &mut self.registers {
            *row = [0; LANES];
        }
        for (register, value) in &run.constants {
            self.registers[*register as usize] = [*value; LANES];
        }
        self.predicates.fill(0);
        self.carry = 0;
        self.local.fill(0xff);
        self.exited = 0;
        self.copies.clear();
        self.arrivals.clear();
        self.groups.clear();
        self.groups.push(Group {
            pc: 0,
            lanes: self.all,
            state: State::Ready,
        });
    }

    /// Number within the block of a lane's thread.
    pub fn thread(&self, lane: usize) -> u32 {
        (self.index * LANES + lane) as u32
    }

    /// Runs until no group can go on, or for a while; whether anything ran.
    pub fn run(&mut self, context: &mut Context<'_>) -> Checked<bool> {
        let (mut ran, start) = (false, context.steps);
        let mut impatient = None;
        while let Some(at) = self.choose(context, impatient) {
            ran = true;
            self.check_steps(context, self.groups[at])?;
            let (lanes, finished) = self.run_group(at, context)?;
            if context.steps - start > 4 * u64::from(PATIENCE) {
                return Ok(true); // other warps may have to go first
            }
            impatient = if finished { impatient } else { Some(lanes) };
        }
        for group in &self.groups {
            if let State::Gathering { members } = group.state
                && members & self.exited != 0
            {
                return self.mask_names_exited(context, group.pc, group.lanes, members);
            }
        }
        Ok(ran)
    }

    /// The group to run: the first in the text, or a random one; not the one that has run for long.
    fn choose(&self, context: &mut Context<'_>, not: Option<u32>) -> Option<usize> {
        let ready = |group: &Group| group.state == State::Ready && not.is_none_or(|lanes| group.lanes & lanes == 0);
        if self.groups.len() > 1 && context.run.settings.seed != 0 {
            let count = self.groups.iter().filter(|group| ready(group)).count();
            let chosen = context.random(count);
            let found = self
                .groups
                .iter()
                .enumerate()
                .filter(|(_, group)| ready(group))
                .nth(chosen);
            if let Some((at, _)) = found {
                return Some(at);
            }
        }
        let candidates = self.groups.iter().enumerate();
        let first = candidates
            .filter(|(_, group)| ready(group))
            .min_by_key(|(_, group)| group.pc);
        match first {
            Some((at, _)) => Some(at),
            None if not.is_some() => self.choose(context, None),
            None => None,
        }
    }

    /// Runs a group until it waits, ends, splits, meets another or has run for long; its lanes, and whether it did not
    /// run for long.
    fn run_group(&mut self, at: usize, context: &mut Context<'_>) -> Checked<(u32, bool)> {
        let Group { mut pc, lanes, .. } = self.groups.swap_remove(at);
        let code = &context.run.kernel.code[..];
        let counting = context.run.settings.counters;
        let mut stop = self.meeting_point(pc);
        let mut patience = PATIENCE;
        loop {
            if pc == stop {
                context.steps += u64::from(PATIENCE - patience);
                self.join(pc, lanes);
                return Ok((lanes, true));
            }
            let instruction = &code[pc as usize];
            let active = match instruction.guard {
                None => lanes,
                Some(guard) => lanes & self.guarded(guard),
            };
            context.counts.classes[instruction.class as usize] += u64::from(active.count_ones());
            if counting {
                context.counts.executed[pc as usize] += u64::from(active.count_ones());
            }
            patience -= 1;
            if patience == 0 {
                context.steps += u64::from(PATIENCE);
                self.join(pc, lanes);
                return Ok((lanes, false));
            }
            context.now = context.steps + u64::from(PATIENCE - patience);
            match &instruction.op {
                Op::Compute { function, to, from } => {
                    let mut out = [0; LANES];
                    let [a, b, c] = from.map(|register| &self.registers[register as usize]);
                    function(a, b, c, &mut out);
                    self.write(*to, &out, active);
                    pc += 1;
                }
                Op::Branch { target } => {
                    if active == lanes {
                        pc = *target;
                    } else if active == 0 {
                        pc += 1;
                    } else {
                        context.steps += u64::from(PATIENCE - patience);
                        self.join(*target, active);
                        self.join(pc + 1, lanes & !active);
                        return Ok((lanes, true));
                    }
                    stop = self.meeting_point(pc);
                }
                _ if active == 0 => pc += 1,
                Op::BranchIndexed { .. } | Op::Exit | Op::Barrier { .. } => {
                    context.steps += u64::from(PATIENCE - patience);
                    if active != lanes {
                        self.join(pc + 1, lanes & !active);
                    }
                    self.transfer(pc, active, instruction, context)?;
                    return Ok((lanes, true));
                }
                _ => match self.execute(instruction, active, context)? {
                    Flow::Next => pc += 1,
                    Flow::Gather(members) => {
                        context.steps += u64::from(PATIENCE - patience);
                        if active != lanes {
                            self.join(pc + 1, lanes & !active);
                        }
                        let state = State::Gathering { members };
                        self.groups.push(Group {
                            pc,
                            lanes: active,
                            state,
                        });
                        return Ok((lanes, true));
                    }
                    Flow::Only(some) => {
                        // The lanes of a mask that is complete go first; the others look again.
                        context.steps += u64::from(PATIENCE - patience);
                        self.execute(instruction, some, context)?;
                        self.join(pc + 1, (lanes & !active) | some);
                        self.join(pc, active & !some);
                        return Ok((lanes, true));
                    }
                },
            }
        }
    }

    /// A block that runs for too long is taken for one that does not end.
    fn check_steps(&self, context: &Context<'_>, group: Group) -> Checked<()> {
        let limit = context.run.settings.step_limit;
        if context.steps <= limit {
            return Ok(());
        }
        let place = context.place(context.run.kernel.code[group.pc as usize].place);
        let thread = self.thread(group.lanes.trailing_zeros() as usize);
        context.finding(
            Kind::Timeout,
            thread,
            format!("{place}: more than {limit} instructions of warps in a block"),
        )
    }

    /// The next instruction at or after `pc` where another group stands that this one can join.
    fn meeting_point(&self, pc: u32) -> u32 {
        if self.groups.is_empty() {
            return u32::MAX;
        }
        let joinable = self
            .groups
            .iter()
            .filter(|group| !matches!(group.state, State::AtBarrier { .. }));
        joinable
            .map(|group| group.pc)
            .filter(|other| *other >= pc)
            .min()
            .unwrap_or(u32::MAX)
    }

    /// Puts lanes at an instruction, with those that stand there.
    pub fn join(&mut self, pc: u32, lanes: u32) {
        if lanes == 0 {
            return;
        }
        let joinable = |group: &&mut Group| group.pc == pc && !matches!(group.state, State::AtBarrier { .. });
        match self.groups.iter_mut().find(joinable) {
            Some(group) => {
                group.lanes |= lanes;
                group.state = State::Ready;
            }
            None => self.groups.push(Group {
                pc,
                lanes,
                state: State::Ready,
            }),
        }
    }

    /// Jumps through tables, exits and barriers.
    fn transfer(&mut self, pc: u32, active: u32, instruction: &Instruction, context: &mut Context<'_>) -> Checked<()> {
        match &instruction.op {
            Op::BranchIndexed { index, targets } => {
                let row = self.registers[*index as usize];
                for lane in lanes(active) {
                    let Some(target) = targets.get(row[lane] as u32 as usize) else {
                        let place = context.place(instruction.place);
                        let what = format!("{place}: jump to entry {} of {}", row[lane] as u32, targets.len());
                        return context.finding(Kind::OutOfBounds, self.thread(lane), what);
                    };
                    self.join(*target, 1 << lane);
                }
            }
            Op::Barrier {
                kind, number, threads, ..
            } => {
                let lane = active.trailing_zeros() as usize;
                let value = |register: Register| self.registers[register as usize][lane] as u32;
                let (number, threads) = (value(*number), threads.map(value));
                if matches!(kind, BarrierKind::Arrive) {
                    self.arrivals.push(Arrival { number, lanes: active });
                    self.join(pc + 1, active);
                    return Ok(());
                }
                let state = State::AtBarrier { number, threads };
                match self
                    .groups
                    .iter_mut()
                    .find(|group| group.pc == pc && group.state == state)
                {
                    Some(group) => group.lanes |= active,
                    None => self.groups.push(Group {
                        pc,
                        lanes: active,
                        state,
                    }),
                }
            }
            _ => self.exited |= active,
        }
        Ok(())
    }

    /// Lanes where a predicate lets through.
    pub fn guarded(&self, guard: PredicateOperand) -> u32 {
        let Guard { predicate, negated } = guard;
        let mask = self.predicates[predicate as usize];
        if negated { !mask } else { mask }
    }

    /// Writes the lanes of a mask.
    pub fn write(&mut self, to: Register, row: &Row, mask: u32) {
        let target = &mut self.registers[to as usize];
        if mask == u32::MAX {
            *target = *row;
            return;
        }
        for lane in 0..LANES {
            let keep = (u64::from(mask >> lane) & 1).wrapping_sub(1);
            target[lane] = (target[lane] & keep) | (row[lane] & !keep);
        }
    }

    /// Writes the lanes of a mask to a predicate.
    pub fn write_predicate(&mut self, to: Register, value: u32, mask: u32) {
        let target = &mut self.predicates[to as usize];
        *target = (*target & !mask) | (value & mask);
    }
}
