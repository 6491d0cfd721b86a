//! A plan as text: every launch with sizes, FLOPs, bytes and places, and where the memory goes.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::{Home, Launch, Plan, Space, Value, reads};
use crate::kernel::{Access, Cost, Sizes, StepParams};

/// Memory of a plan's arena.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryReport {
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// Lower bound of any placement, bytes.
    pub lower_bound_bytes: u64,
    /// Bytes of the values that are dropped after the forward and computed again.
    pub recomputed_bytes: u64,
    /// Bytes of one step's upload.
    pub input_bytes: u64,
    /// The largest values: label and bytes.
    pub largest: Vec<(String, u64)>,
}

impl Launch {
    /// Work of the launch, at capacity or at a step's live counts.
    pub fn cost(&self, step: Option<&StepParams>) -> Cost {
        (self.kernel.cost)(&Sizes::new(&self.dims, step))
    }
}

impl Plan {
    /// Work of all launches, at capacity or at a step's live counts.
    pub fn cost(&self, step: Option<&StepParams>) -> Cost {
        total(self.launches.iter(), step)
    }

    /// The part of [`Plan::cost`] that repeats work of the forward, see [`Recorder::recomputed`](super::Recorder).
    pub fn recomputed_cost(&self, step: Option<&StepParams>) -> Cost {
        total(self.launches.iter().filter(|launch| launch.recomputed), step)
    }

    /// Where the arena's memory goes.
    pub fn memory(&self) -> MemoryReport {
        let arena = |index: &usize| self.places[*index].space == Space::Arena && self.values[*index].words() > 0;
        let base = |index: &usize| !matches!(self.values[*index].home, Home::View(..));
        let mut indices: Vec<usize> = (0..self.values.len()).filter(arena).filter(base).collect();
        indices.sort_by_key(|&index| std::cmp::Reverse(self.values[index].words()));
        let entry = |&index: &usize| (self.values[index].label.clone(), 4 * self.values[index].words() as u64);
        MemoryReport {
            arena_bytes: 4 * self.arena_words as u64,
            lower_bound_bytes: 4 * self.arena_lower_bound as u64,
            recomputed_bytes: 4 * self.recomputed_words() as u64,
            input_bytes: 4 * self.input_words() as u64,
            largest: indices.iter().take(10).map(entry).collect(),
        }
    }

    /// Words of the distinct values that recomputed launches write.
    fn recomputed_words(&self) -> usize {
        let mut seen = HashSet::new();
        for launch in self.launches.iter().filter(|launch| launch.recomputed) {
            for (arg, value) in launch.kernel.args.iter().zip(&launch.values) {
                if arg.access != Access::In {
                    seen.insert(match self.value(*value).home {
                        Home::View(base, _) => base,
                        _ => *value,
                    });
                }
            }
        }
        seen.into_iter().map(|value| self.value(value).words()).sum()
    }

    /// The plan as a table: one launch a line.
    pub fn explain(&self) -> String {
        let mut text = format!(
            "plan {}: {} launches, {:.3} GFLOP at capacity, arena {} bytes (lower bound {})\n",
            self.name,
            self.launches.len(),
            self.cost(None).flops as f64 / 1e9,
            4 * self.arena_words,
            4 * self.arena_lower_bound
        );
        let again = self.launches.iter().filter(|launch| launch.recomputed).count();
        if again > 0 {
            let _ = writeln!(
                text,
                "recomputed: {again} of the launches, {:.3} of the GFLOP; {} bytes dropped after the forward",
                self.recomputed_cost(None).flops as f64 / 1e9,
                4 * self.recomputed_words()
            );
        }
        for (index, launch) in self.launches.iter().enumerate() {
            let cost = launch.cost(None);
            let mut sizes = String::new();
            for (symbol, extent) in launch.dims.extents() {
                let _ = write!(sizes, " {symbol}={extent}");
            }
            let mut bound = String::new();
            for (slot, (arg, &value)) in launch.kernel.args.iter().zip(&launch.values).enumerate() {
                let _ = write!(bound, " {}{}", arg.name, self.describe(launch, slot, value));
            }
            let _ = writeln!(
                text,
                "{index:4} {} {} |{sizes} | {:.3} GFLOP {:.3} MB |{bound}",
                launch.scope,
                launch.kernel.name,
                cost.flops as f64 / 1e9,
                (cost.read + cost.written) as f64 / 1e6
            );
        }
        text
    }

    fn describe(&self, launch: &Launch, slot: usize, value: Value) -> String {
        let place = self.place(value);
        let sign = match (
            reads(launch.kernel, &launch.dims, slot),
            launch.kernel.args[slot].access,
        ) {
            (_, Access::In) => ":",
            (true, _) => " += ",
            (false, _) => " = ",
        };
        format!("{sign}{:?}@{}", place.space, 4 * place.offset)
    }
}

fn total<'a>(launches: impl Iterator<Item = &'a Launch>, step: Option<&StepParams>) -> Cost {
    launches
        .map(|launch| launch.cost(step))
        .fold(Cost::default(), |sum, cost| sum + cost)
}
