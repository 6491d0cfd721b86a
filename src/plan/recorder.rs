//! The recorder: ops call it, it checks every launch and derives the backward program.
//!
//! An op's record function launches its forward kernels and registers one closure for its backward. When
//! [`Recorder::differentiate`] runs, the closures are called once, last op first. Each asks for the gradient that has
//! arrived at its outputs ([`Recorder::incoming`]) and for the places of its inputs' gradients
//! ([`Recorder::outgoing`]), where the recorder decides between `=` (first contribution) and `+=` (every further one).

use std::collections::{HashMap, HashSet};

use super::arena::{self, Lifetime};
use super::{Home, Launch, ParamTable, Place, Plan, PlanError, Port, Space, Value, ValueInfo, aligned, reads};
use crate::kernel::{Access, Count, DType, Dims, Extent, Kernel, StepParams};

type Backward = Box<dyn FnOnce(&mut Recorder) -> Result<(), PlanError>>;

/// Where a gradient goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gradient {
    /// The gradient tensor, shaped like its value.
    pub value: Value,
    /// Whether to add to what is there (`+=`) instead of overwriting it.
    pub accumulate: bool,
}

impl Gradient {
    /// The flag as a launch constant.
    pub fn flag(&self) -> u32 {
        u32::from(self.accumulate)
    }
}

/// Records one plan.
pub struct Recorder<'p> {
    plan: String,
    params: &'p ParamTable,
    values: Vec<ValueInfo>,
    launches: Vec<Launch>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    by_place: HashMap<(Space, usize), Value>,
    tape: Vec<(String, Backward)>,
    gradients: HashMap<Value, Value>,
    frozen: HashSet<String>,
    accumulate: bool,
    scope: Vec<String>,
    ops: u32,
    variant: usize,
}

impl<'p> Recorder<'p> {
    /// A recorder for a plan over these parameters.
    pub fn new(plan: &str, params: &'p ParamTable) -> Recorder<'p> {
        Recorder {
            plan: plan.to_string(),
            params,
            values: Vec::new(),
            launches: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            by_place: HashMap::new(),
            tape: Vec::new(),
            gradients: HashMap::new(),
            frozen: HashSet::new(),
            accumulate: false,
            scope: vec![plan.to_string()],
            ops: 0,
            variant: 0,
        }
    }

    /// Every parameter gradient is added to what earlier plans left: gradient accumulation over micro-batches.
    pub fn accumulate_gradients(&mut self) {
        self.accumulate = true;
    }

    /// Launches use variant `index` of kernels that have as many; tests walk through them with it.
    pub fn prefer_variant(&mut self, index: usize) {
        self.variant = index;
    }

    /// The parameters.
    pub fn params(&self) -> &'p ParamTable {
        self.params
    }

    /// Runs `body` inside a named scope; errors and profiles show `plan/scope/...`.
    ///
    /// # Errors
    /// Those of `body`.
    pub fn scope<T>(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut Recorder<'p>) -> Result<T, PlanError>,
    ) -> Result<T, PlanError> {
        self.scope.push(name.to_string());
        let result = body(self);
        self.scope.pop();
        result
    }

    /// The scope as one string.
    pub fn path(&self) -> String {
        self.scope.join("/")
    }

    /// A new op id: the word of the Philox counter that keeps two ops' random numbers apart.
    pub fn op_id(&mut self) -> u32 {
        self.ops += 1;
        self.ops
    }

    /// An error for a size that an op does not support.
    pub fn unsupported(&self, what: String) -> PlanError {
        PlanError::Unsupported {
            scope: self.path(),
            what,
        }
    }

    // ---- values ------------------------------------------------------------------------------------------------

    /// What a value is.
    pub fn info(&self, value: Value) -> &ValueInfo {
        &self.values[value.0 as usize]
    }

