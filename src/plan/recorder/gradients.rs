//! The tape and the backward.

use std::ops::Range;

use super::{PlanError, Recorder, Space, Value, ValueInfo};
use crate::plan::Home;

type Backward = Box<dyn FnOnce(&mut Recorder) -> Result<(), PlanError>>;

/// What the tape holds of an op.
pub(super) struct Entry {
    /// Scope of the op.
    pub scope: String,
    /// Launches recorded when the op registered its backward: what is written later is not what the op has seen.
    pub launches: usize,
    /// Records the backward.
    pub backward: Backward,
}

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

impl Recorder<'_> {
    /// Registers the backward of the op that made `outputs`.
    pub fn backward(
        &mut self,
        outputs: &[Value],
        backward: impl FnOnce(&mut Recorder) -> Result<(), PlanError> + 'static,
    ) {
        for output in outputs {
            self.values[output.0 as usize].has_backward = true;
        }
        self.tape.push(Entry {
            scope: self.path(),
            launches: self.launches.len(),
            backward: Box::new(backward),
        });
    }

    /// The finished gradient of `value`, if anything contributed to it.
    pub fn incoming(&self, value: Value) -> Option<Value> {
        self.gradients.get(&value).copied()
    }

    /// Whether a parameter (or a differentiable input) depends on `value`.
    pub fn needs_gradient(&self, value: Value) -> bool {
        self.info(self.base(value)).needs_gradient
    }

    /// The place for a contribution to the gradient of `value`; `None` if no parameter depends on it.
    ///
    /// # Errors
    /// [`PlanError::NoBackward`] if a parameter depends on it through an op without a backward, or through a view;
    /// [`PlanError::Overlap`] for parameters that are used alone and joined; [`PlanError::Region`] for a backward that
    /// would begin inside a recomputed region.
    pub fn outgoing(&mut self, value: Value) -> Result<Option<Gradient>, PlanError> {
        if !self.needs_gradient(value) {
            return Ok(None);
        }
        let info = self.info(value).clone();
        if !info.has_backward {
            return Err(PlanError::NoBackward {
                scope: self.path(),
                label: info.label,
            });
        }
        if self.region.is_some() {
            let what = format!(
                "the gradient of `{}` would begin inside the region and be made twice",
                info.label
            );
            return Err(PlanError::Region {
                scope: self.path(),
                what,
            });
        }
        if let Some(&gradient) = self.gradients.get(&value) {
            return Ok(Some(Gradient {
                value: gradient,
                accumulate: true,
            }));
        }
        let home = match info.home {
            Home::At(Space::Params, offset) => {
                self.check_overlap(&info.label, offset..offset + info.words())?;
                Home::At(Space::Grads, offset)
            }
            _ => Home::Arena,
        };
        let accumulate = self.accumulate && home != Home::Arena;
        let label = format!("d {}", info.label);
        let gradient = self.push(ValueInfo {
            written: accumulate,
            gradient: true,
            ..ValueInfo::new(label, info.rows, info.width, info.dtype, home)
        });
        self.gradients.insert(value, gradient);
        Ok(Some(Gradient {
            value: gradient,
            accumulate,
        }))
    }

    /// Refuses a second gradient in the same words: its `=` would overwrite what the first one holds.
    fn check_overlap(&self, label: &str, range: Range<usize>) -> Result<(), PlanError> {
        for (&value, &gradient) in &self.gradients {
            let Some(other) = self.parameter_range(gradient) else {
                continue;
            };
            if other.start < range.end && range.start < other.end {
                return Err(PlanError::Overlap {
                    scope: self.path(),
                    label: label.to_string(),
                    other: self.info(value).label.clone(),
                });
            }
        }
        Ok(())
    }

    /// The words of the gradient buffer that a gradient of parameters is written to.
    fn parameter_range(&self, gradient: Value) -> Option<Range<usize>> {
        let info = self.info(gradient);
        match info.home {
            Home::At(Space::Grads, offset) => Some(offset..offset + info.words()),
            _ => None,
        }
    }

    /// Declares `gradient` (a value of the same shape) to be the gradient of `value`: where a backward begins.
    pub fn seed_gradient(&mut self, value: Value, gradient: Value) {
        let base = self.base(gradient);
        self.values[base.0 as usize].gradient = true;
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
        for entry in tape.into_iter().rev() {
            self.scope = vec![entry.scope, "backward".to_string()];
            self.registered = Some(entry.launches);
            (entry.backward)(self)?;
        }
        self.scope = outer;
        self.registered = None;
        let written = |&&gradient: &&Value| self.info(gradient).written;
        let reached: Vec<Range<usize>> = self
            .gradients
            .values()
            .filter(written)
            .filter_map(|&gradient| self.parameter_range(gradient))
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
}
