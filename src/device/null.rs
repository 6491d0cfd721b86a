//! The device that does nothing: no memory, no work.
//!
//! Dry runs, plan snapshots and the benchmark of the host's own time per step use it: what a step costs here is what the
//! framework costs.

use std::time::Duration;

use super::{Device, DeviceError, Program, Sizes, check, range_check};
use crate::plan::{Plan, Space};

/// See the module.
pub struct NullDevice {
    sizes: Sizes,
    launches: Vec<usize>,
    launched: u64,
}

impl NullDevice {
    /// A device with buffers of these sizes, of which none is allocated.
    pub fn new(sizes: Sizes) -> NullDevice {
        NullDevice {
            sizes,
            launches: Vec::new(),
            launched: 0,
        }
    }

    /// Launches so far.
    pub fn launched(&self) -> u64 {
        self.launched
    }
}

impl Device for NullDevice {
    fn describe(&self) -> String {
        "null (allocates nothing, runs nothing)".to_string()
    }

    fn load(&mut self, plan: &Plan) -> Result<Program, DeviceError> {
        check(plan, &self.sizes)?;
        self.launches.push(plan.launches.len());
        Ok(Program(self.launches.len() - 1))
    }

    fn write(&mut self, space: Space, offset: usize, words: &[u32]) -> Result<(), DeviceError> {
        range_check(&self.sizes, space, offset, words.len())
    }

    fn read(&mut self, space: Space, offset: usize, words: &mut [u32]) -> Result<(), DeviceError> {
        range_check(&self.sizes, space, offset, words.len())?;
        words.fill(0);
        Ok(())
    }

    fn run(&mut self, program: Program) -> Result<(), DeviceError> {
        self.launched += self.launches[program.0] as u64;
        Ok(())
    }

    fn run_timed(&mut self, program: Program, _times: &mut [Duration]) -> Result<(), DeviceError> {
        self.run(program)
    }
}
