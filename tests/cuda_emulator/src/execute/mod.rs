//! Running a kernel.
//!
//! A block's warps run one after the other until each waits at a barrier or is done. Within a warp the lanes that stand
//! at the same instruction run together as a [`Group`](warp::Group), registers being rows of 32 lanes; the group whose
//! instruction comes first in the text runs first, or, with a seed, one chosen at random. Blocks run on all threads of
//! the host; those of a kernel with atomic operations on device memory run in their order on one, so that sums of floats
//! come out the same every time.

mod access;
mod block;
mod check;
mod copies;
mod exchange;
mod matrix;
mod races;
mod shared;
mod step;
mod verify;
mod warp;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub use matrix::fragment_sizes;

use crate::counters::Counts;
use crate::finding::Finding;
use crate::memory::View;
use crate::ptx::{Constant, Kernel, Register, Space};
use block::Block;
use races::GlobalShadow;

/// Where generic addresses of a space start.
pub fn window(space: Space) -> u64 {
    match space {
        Space::Shared => 1 << 60,
        Space::Local => 1 << 61,
        Space::Global | Space::Generic => 0,
    }
}

/// A kernel with everything that a launch adds.
#[derive(Clone)]
pub struct Launch {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// Addresses of the module's variables.
    pub variables: Arc<Vec<u64>>,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// The parameters, as they lie in memory.
    pub parameters: Vec<u8>,
}

/// How kernels are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Seed of the order of warps and lanes; 0 is the order of the text.
    pub seed: u64,
    /// Whether races and uninitialised reads are looked for. Bounds and barriers always are.
    pub checked: bool,
    /// Whether memory requests and instructions are counted by line.
    pub counters: bool,
    /// Instructions that a block's warps may run together before the launch counts as hung.
    pub step_limit: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            seed: 0,
            checked: true,
            counters: false,
            step_limit: 2_000_000_000,
        }
    }
}

/// A launch in progress, as all blocks see it.
struct Run<'a> {
    launch: &'a Launch,
    kernel: &'a Kernel,
    settings: Settings,
    view: &'a View,
    races: Option<GlobalShadow>,
    /// Values of the registers that hold constants.
    constants: Vec<(Register, u64)>,
    threads: u32,
    /// Bytes of shared memory of a block.
    shared_bytes: u32,
    dynamic_start: u32,
}

impl Run<'_> {
    fn blocks(&self) -> u64 {
        self.launch.grid.iter().map(|size| u64::from(*size)).product()
    }

    fn block_index(&self, linear: u64) -> [u32; 3] {
        let [x, y, _] = self.launch.grid.map(u64::from);
        [(linear % x) as u32, (linear / x % y) as u32, (linear / (x * y)) as u32]
    }

    fn thread_index(&self, thread: u32) -> [u32; 3] {
        let [x, y, _] = self.launch.block;
        [thread % x, thread / x % y, thread / (x * y)]
    }
}

/// Bytes of static shared memory and where the dynamic part starts.
pub fn dynamic_shared_start(kernel: &Kernel) -> u32 {
    kernel.static_shared.next_multiple_of(16)
}

/// Runs a kernel; what it counted, and what was found, if anything.
pub fn run(launch: &Launch, view: &View, settings: Settings, pool: &rayon::ThreadPool) -> (Counts, Option<Finding>) {
    let kernel = &*launch.kernel;
    let dynamic_start = dynamic_shared_start(kernel);
    let value = |constant: Constant| match constant {
        Constant::Value(value) => value,
        Constant::Variable(at) => launch.variables[at],
        Constant::DynamicShared => u64::from(dynamic_start),
    };
    let shared_bytes = match launch.dynamic_shared {
        0 => kernel.static_shared,
        bytes => dynamic_start + bytes,
    };
    let run = Run {
        launch,
        kernel,
        settings,
        view,
        races: settings.checked.then(|| GlobalShadow::new(view)),
        constants: kernel
            .constants
            .iter()
            .map(|(at, constant)| (*at, value(*constant)))
            .collect(),
        threads: launch.block.iter().product(),
        shared_bytes,
        dynamic_start,
    };
    let blocks = run.blocks();
    let next = AtomicU32::new(0);
    let failed = AtomicU32::new(u32::MAX);
    let work = || {
        let mut block = Block::new(&run);
        let mut finding = None;
        loop {
            let linear = next.fetch_add(1, Ordering::Relaxed);
            // Blocks before a failed one still run: the first finding is the one that is told.
            if u64::from(linear) >= blocks || linear > failed.load(Ordering::Relaxed) {
                return (block.into_counts(), finding);
            }
            if let Err(found) = block.run(linear) {
                failed.fetch_min(linear, Ordering::Relaxed);
                finding = Some((linear, *found));
            }
        }
    };
    let outcomes = if kernel.has_global_atomics || blocks == 1 {
        vec![work()]
    } else {
        pool.broadcast(|_| work())
    };
    let mut counts = Counts::new(kernel);
    let mut first: Option<(u32, Finding)> = None;
    for (counted, finding) in outcomes {
        counts.add(&counted);
        if let Some((linear, _)) = &finding
            && first.as_ref().is_none_or(|(earlier, _)| linear < earlier)
        {
            first = finding;
        }
    }
    counts.launches = 1;
    (counts, first.map(|(_, finding)| finding))
}
