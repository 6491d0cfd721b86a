//! Steps as they were: every launch with its time, and what the host did between them.
//!
//! ```text
//! steps      |--------- step 0 ---------||--------- step 1 ---------|
//! prepare    |-- batch 1 --|      |-- batch 2 --|                          the thread that packs batches
//! host       |wait|up|------ run ------|down|                              waiting for a batch, upload, replay, readback
//! forward         |k||k||k|                                                launches, by what they belong to
//! backward                 |k||k||k|
//! update                           |k||k|
//! ```
//!
//! The CPU's launches stand where they ran. A GPU gives the time of each, and they are laid one behind the other from the
//! beginning of the replay: where in it a gap was, is not known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::device::{Device, DeviceError, Program};
use crate::kernel::{Cost, StepParams};
use crate::plan::{Launch, Plan, Space};

/// What a slice belongs to; each is a track of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Track {
    /// Whole steps.
    Steps,
    /// Batches on their way into the input block, on a thread of their own.
    Prepare,
    /// What the host does.
    Host,
    /// Launches of the forward, the losses' gradients among them.
    Forward,
    /// Launches of the backward, what is recomputed among them.
    Backward,
    /// Norm, clipping, AdamW.
    Update,
}

/// All tracks, from the top.
pub const TRACKS: [Track; 6] = [
    Track::Steps,
    Track::Prepare,
    Track::Host,
    Track::Forward,
    Track::Backward,
    Track::Update,
];

/// What the host does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostWork {
    /// A batch is not ready.
    Wait,
    /// The input block on its way to the device.
    Upload,
    /// A program from its start to its end.
    Run,
    /// Losses and norm on their way to the host.
    Readback,
}

/// What a slice shows.
#[derive(Clone, Debug)]
pub enum Shows {
    /// Step of this number.
    Step(u64),
    /// The batches of the step of this number.
    Batch(u64),
    /// The host's work.
    Host(HostWork),
    /// A launch of a plan.
    Launch {
        /// The plan.
        plan: Arc<Plan>,
        /// Which of its launches.
        index: usize,
        /// Its work on this batch.
        cost: Cost,
    },
}

/// A span of time.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Where it is drawn.
    pub track: Track,
    /// From the timeline's origin.
    pub start: Duration,
    /// How long it took.
    pub length: Duration,
    /// What it is.
    pub shows: Shows,
}

/// Slices of consecutive steps.
#[derive(Clone, Debug)]
pub struct Timeline {
    origin: Instant,
    /// In the order of their ends.
    pub slices: Vec<Slice>,
    times: Vec<Duration>,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline::new()
    }
}

impl Timeline {
    /// A timeline that begins now.
    pub fn new() -> Timeline {
        Timeline {
            origin: Instant::now(),
            slices: Vec::new(),
            times: Vec::new(),
        }
    }

    /// Adds what took from `start` until now.
    pub fn add(&mut self, track: Track, start: Instant, shows: Shows) {
        self.span(track, start, start.elapsed(), shows);
    }

    /// Adds what took so long from `start`; nothing that began before the timeline.
    pub fn span(&mut self, track: Track, start: Instant, length: Duration, shows: Shows) {
        if let Some(start) = start.checked_duration_since(self.origin) {
            self.slices.push(Slice {
                track,
                start,
                length,
                shows,
            });
        }
    }

    /// Uploads inputs and replays programs one by one with the time of each launch: [`Device::submit`] for a timeline.
    ///
    /// # Errors
    /// Those of the device, among them that it cannot time its launches.
    pub fn submit(
        &mut self,
        device: &mut dyn Device,
        inputs: &[u32],
        programs: &[(Program, &Arc<Plan>)],
        step: &StepParams,
    ) -> Result<(), DeviceError> {
        let start = Instant::now();
        device.write(Space::Inputs, 0, inputs)?;
        self.add(Track::Host, start, Shows::Host(HostWork::Upload));
        for &(program, plan) in programs {
            self.times.clear();
            self.times.resize(plan.launches.len(), Duration::ZERO);
            let start = Instant::now();
            device.run_timed(program, &mut self.times)?;
            self.add(Track::Host, start, Shows::Host(HostWork::Run));
            let mut at = start;
            for (index, launch) in plan.launches.iter().enumerate() {
                let (length, plan) = (self.times[index], Arc::clone(plan));
                let cost = launch.cost(Some(step));
                self.span(track(&plan, launch), at, length, Shows::Launch { plan, index, cost });
                at += length;
            }
        }
        Ok(())
    }

    /// Copies the beginning of [`Space::Readback`] out: [`Device::collect`] for a timeline.
    ///
    /// # Errors
    /// Those of the device.
    pub fn collect(&mut self, device: &mut dyn Device, readback: &mut [u32]) -> Result<(), DeviceError> {
        let start = Instant::now();
        device.read(Space::Readback, 0, readback)?;
        self.add(Track::Host, start, Shows::Host(HostWork::Readback));
        Ok(())
    }
}

/// What a launch belongs to.
fn track(plan: &Plan, launch: &Launch) -> Track {
    let backward = launch.recomputed || launch.scope.split('/').any(|part| part == "backward");
    match plan.name.as_str() {
        "update" => Track::Update,
        _ if backward => Track::Backward,
        _ => Track::Forward,
    }
}

/// The part of the model that a launch belongs to: its scope without plan and direction, `layer3/attention`.
pub fn layer(launch: &Launch) -> String {
    let parts = launch.scope.split('/').skip(1);
    let parts: Vec<&str> = parts
        .filter(|part| !matches!(*part, "backward" | "recomputed"))
        .collect();
    match parts.is_empty() {
        true => launch.scope.split('/').next().unwrap_or_default().to_owned(),
        false => parts.join("/"),
    }
}

impl Track {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Track::Steps => "steps",
            Track::Prepare => "prepare batches",
            Track::Host => "host",
            Track::Forward => "forward",
            Track::Backward => "backward",
            Track::Update => "update",
        }
    }
}

impl HostWork {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            HostWork::Wait => "wait for a batch",
            HostWork::Upload => "upload",
            HostWork::Run => "run",
            HostWork::Readback => "read back",
        }
    }
}
