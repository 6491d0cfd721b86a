//! Lifetimes of the values, their places, and the finished plan.

use super::{Recorder, Space, ValueInfo};
use crate::plan::arena::{self, Lifetime};
use crate::plan::{Home, Place, Plan};

impl Recorder<'_> {
    /// Places the values and returns the finished plan.
    pub fn finish(self) -> Plan {
        let mut lives: Vec<Option<Lifetime>> = vec![None; self.values.len()];
        for (index, launch) in self.launches.iter().enumerate() {
            for &value in &launch.values {
                let base = self.base(value);
                let info = self.info(base);
                if info.home == Home::Arena {
                    let life = Lifetime {
                        words: info.words(),
                        first: index,
                        last: index,
                    };
                    let life = lives[base.0 as usize].get_or_insert(life);
                    life.last = if info.keep { self.launches.len() } else { index };
                }
            }
        }
        let alive: Vec<usize> = (0..lives.len()).filter(|&index| lives[index].is_some()).collect();
        let lifetimes: Vec<Lifetime> = alive.iter().filter_map(|&index| lives[index]).collect();
        let (offsets, arena_words) = arena::place(&lifetimes, self.limits.buffer);
        let mut starts = vec![0; self.values.len()];
        for (&index, &offset) in alive.iter().zip(&offsets) {
            starts[index] = offset;
        }
        let place = |info: &ValueInfo, index: usize| match info.home {
            Home::Arena => Place {
                space: Space::Arena,
                offset: starts[index],
                words: info.words(),
            },
            Home::At(space, offset) => Place {
                space,
                offset,
                words: info.words(),
            },
            Home::View(base, offset) => Place {
                space: Space::Arena,
                offset: starts[base.0 as usize] + offset,
                words: info.words(),
            },
        };
        let places = self
            .values
            .iter()
            .enumerate()
            .map(|(index, info)| place(info, index))
            .collect();
        Plan {
            name: self.plan,
            launches: self.launches,
            inputs: self.inputs,
            outputs: self.outputs,
            arena_words,
            arena_lower_bound: arena::lower_bound(&lifetimes),
            precision: self.precision,
            values: self.values,
            places,
        }
    }
}