    /// A new f32 intermediate value.
    pub fn value(&mut self, name: &str, rows: Extent, width: u32) -> Value {
        self.add(name, rows, width, DType::F32, Home::Arena)
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

    /// Any fixed range of a buffer as a value that counts as written: the flat parameter buffer for AdamW.
    pub fn range(&mut self, name: &str, space: Space, range: std::ops::Range<usize>) -> Value {
        let extent = Extent::fixed(1);
        self.place_at(
            name,
            space,
            range.start,
            extent,
            (range.end - range.start) as u32,
            DType::F32,
        )
    }

    /// An input of the plan, part of the one upload per step.
    pub fn input(&mut self, name: &'static str, rows: Extent, width: u32, dtype: DType) -> Value {
        let words = rows.capacity as usize * width as usize;
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

    /// An input that gradients flow to (tests of single ops).
    pub fn differentiable_input(&mut self, name: &'static str, rows: Extent, width: u32) -> Value {
        let value = self.input(name, rows, width, DType::F32);
        let info = &mut self.values[value.0 as usize];
        (info.needs_gradient, info.has_backward) = (true, true);
        value
    }

    /// An output of the plan, readable by the host after the run.
    pub fn output(&mut self, name: &'static str, rows: Extent, width: u32) -> Value {
        let words = rows.capacity as usize * width as usize;
        let offset = self.outputs.last().map_or(0, |port| aligned(port.offset + port.words));
        self.outputs.push(Port { name, offset, words });
        self.add(name, rows, width, DType::F32, Home::At(Space::Readback, offset))
    }

    /// Rows `start .. start + capacity` of a value, sharing its memory.
    pub fn view(&mut self, value: Value, start: u32, capacity: u32) -> Value {
        let info = self.info(value).clone();
        assert!(start + capacity <= info.rows.capacity, "a view stays inside its value");
        let offset = start as usize * info.width as usize;
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
        self.values.push(ValueInfo {
            label: format!("{}[{start}..]", info.label),
            rows,
            home,
            ..info
        });
        Value(self.values.len() as u32 - 1)
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
            if (info.rows, info.width) == (rows, width) {
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
        self.values.push(ValueInfo {
            label,
            rows,
            width,
            dtype,
            home,
            needs_gradient: false,
            has_backward: false,
            written: false,
            keep: false,
        });
        Value(self.values.len() as u32 - 1)
    }

    fn base(&self, value: Value) -> Value {
        match self.info(value).home {
            Home::View(base, _) => base,
            _ => value,
        }
    }

    // ---- launches ----------------------------------------------------------------------------------------------

    /// Records a launch: resolves the kernel's shape symbols from `values`, checks sizes, types, constants and that
    /// everything read has been written.
    ///
    /// # Errors
    /// Each mismatch, with the scope.
    pub fn launch(
        &mut self,
        kernel: &'static Kernel,
        values: &[Value],
        constants: &[(&'static str, u32)],
    ) -> Result<(), PlanError> {
        let scope = self.path();
        let counted = |what, expected, found| PlanError::Count {
            scope: scope.clone(),
            kernel: kernel.name,
            what,
            expected,
            found,
        };
        if values.len() != kernel.args.len() {
            return Err(counted("arguments", kernel.args.len(), values.len()));
        }
        let mut dims = Dims::default();
        for (arg, &value) in kernel.args.iter().zip(values) {
            let info = self.info(value);
            if info.dtype != arg.dtype {
                return Err(PlanError::Type {
                    scope,
                    kernel: kernel.name,
                    arg: arg.name,
                    expected: arg.dtype,
                    found: info.dtype,
                    label: info.label.clone(),
                });
            }
            for (symbol, found) in [(arg.shape[0], info.rows), (arg.shape[1], Extent::fixed(info.width))] {
                let expected = match symbol {
                    "*" => continue,
                    "1" => Some(Extent::fixed(1)),
                    _ => dims.find(symbol),
                };
                match expected {
                    None => dims.bind(symbol, found),
                    Some(expected) if expected == found => {}
                    Some(expected) => {
                        return Err(PlanError::Shape {
                            scope,
                            kernel: kernel.name,
                            arg: arg.name,
                            symbol,
                            expected: expected.to_string(),
                            found: found.to_string(),
                            label: info.label.clone(),
                        });
                    }
                }
            }
        }
        for (name, word) in constants {
            dims.constant(name, *word);
        }
        if let Some(constant) = kernel.constants.iter().find(|name| dims.device_word(name).is_none()) {
            return Err(PlanError::Constant {
                scope,
                kernel: kernel.name,
                constant,
            });
        }
        let mut depends = false;
        for (index, &value) in values.iter().enumerate() {
            let written = self.info(self.base(value)).written;
            let info = self.info(value);
            depends |= info.needs_gradient && kernel.args[index].access != Access::Out;
            let label = || info.label.clone();
            if reads(kernel, &dims, index) && !written {
                return Err(PlanError::Unwritten {
                    scope,
                    kernel: kernel.name,
                    label: label(),
                });
            }
            let fixed = matches!(info.home, Home::At(Space::Inputs, _));
            let parameter = matches!(info.home, Home::At(Space::Params, _)) && !self.tape.is_empty();
            if kernel.args[index].access != Access::In && (fixed || parameter) {
                return Err(PlanError::ReadOnly {
                    scope,
                    kernel: kernel.name,
                    label: label(),
                });
            }
        }
        for (arg, &value) in kernel.args.iter().zip(values) {
            if arg.access != Access::In {
                let base = self.base(value);
                self.values[base.0 as usize].written = true;
                self.values[value.0 as usize].needs_gradient |= depends;
                self.values[base.0 as usize].needs_gradient |= depends;
            }
        }
        let variant = self.variant.min(kernel.variants.len() - 1);
        self.launches.push(Launch {
            kernel,
            variant,
            scope,
            values: values.to_vec(),
            dims,
        });
        Ok(())
    }

    // ---- gradients ---------------------------------------------------------------------------------------------

    /// Registers the backward of the op that made `outputs`.
    pub fn backward(
        &mut self,
        outputs: &[Value],
        backward: impl FnOnce(&mut Recorder) -> Result<(), PlanError> + 'static,
    ) {
        for output in outputs {
            self.values[output.0 as usize].has_backward = true;
        }
        self.tape.push((self.path(), Box::new(backward)));
    }

    /// The finished gradient of `value`, if anything contributed to it.
    pub fn incoming(&self, value: Value) -> Option<Value> {
        self.gradients.get(&value).copied()
    }

    /// Whether a parameter (or a differentiable input) depends on `value`.
    pub fn needs_gradient(&self, value: Value) -> bool {
        self.info(value).needs_gradient
    }

    /// The place for a contribution to the gradient of `value`; `None` if no parameter depends on it.
    ///
    /// # Errors
    /// [`PlanError::NoBackward`] if a parameter depends on it through an op without a backward.
    pub fn outgoing(&mut self, value: Value) -> Result<Option<Gradient>, PlanError> {
        let info = self.info(value).clone();
        if !info.needs_gradient {
            return Ok(None);
        }
        if !info.has_backward {
            return Err(PlanError::NoBackward {
                scope: self.path(),
                label: info.label,
            });
        }
        if let Some(&gradient) = self.gradients.get(&value) {
            return Ok(Some(Gradient {
                value: gradient,
                accumulate: true,
            }));
        }
        let parameter = match info.home {
            Home::At(Space::Params, offset) => Some(offset),
            _ => None,
        };
        let home = parameter.map_or(Home::Arena, |offset| Home::At(Space::Grads, offset));
        let gradient = self.add(&format!("d {}", info.label), info.rows, info.width, DType::F32, home);
        let label = format!("d {}", info.label);
        let accumulate = self.accumulate && parameter.is_some();
        let entry = &mut self.values[gradient.0 as usize];
        (entry.label, entry.written) = (label, accumulate);
        self.gradients.insert(value, gradient);
        Ok(Some(Gradient {
            value: gradient,
            accumulate,
        }))
    }

    /// Declares `gradient` (a value of the same shape) to be the gradient of `value`: where a backward begins.
    pub fn seed_gradient(&mut self, value: Value, gradient: Value) {
        self.gradients.insert(value, gradient);
    }

    /// Declares parameters whose names begin with `prefix` as having no gradient in this plan.
    pub fn freeze(&mut self, prefix: &str) {
        let names = self
            .params
            .iter()
            .map(|(spec, _)| &spec.name)
            .filter(|name| name.starts_with(prefix));
        self.frozen.extend(names.cloned());
    }

    /// Records the backward of everything recorded so far.
    ///
    /// # Errors
    /// Those of the ops; [`PlanError::NoGradient`] for a parameter that nothing reached.
    pub fn differentiate(&mut self) -> Result<(), PlanError> {
        let tape = std::mem::take(&mut self.tape);
        let outer = std::mem::take(&mut self.scope);
        for (scope, backward) in tape.into_iter().rev() {
            self.scope = vec![scope, "backward".to_string()];
            backward(self)?;
        }
        self.scope = outer;
        let reached: Vec<std::ops::Range<usize>> = self
            .gradients
            .values()
            .filter_map(|gradient| match self.info(*gradient).home {
                Home::At(Space::Grads, offset) => Some(offset..offset + self.info(*gradient).words()),
                _ => None,
            })
            .collect();
        for (spec, offset) in self.params.iter() {
            let covered = reached
                .iter()
                .any(|range| range.start <= offset && offset + spec.len() <= range.end);
            if !covered && !self.frozen.contains(&spec.name) {
                return Err(PlanError::NoGradient {
                    plan: self.plan.clone(),
                    name: spec.name.clone(),
                });
            }
        }
        Ok(())
    }

    // ---- the plan ----------------------------------------------------------------------------------------------

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
        let (offsets, arena_words) = arena::place(&lifetimes);
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
            values: self.values,
            places,
        }
    }
}
