//! Parameters, inputs, outputs, intermediate values and views of them.

use std::ops::Range;

use super::{PlanError, Port, Recorder, Space, Value, ValueInfo};
use crate::kernel::{Count, DType, Extent, StepParams};
use crate::plan::{ALIGN, Home, aligned};

impl<'p> Recorder<'p> {
    /// What a value is.
    pub fn info(&self, value: Value) -> &ValueInfo {
        &self.values[value.0 as usize]
    }

    /// A new intermediate value, stored in the plan's precision.
    pub fn value(&mut self, name: &str, rows: Extent, width: u32) -> Value {
        self.add(name, rows, width, self.precision.dtype(), Home::Arena)
    }

    /// A new intermediate value that is f32 in every plan: statistics, losses, partial sums.
    pub fn exact(&mut self, name: &str, rows: Extent, width: u32) -> Value {
        self.add(name, rows, width, DType::F32, Home::Arena)
    }

    /// A new intermediate value of unsigned integers.
    pub fn integers(&mut self, name: &str, rows: Extent, width: u32) -> Value {
        self.add(name, rows, width, DType::U32, Home::Arena)
    }

    /// A new intermediate value of the size and type of another.
    pub fn like(&mut self, name: &str, other: Value) -> Value {
        let info = self.info(other).clone();
        self.add(name, info.rows, info.width, info.dtype, Home::Arena)
    }

    /// A parameter as `rows x width`.
    ///
    /// # Errors
    /// [`PlanError::UnknownParameter`].
    pub fn param(&mut self, name: &str) -> Result<Value, PlanError> {
        self.joined(&[name])
    }

    /// Adjacent parameters of one width as one matrix with their rows stacked: query, key and value. Vectors (one row
    /// each) are joined to one longer vector.
    ///
    /// # Errors
    /// [`PlanError::UnknownParameter`], [`PlanError::NotAdjacent`].
    pub fn joined(&mut self, names: &[&str]) -> Result<Value, PlanError> {
        let mut found = Vec::new();
        for name in names {
            found.push(self.params.find(name).ok_or_else(|| PlanError::UnknownParameter {
                scope: self.path(),
                name: name.to_string(),
                known: self.params.iter().count(),
                nearest: self.params.nearest(name),
            })?);
        }
        let (first, start) = found[0];
        let adjacent = found.windows(2).all(|pair| {
            let ((a, at), (b, next)) = (pair[0], pair[1]);
            at + a.len() == next && a.width == b.width && a.vector == b.vector
        });
        if !adjacent {
            return Err(PlanError::NotAdjacent {
                scope: self.path(),
                names: names.join(", "),
            });
        }
        let rows: u32 = found.iter().map(|(spec, _)| spec.rows).sum();
        let (rows, width) = if first.vector {
            (1, rows * first.width)
        } else {
            (rows, first.width)
        };
        Ok(self.place_at(names[0], Space::Params, start, Extent::fixed(rows), width, DType::F32))
    }

    /// A parameter as products read it: its copy in the plan's precision, or itself where that is f32. Gradients belong to
    /// the parameter.
    ///
    /// # Panics
    /// If the parameter begins at an odd element: [`ParamTable`](crate::plan::ParamTable) aligns them.
    pub fn stored(&mut self, param: Value) -> Value {
        let info = self.info(param).clone();
        let (Home::At(Space::Params, offset), true) = (info.home, self.precision.has_shadow()) else {
            return param;
        };
        assert!(offset.is_multiple_of(2), "parameters are aligned");
        let dtype = self.precision.dtype();
        self.place_at(&info.label, Space::Shadow, offset / 2, info.rows, info.width, dtype)
    }

    /// The copies of a range of the parameters, which begins and ends with a whole number of words of them.
    pub fn shadow(&mut self, range: Range<usize>) -> Option<Value> {
        let (rows, width, dtype) = (Extent::fixed(1), range.len() as u32, self.precision.dtype());
        let has = self.precision.has_shadow();
        has.then(|| self.place_at("shadow", Space::Shadow, range.start / 2, rows, width, dtype))
    }

    /// Any fixed range of a buffer as a value that counts as written: the flat parameter buffer for AdamW.
    pub fn range(&mut self, name: &str, space: Space, range: Range<usize>) -> Value {
        let (rows, width) = (Extent::fixed(1), range.len() as u32);
        self.place_at(name, space, range.start, rows, width, DType::F32)
    }

    /// The same in pieces that a device can show to a launch, each a multiple of `unit` words but the last. A unit that is
    /// larger than the limit is a piece: no device can bind it, which is its to say.
    pub fn ranges(&mut self, name: &str, space: Space, range: Range<usize>, unit: usize) -> Vec<(Range<usize>, Value)> {
        let most = (self.limits.tensor / unit).max(1).saturating_mul(unit);
        let starts = range.clone().step_by(most);
        let pieces: Vec<Range<usize>> = starts
            .map(|start| start..start.saturating_add(most).min(range.end))
            .collect();
        pieces
            .into_iter()
            .map(|piece| (piece.clone(), self.range(name, space, piece)))
            .collect()
    }

