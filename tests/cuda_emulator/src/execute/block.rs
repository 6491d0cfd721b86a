//! A block: its warps, and the barriers where they wait for each other.

use super::Run;
use super::check::{Clocks, Context};
use super::shared::Shared;
use super::warp::{Group, State, Warp};
use crate::counters::Counts;
use crate::finding::{Checked, Kind};
use crate::ptx::{BarrierKind, Op, Reduction};
use crate::rows::{LANES, lanes};

/// Threads that wait at, or have arrived at, a barrier.
#[derive(Default)]
struct Waiting {
    /// Warp and lanes, with the instruction where they wait; none where they have only arrived.
    parties: Vec<(usize, u32, Option<u32>)>,
    /// Threads that the barrier is for; none means all.
    threads: Option<u32>,
}

/// See the module.
pub struct Block<'a> {
    context: Context<'a>,
    warps: Vec<Warp>,
    /// Arrivals without waiting, by barrier.
    arrived: Vec<(u32, usize, u32)>,
}

impl<'a> Block<'a> {
    /// What runs blocks of a launch, one after the other.
    pub fn new(run: &'a Run<'a>) -> Block<'a> {
        let warps = (run.threads as usize).div_ceil(LANES);
        Block {
            context: Context {
                run,
                linear: 0,
                index: [0; 3],
                shared: Shared::new(run.shared_bytes, run.settings.checked),
                clocks: Clocks::new(warps),
                counts: Counts::new(run.kernel),
                hints: vec![0; run.kernel.sites.len()],
                steps: 0,
                now: 0,
                random: 1,
            },
            warps: (0..warps).map(|index| Warp::new(run, index)).collect(),
            arrived: Vec::new(),
        }
    }

    /// What was counted.
    pub fn into_counts(self) -> Counts {
        self.context.counts
    }

    /// Runs a block of the grid.
    pub fn run(&mut self, linear: u32) -> Checked<()> {
        let context = &mut self.context;
        context.linear = linear;
        context.index = context.run.block_index(u64::from(linear));
        context.shared.reset();
        context.clocks.reset();
        context.steps = 0;
        let seed = context.run.settings.seed;
        context.random = (seed ^ (u64::from(linear) << 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        context.counts.blocks += 1;
        for warp in &mut self.warps {
            warp.reset(context.run);
        }
        self.arrived.clear();
        loop {
            let mut ran = false;
            let first = if seed == 0 {
                0
            } else {
                self.context.random(self.warps.len())
            };
            for at in 0..self.warps.len() {
                let warp = (first + at) % self.warps.len();
                ran |= self.warps[warp].run(&mut self.context)?;
            }
            let released = self.release_barriers()?;
            if self.warps.iter().all(|warp| warp.groups.is_empty()) {
                return Ok(());
            }
            if !ran && !released {
                return self.deadlock();
            }
        }
    }

    /// Opens the barriers that are complete; whether there was one.
    fn release_barriers(&mut self) -> Checked<bool> {
        for (at, warp) in self.warps.iter_mut().enumerate() {
            for arrival in warp.arrivals.drain(..) {
                self.arrived.push((arrival.number, at, arrival.lanes));
            }
        }
        let numbers = self
            .warps
            .iter()
            .flat_map(|warp| &warp.groups)
            .filter_map(|group| match group.state {
                State::AtBarrier { number, .. } => Some(number),
                _ => None,
            });
        let mut numbers: Vec<u32> = numbers.collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut released = false;
        for number in numbers {
            let waiting = self.waiting(number);
            let count: u32 = waiting.parties.iter().map(|(_, lanes, _)| lanes.count_ones()).sum();
            let complete = match waiting.threads {
                Some(threads) => count >= threads,
                None => {
                    let exited: u32 = self.warps.iter().map(|warp| warp.exited.count_ones()).sum();
                    count + exited >= self.context.run.threads
                }
            };
            if complete {
                self.check_barrier(&waiting)?;
                self.release(number, &waiting);
                released = true;
            }
        }
        Ok(released)
    }

    fn waiting(&self, number: u32) -> Waiting {
        let mut waiting = Waiting::default();
        for (at, warp) in self.warps.iter().enumerate() {
            for group in &warp.groups {
                if let State::AtBarrier { number: other, threads } = group.state
                    && other == number
                {
                    waiting.parties.push((at, group.lanes, Some(group.pc)));
                    waiting.threads = threads;
                }
            }
        }
        let arrived = self.arrived.iter().filter(|(other, ..)| *other == number);
        waiting
            .parties
            .extend(arrived.map(|(_, warp, lanes)| (*warp, *lanes, None)));
        waiting
    }

    /// All threads of the block must be at the barrier, and at the same one.
    fn check_barrier(&self, waiting: &Waiting) -> Checked<()> {
        if waiting.threads.is_some() {
            return Ok(());
        }
        let Some((warp, lanes, Some(pc))) = waiting.parties.iter().find(|(_, _, pc)| pc.is_some()) else {
            return Ok(());
        };
        let here = self.place(*pc);
        let thread = self.warps[*warp].thread(lanes.trailing_zeros() as usize);
        if let Some(gone) = self.warps.iter().find(|warp| warp.exited != 0) {
            let other = gone.thread(gone.exited.trailing_zeros() as usize);
            let what = format!("{here}: thread {thread} waits, thread {other} has exited");
            return self.context.finding(Kind::DivergentBarrier, thread, what);
        }
        for (other, lanes, other_pc) in &waiting.parties {
            if let Some(other_pc) = other_pc
                && other_pc != pc
            {
                let other = self.warps[*other].thread(lanes.trailing_zeros() as usize);
                let there = self.place(*other_pc);
                let what = format!("{here}: thread {thread} waits, thread {other} waits at another barrier, {there}");
                return self.context.finding(Kind::DivergentBarrier, thread, what);
            }
        }
        Ok(())
    }

    fn place(&self, pc: u32) -> String {
        self.context.place(self.context.run.kernel.code[pc as usize].place)
    }

    fn release(&mut self, number: u32, waiting: &Waiting) {
        let mut arrived: Vec<usize> = waiting.parties.iter().map(|(warp, ..)| *warp).collect();
        arrived.sort_unstable();
        arrived.dedup();
        let waited = waiting.parties.iter().filter(|(_, _, pc)| pc.is_some());
        let mut waited: Vec<usize> = waited.map(|(warp, ..)| *warp).collect();
        waited.sort_unstable();
        waited.dedup();
        self.context.clocks.synchronize(&arrived, &waited);
        self.arrived.retain(|(other, ..)| *other != number);
        self.reduce(waiting);
        for warp in &mut self.warps {
            let is_here =
                |group: &Group| matches!(group.state, State::AtBarrier { number: other, .. } if other == number);
            let here: Vec<Group> = warp.groups.iter().filter(|group| is_here(group)).copied().collect();
            warp.groups.retain(|group| !is_here(group));
            for group in here {
                warp.join(group.pc + 1, group.lanes);
            }
        }
    }

    /// The reductions of `bar.red`.
    fn reduce(&mut self, waiting: &Waiting) {
        let code = &self.context.run.kernel.code;
        let barrier = |pc: u32| match &code[pc as usize].op {
            Op::Barrier {
                kind:
                    BarrierKind::Reduce {
                        reduction,
                        source,
                        destination,
                    },
                count,
                ..
            } => Some((*reduction, *source, *destination, *count)),
            _ => None,
        };
        let (mut voted, mut total) = (0, 0);
        for (warp, lanes, pc) in &waiting.parties {
            if let Some((_, source, ..)) = pc.and_then(barrier) {
                voted += (self.warps[*warp].guarded(source) & lanes).count_ones();
            }
            total += lanes.count_ones();
        }
        for (warp, lanes, pc) in &waiting.parties {
            let Some((reduction, _, to, count)) = pc.and_then(barrier) else {
                continue;
            };
            let warp = &mut self.warps[*warp];
            if count {
                warp.write(to, &[u64::from(voted); LANES], *lanes);
                continue;
            }
            let result = match reduction {
                Reduction::All => voted == total,
                Reduction::Any => voted > 0,
                Reduction::Count => false, // goes to a register
            };
            warp.write_predicate(to, if result { u32::MAX } else { 0 }, *lanes);
        }
    }

    fn deadlock<T>(&self) -> Checked<T> {
        let mut who = Vec::new();
        let mut first = None;
        for warp in &self.warps {
            for group in &warp.groups {
                let threads: Vec<u32> = lanes(group.lanes).map(|lane| warp.thread(lane)).collect();
                let (from, to) = (threads[0], threads[threads.len() - 1]);
                first = first.or(Some(from));
                let what = match group.state {
                    State::AtBarrier {
                        number,
                        threads: Some(threads),
                    } => format!("at barrier {number} for {threads} threads"),
                    State::AtBarrier { number, .. } => format!("at barrier {number} for all threads"),
                    State::Gathering { members } => format!("for the lanes {members:#010x} of their warp"),
                    State::Ready => "for nothing".to_string(),
                };
                let place = self.place(group.pc);
                who.push(format!(
                    "{place}: {} threads ({from} to {to}) wait {what}",
                    threads.len()
                ));
            }
        }
        who.dedup();
        who.truncate(8);
        self.context.finding(Kind::Deadlock, first.unwrap_or(0), who.join(", "))
    }
}
