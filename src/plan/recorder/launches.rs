//! A launch, checked against its kernel's tables when it is recorded.

use super::{Launch, PlanError, Recorder, Value};
use crate::kernel::{Access, Dims, Element, Extent, Kernel, Precision};
use crate::plan::{Home, Space, reads};

impl Recorder<'_> {
    /// Records a launch: resolves the kernel's shape symbols from `values`, checks sizes, types, constants and that
    /// everything read has been written and is still what it was.
    ///
    /// # Errors
    /// Each mismatch, with the scope.
    pub fn launch(
        &mut self,
        kernel: &'static Kernel,
        values: &[Value],
        constants: &[(&'static str, u32)],
    ) -> Result<(), PlanError> {
        let mut dims = self.resolve(kernel, values)?;
        for (name, word) in constants {
            dims.constant(name, *word);
        }
        if let Some(constant) = kernel.constants.iter().find(|name| dims.device_word(name).is_none()) {
            return Err(PlanError::Constant {
                scope: self.path(),
                kernel: kernel.name,
                constant,
            });
        }
        self.emit(Launch {
            kernel,
            scope: self.path(),
            values: values.iter().map(|&value| self.current(value)).collect(),
            dims,
            recomputed: false,
        })
    }

    /// The sizes that the values give to the kernel's shape symbols.
    fn resolve(&self, kernel: &'static Kernel, values: &[Value]) -> Result<Dims, PlanError> {
        if values.len() != kernel.args.len() {
            return Err(PlanError::Count {
                scope: self.path(),
                kernel: kernel.name,
                expected: kernel.args.len(),
                found: values.len(),
            });
        }
        let mut dims = Dims::default();
        dims.store_as(self.storage(kernel, values));
        for (arg, &value) in kernel.args.iter().zip(values) {
            let info = self.info(value);
            let expected = arg.element.dtype(dims.precision());
            if info.dtype != expected {
                return Err(PlanError::Type {
                    scope: self.path(),
                    kernel: kernel.name,
                    arg: arg.name,
                    expected,
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
                            scope: self.path(),
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
        Ok(dims)
    }

    /// How the launch's stored tensors are stored: as the first of them is. An f32 tensor (a parameter's gradient) may be
    /// shown to a kernel in a plan of another precision.
    fn storage(&self, kernel: &Kernel, values: &[Value]) -> Precision {
        let mut stored = kernel.args.iter().zip(values);
        let first = stored.find(|(arg, _)| arg.element == Element::Stored);
        match first.map(|(_, &value)| self.info(value).dtype) {
            Some(dtype) if dtype == self.precision.dtype() => self.precision,
            _ => Precision::F32,
        }
    }

    /// Adds a launch of resolved sizes to the plan if it may read and write what it would.
    pub(super) fn emit(&mut self, launch: Launch) -> Result<(), PlanError> {
        let mut depends = false;
        for (index, &value) in launch.values.iter().enumerate() {
            if reads(launch.kernel, &launch.dims, index) {
                self.check_read(&launch, value)?;
                depends |= self.needs_gradient(value);
            }
            if launch.kernel.args[index].access != Access::In {
                self.check_write(&launch, value)?;
            }
        }
        for (arg, &value) in launch.kernel.args.iter().zip(&launch.values) {
            if arg.access == Access::In {
                continue;
            }
            let base = self.base(value);
            let count = self.launches.len() + 1;
            let info = &mut self.values[base.0 as usize];
            info.written = true;
            info.needs_gradient |= depends;
            if self.registered.is_none() {
                info.last_write = count;
            }
        }
        self.launches.push(launch);
        Ok(())
    }

    /// Refuses to read what was never written and, in a backward, what was written anew since the op ran: in place of its
    /// input another op's result would be used.
    fn check_read(&self, launch: &Launch, value: Value) -> Result<(), PlanError> {
        let info = self.info(self.base(value));
        let label = || self.info(value).label.clone();
        if !info.written {
            return Err(PlanError::Unwritten {
                scope: launch.scope.clone(),
                kernel: launch.kernel.name,
                label: label(),
            });
        }
        if !info.gradient && self.registered.is_some_and(|launches| info.last_write > launches) {
            return Err(PlanError::Overwritten {
                scope: launch.scope.clone(),
                kernel: launch.kernel.name,
                label: label(),
            });
        }
        Ok(())
    }

    fn check_write(&self, launch: &Launch, value: Value) -> Result<(), PlanError> {
        let info = self.info(value);
        let differentiable = self.registered.is_some() || !self.tape.is_empty();
        if match info.home {
            Home::At(Space::Inputs, _) => true,
            Home::At(Space::Params, _) => differentiable,
            _ => false,
        } {
            return Err(PlanError::ReadOnly {
                scope: launch.scope.clone(),
                kernel: launch.kernel.name,
                label: info.label.clone(),
            });
        }
        let base = self.base(value);
        let outside = |first| base < first || matches!(info.home, Home::At(..));
        if self.region.is_some_and(outside) {
            return Err(PlanError::Region {
                scope: launch.scope.clone(),
                what: format!(
                    "{} writes `{}`, which is not the region's own",
                    launch.kernel.name, info.label
                ),
            });
        }
        Ok(())
    }
}
