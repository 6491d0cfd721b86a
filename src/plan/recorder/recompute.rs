//! Recomputed regions: less memory for more work.
//!
//! ```text
//! kept          forward A B C ..... backward C' B' A'                  every value that a backward reads lives from here to there
//! recomputed    forward A B C ..... forward A B C, backward C' B' A'   only what enters the region lives that long
//! ```
//!
//! The launches of the region are recorded a second time, right before its backward: the same kernels, sizes and
//! constants, dropout's op ids among them, on copies of the values that the region made. The backward's closures still
//! name the first values and [`launch`](Recorder::launch) puts the copies in their place. So the bits are the
//! same, and the lifetimes, which follow from the launches, end with the region's forward.

use std::ops::Range;

use super::gradients::Entry;
use super::{Launch, PlanError, Recorder, Value};
use crate::plan::{Home, ValueInfo};

impl<'p> Recorder<'p> {
    /// Runs `body` inside a named scope, as [`Recorder::scope`]; what it computes is dropped after the forward and computed
    /// again before its backward. A plan without a backward is not changed by it.
    ///
    /// # Errors
    /// Those of `body`; [`PlanError::Unsupported`] inside another region. Inside the region: [`PlanError::Region`] for a
    /// launch that writes a value from outside (it would be written twice) and for an op that begins a backward. From
    /// [`Recorder::differentiate`]: [`PlanError::Overwritten`] if something that the region reads was overwritten after it.
    pub fn recomputed<T>(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut Recorder<'p>) -> Result<T, PlanError>,
    ) -> Result<T, PlanError> {
        if self.region.is_some() {
            return Err(self.unsupported(format!("recomputed region `{name}` inside another one")));
        }
        let (first, launches) = (Value(self.values.len() as u32), self.launches.len());
        self.region = Some(first);
        let result = self.scope(name, body);
        self.region = None;
        let result = result?;
        let (end, range) = (Value(self.values.len() as u32), launches..self.launches.len());
        self.tape.push(Entry {
            scope: format!("{}/{name}", self.path()),
            launches: range.end,
            backward: Box::new(move |r| r.recompute(first..end, range)),
        });
        Ok(result)
    }

    /// Records the region's launches once more. Its values are those of `made` that live in the arena.
    fn recompute(&mut self, made: Range<Value>, launches: Range<usize>) -> Result<(), PlanError> {
        self.copies.clear();
        let region: Vec<Launch> = self.launches[launches].to_vec();
        let reached = |value: &Value| made.contains(value) && self.gradients.contains_key(value);
        if !region.iter().flat_map(|launch| &launch.values).any(reached) {
            return Ok(());
        }
        for launch in region {
            let values = launch.values.iter().map(|&value| self.copied(value, &made)).collect();
            let scope = format!("{}/recomputed", launch.scope);
            self.emit(Launch {
                values,
                scope,
                recomputed: true,
                ..launch
            })?;
        }
        Ok(())
    }

    /// What a backward means by `value`: the copy, if the value belongs to the region whose backward is being recorded.
    pub(super) fn current(&self, value: Value) -> Value {
        self.copies.get(&value).copied().unwrap_or(value)
    }

    /// The copy of a value that the region made, new or known; any other value itself.
    fn copied(&mut self, value: Value, made: &Range<Value>) -> Value {
        let home = match self.info(value).home {
            Home::At(..) => return value,
            _ if !made.contains(&self.base(value)) => return value,
            Home::Arena => Home::Arena,
            Home::View(base, offset) => Home::View(self.copied(base, made), offset),
        };
        if let Some(&copy) = self.copies.get(&value) {
            return copy;
        }
        let info = self.info(value);
        let label = format!("{} (recomputed)", info.label);
        let copy = ValueInfo::new(label, info.rows, info.width, info.dtype, home);
        let copy = self.push(copy);
        self.copies.insert(value, copy);
        copy
    }
}
