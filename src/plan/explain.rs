//! A plan as text: every launch with sizes, FLOPs, bytes and places, and where the memory goes.

use std::fmt::Write as _;

use super::{Plan, Space, Value, reads};
use crate::kernel::{Cost, Sizes, StepParams};

/// Memory of a plan's arena.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryReport {
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// Lower bound of any placement, bytes.
    pub lower_bound_bytes: u64,
    /// Bytes of one step's upload.
    pub input_bytes: u64,
    /// The largest values: label and bytes.
    pub largest: Vec<(String, u64)>,
}

impl Plan {
    /// Work of all launches, at capacity or at a step's live counts.
    pub fn cost(&self, step: Option<&StepParams>) -> Cost {
        let cost = |launch: &super::Launch| (launch.kernel.cost)(&Sizes::new(&launch.dims, step));
        self.launches
            .iter()
            .map(cost)
            .fold(Cost::default(), |sum, cost| sum + cost)
    }

    /// Where the arena's memory goes.
    pub fn memory(&self) -> MemoryReport {
        let arena = |index: &usize| self.places[*index].space == Space::Arena && self.values[*index].words() > 0;
        let base = |index: &usize| !matches!(self.values[*index].home, super::Home::View(..));
        let mut indices: Vec<usize> = (0..self.values.len()).filter(arena).filter(base).collect();
        indices.sort_by_key(|&index| std::cmp::Reverse(self.values[index].words()));
        let entry = |&index: &usize| (self.values[index].label.clone(), 4 * self.values[index].words() as u64);
        MemoryReport {
            arena_bytes: 4 * self.arena_words as u64,
            lower_bound_bytes: 4 * self.arena_lower_bound as u64,
            input_bytes: 4 * self.input_words() as u64,
            largest: indices.iter().take(10).map(entry).collect(),
        }
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
        for (index, launch) in self.launches.iter().enumerate() {
            let cost = (launch.kernel.cost)(&Sizes::new(&launch.dims, None));
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

    fn describe(&self, launch: &super::Launch, slot: usize, value: Value) -> String {
        let place = self.place(value);
        let sign = match (
            reads(launch.kernel, &launch.dims, slot),
            launch.kernel.args[slot].access,
        ) {
            (_, crate::kernel::Access::In) => ":",
            (true, _) => " += ",
            (false, _) => " = ",
        };
        format!("{sign}{:?}@{}", place.space, 4 * place.offset)
    }
}