    /// An input of the plan, part of the one upload per step. A name that was declared before is that input.
    pub fn input(&mut self, name: &'static str, rows: Extent, width: u32, dtype: DType) -> Value {
        let words = dtype.words(rows.capacity as usize * width as usize);
        if let Some(port) = self.inputs.iter().find(|port| port.name == name) {
            return self.by_place[&(Space::Inputs, port.offset)];
        }
        let offset = self
            .inputs
            .last()
            .map_or(aligned(StepParams::WORDS), |port| aligned(port.offset + port.words));
        self.inputs.push(Port { name, offset, words });
        self.place_at(name, Space::Inputs, offset, rows, width, dtype)
    }

    /// An input in the plan's precision that gradients flow to (tests of single ops).
    pub fn differentiable_input(&mut self, name: &'static str, rows: Extent, width: u32) -> Value {
        let value = self.input(name, rows, width, self.precision.dtype());
        let info = &mut self.values[value.0 as usize];
        (info.needs_gradient, info.has_backward) = (true, true);
        value
    }

    /// An f32 output of the plan, readable by the host after the run.
    pub fn output(&mut self, name: &'static str, rows: Extent, width: u32) -> Value {
        self.output_of(name, rows, width, DType::F32)
    }

    /// The same of elements of four bytes of another type.
    pub fn output_of(&mut self, name: &'static str, rows: Extent, width: u32, dtype: DType) -> Value {
        let words = rows.capacity as usize * width as usize;
        let offset = self.outputs.last().map_or(0, |port| aligned(port.offset + port.words));
        self.outputs.push(Port { name, offset, words });
        self.add(name, rows, width, dtype, Home::At(Space::Readback, offset))
    }

    /// Rows `start .. start + capacity` of a value, sharing its memory. Gradients do not flow through it: an op that works
    /// in parts takes views of its operand's whole gradient.
    ///
    /// # Panics
    /// If the rows are not all the value's, or begin in the middle of a word: a mistake in an op's record function.
    pub fn view(&mut self, value: Value, start: u32, capacity: u32) -> Value {
        let value = self.current(value);
        let info = self.info(value).clone();
        assert!(
            start <= info.rows.capacity && capacity <= info.rows.capacity - start,
            "a view stays inside its value"
        );
        let elements = start as usize * info.width as usize;
        let words = elements * info.dtype.bytes();
        assert!(words.is_multiple_of(4), "a view begins with a word");
        let offset = words / 4;
        let home = match info.home {
            Home::View(base, at) => Home::View(base, at + offset),
            Home::At(space, at) => Home::At(space, at + offset),
            Home::Arena => Home::View(value, offset),
        };
        let rows = match info.rows.count {
            Count::Fixed => Extent::fixed(capacity),
            count => Extent {
                count,
                start: info.rows.start + start,
                capacity,
            },
        };
        self.push(ValueInfo {
            label: format!("{}[{start}..]", info.label),
            rows,
            home,
            has_backward: false,
            ..info
        })
    }

    /// Rows of which a view's first one is a multiple, so that every device can bind it whatever its width.
    pub fn view_unit(&self) -> u32 {
        (4 * ALIGN / self.precision.dtype().bytes()) as u32
    }

    /// Keeps an intermediate value's memory until the end of the plan, so that the host can read it.
    pub fn keep(&mut self, value: Value) {
        let base = self.base(value);
        self.values[base.0 as usize].keep = true;
    }

    /// Keeps every value: no two share memory. Tests that look at what a launch left untouched need it.
    pub fn keep_everything(&mut self) {
        for info in &mut self.values {
            info.keep = true;
        }
    }

    fn place_at(&mut self, name: &str, space: Space, offset: usize, rows: Extent, width: u32, dtype: DType) -> Value {
        if let Some(&value) = self.by_place.get(&(space, offset)) {
            let info = self.info(value);
            if (info.rows, info.width, info.dtype) == (rows, width, dtype) {
                return value;
            }
        }
        let value = self.add(name, rows, width, dtype, Home::At(space, offset));
        let info = &mut self.values[value.0 as usize];
        info.written = true;
        (info.needs_gradient, info.has_backward) = (space == Space::Params, space == Space::Params);
        self.by_place.insert((space, offset), value);
        value
    }

    fn add(&mut self, name: &str, rows: Extent, width: u32, dtype: DType, home: Home) -> Value {
        let label = format!("{}/{name}", self.path());
        self.push(ValueInfo::new(label, rows, width, dtype, home))
    }

    pub(super) fn push(&mut self, info: ValueInfo) -> Value {
        self.values.push(info);
        Value(self.values.len() as u32 - 1)
    }

    /// The value whose memory `value` shows a part of, or `value` itself.
    pub(super) fn base(&self, value: Value) -> Value {
        match self.info(value).home {
            Home::View(base, _) => base,
            _ => value,
        }
    }
}
